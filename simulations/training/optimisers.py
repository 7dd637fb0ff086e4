"""Optimisers by name: three short names, and all of torch.optim."""

from __future__ import annotations

import inspect

import torch
from torch import nn

from actrelax.models._names import known
from actrelax.models.errors import ActrelaxError

SHORT = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
PREFIX = "torch.optim."
UNFIT = (torch.optim.Optimizer, torch.optim.LBFGS, torch.optim.SparseAdam)
"""Excluded classes: the base class, one that calls the rule several times per step, and one for sparse gradients."""


def optimiser_named(name: str) -> type[torch.optim.Optimizer]:
    """Return the optimiser class named sgd, adam, adamw or torch.optim.NAME.

    Examples
    --------
    >>> optimiser_named("torch.optim.RMSprop")
    <class 'torch.optim.rmsprop.RMSprop'>
    """
    if name in SHORT:
        return SHORT[name]
    found: dict[str, type[torch.optim.Optimizer]] = {
        PREFIX + key: kind for key, kind in vars(torch.optim).items() if _fits(kind)
    }
    return found[known("optimiser", name, [*SHORT, *found])]


def takes(name: str, option: str) -> bool:
    """Return whether an optimiser's constructor has an option."""
    return option in inspect.signature(optimiser_named(name)).parameters


def make_optimiser(
    network: nn.Module, name: str, *, lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return an optimiser of a network's parameters; options that it does not have are left out."""
    options = {"lr": lr, "weight_decay": weight_decay} | ({"momentum": momentum} if momentum or name == "sgd" else {})
    own = {option: value for option, value in options.items() if takes(name, option)}
    try:
        return optimiser_named(name)(network.parameters(), **own)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:  # such as Muon for biases: "only supports 2D parameters"
        reason = str(error).splitlines()[0].rstrip(".")
        raise ActrelaxError(f"{name} can't be used here: {reason}.") from error


def _fits(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and kind not in UNFIT
