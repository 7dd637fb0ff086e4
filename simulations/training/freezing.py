"""Parameters that don't learn."""

from __future__ import annotations

from collections.abc import Sequence

from actrelax.models._names import nearest
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Network


def freeze(network: Network, names: Sequence[str]) -> None:
    """Exclude named parameters, and all parameters of named projections and modules, from learning.

    Raises
    ------
    ActrelaxError
        For an unknown name, or if nothing is left to learn.

    Examples
    --------
    >>> from actrelax import build
    >>> network = build("digits-rec", generator=0)
    >>> freeze(network, ["hidden1->hidden1"])
    >>> [name for name, w in network.named_parameters() if not w.requires_grad]
    ['hidden1->hidden1.weight']
    """
    parameters = dict(network.named_parameters())
    members = {name: [w] for name, w in parameters.items()}
    for name, w in parameters.items():
        parts = name.split(".")
        for length in range(1, len(parts)):
            members.setdefault(".".join(parts[:length]), []).append(w)
    for name in names:
        if name not in members:
            raise ActrelaxError(
                f"--freeze must name a projection, a module or a parameter, got {name!r}: try {nearest(name, members)}."
            )
    frozen = [w for name in names for w in members[name]]
    if len({id(w) for w in frozen}) == len(parameters):
        raise ActrelaxError("--freeze leaves nothing to learn: name fewer projections.")
    for w in frozen:
        w.requires_grad_(False)
