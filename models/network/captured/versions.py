"""Versions of tensors that must not change in place between a forward pass and its relaxation, as in autograd."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from actrelax.models.errors import ActrelaxError


class Versions:
    """The versions of parameters, feedback weights and activities at the end of a forward pass.

    Each change in place raises a tensor's version. Unknown tensors are not checked.
    """

    def __init__(self, weights: Iterable[Tensor] = (), activities: Mapping[str, Tensor] | None = None) -> None:
        self._weights = {id(w): (w, w._version) for w in weights if not w.is_inference()}
        named = (activities or {}).items()
        self._activities = {name: x._version for name, x in named if not x.is_inference()}  # without keeping them

    def follow(self) -> None:
        """Accept the current weights, after those that learn during the relaxation have changed."""
        self._weights = {number: (w, w._version) for number, (w, _) in self._weights.items()}

    def refuse_changed_weight(self, weight: Tensor, kind: str) -> None:
        """Refuse a weight that has changed in place; `kind` names it in the message, such as "a feedback weight"."""
        if weight._version != self._weights.get(id(weight), (weight, weight._version))[1]:
            raise changed_weight(kind)

    def refuse_changed_activity(self, population: str, activity: Tensor) -> None:
        """Refuse the activity of a population that has changed in place."""
        if activity._version != self._activities.get(population, activity._version):
            raise changed_tensor(f"the activity of population {population!r}")


def changed_weight(kind: str) -> ActrelaxError:
    """Return the error for a weight that has changed in place since the forward pass."""
    return ActrelaxError(f"{kind} has changed in place since the forward pass: run backward before optimiser.step().")


def changed_tensor(what: str) -> ActrelaxError:
    """Return the error for another tensor that has changed in place since the forward pass."""
    return ActrelaxError(f"{what} has changed in place since the forward pass: clone it before writing to it.")
