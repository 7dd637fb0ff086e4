"""What gets no gradient from a relaxation, although it requires one: a sentence for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from actrelax.models.assumptions import Assumptions
from actrelax.models.engines import Settle
from actrelax.models.errors import warn
from actrelax.models.learning.gradients import learning_slots
from actrelax.models.network import Network

_REASONS = {
    "tau": "the equilibrium does not depend on time constants",
    "start": "the equilibrium does not depend on the initial state",
    "noise": "relaxations are not differentiated by their noise",
}


def warn_of_no_gradient(
    module: nn.Module, network: Network, assumptions: Assumptions, fields: Mapping[str, Any], settle: Settle
) -> None:
    """Warn of each parameter of the module, and each tensor among the arguments, that requires a gradient in vain."""
    for name, reason in _without_gradient(module, network, assumptions, fields, settle):
        warn(f"{name} requires a gradient, but gets none: {reason}.")


def _without_gradient(
    module: nn.Module, network: Network, assumptions: Assumptions, fields: Mapping[str, Any], settle: Settle
) -> Iterator[tuple[str, str]]:
    """Yield the name of what gets no gradient, and the reason."""
    learned, feedback = set(), set()
    for projection in network.projections.values():
        learned |= {id(parameter) for _, parameter, _ in learning_slots(network, assumptions, projection)}
        feedback.add(id(projection.feedback))
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and id(parameter) not in learned:
            fixed = id(parameter) in feedback
            yield (
                f"parameter {name!r}",
                "these assumptions don't learn feedback weights" if fixed else "no projection of the network has it",
            )
    for field, reason in _REASONS.items():
        yield from ((name, reason) for name in _requiring(field, fields.get(field)))
    for name in _requiring("start", settle.start):
        yield f"{name} of settle", "settled rates do not depend on their initial values"


def _requiring(field: str, given: object) -> Iterator[str]:
    """Yield the names of the tensors in one argument that require a gradient."""
    values = given.items() if isinstance(given, Mapping) else [(None, given)]
    for key, value in values:
        if isinstance(value, Tensor) and value.requires_grad:
            yield field if key is None else f"{field} of {key!r}"
