"""The updates of a captured network's parameters, and the signals on their way to its populations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from actrelax.models.network import Operation
from actrelax.models.network.captured import (
    Sums,
    leaves_of,
    parameter_of,
    refuse_overwritten,
    refuse_stale,
    signal_of,
    whole_weight,
)

Feedback = Mapping[str, Tensor]
"""Projection -> the weights of its feedback, for the projections whose own weights do not carry it."""


class ParameterUpdates:
    """Updates of the tensors that a captured pass read, added up over operations and pieces.

    Weights that are computed from parameters (transposed, pruned, weight-normed) get theirs first; `gradients` carries
    these back to the parameters.
    """

    def __init__(self, scales: Mapping[str, float | Tensor] | None = None) -> None:
        self.scales = scales or {}
        self._found: dict[int, tuple[Tensor, Tensor]] = {}

    def add(self, to: Tensor, update: Tensor | None, kind: str) -> None:
        """Add one update of a tensor, times the scale of its kind of projection."""
        if update is None:
            return
        if update.dtype != to.dtype:
            update = update.to(to.dtype)
        scale = self.scales.get(kind, 1.0) if self.scales else 1.0
        if isinstance(scale, Tensor) or scale != 1:
            update = update * scale
        before = self._found.get(id(to))
        self._found[id(to)] = (to, update if before is None else before[1] + update)

    def of(self, weights: Iterable[Tensor]) -> Tensor | None:
        """Return the sum of the updates of these views of one weight, in the shape of the whole weight."""
        given = [self._found[number] for number in {id(w): w for w in weights} if number in self._found]
        found = [_on_whole(weight, update, whole_weight(weight)) for weight, update in given]
        return sum(found[1:], found[0]) if found else None

    def gradients(self) -> dict[Tensor, Tensor]:
        """Return leaf -> update, summed over all tensors that are made of it."""
        found: dict[Tensor, Tensor] = {}
        for leaf, update in [each for each in self._found.values() if each[0].grad_fn is None]:
            parameter = parameter_of(leaf)
            update = _on_whole(leaf, update, parameter)
            found[parameter] = found[parameter] + update if parameter in found else update
        computed = [(weight, update) for weight, update in self._found.values() if weight.grad_fn is not None]
        if computed:
            weights, updates = zip(*computed, strict=True)
            leaves = leaves_of(weights)
            back = torch.autograd.grad(weights, leaves, updates, allow_unused=True, retain_graph=False)
            for leaf, update in zip(leaves, back, strict=True):
                if update is not None:
                    found[leaf] = found[leaf] + update if leaf in found else update
        return found


def _on_whole(weight: Tensor, update: Tensor, whole: Tensor) -> Tensor:
    """Return the update of the tensor of which a weight is a view: that of the view, zero elsewhere."""
    if whole is weight:
        return update
    found = torch.zeros_like(whole)
    offset = weight.storage_offset() - whole.storage_offset()
    found.as_strided(weight.shape, weight.stride(), offset).copy_(update)
    return found


class Arrivals(Sums):
    """Signals on their way to populations, and the weights of the feedback that carries them."""

    def __init__(self, clamped: Tensor, feedback: Feedback) -> None:
        super().__init__()
        self.feedback = feedback
        self.signals[0] = clamped


@dataclass(frozen=True)
class Sending:
    """How an operation treats a signal.

    sends  whether the signal goes on to the operation's input
    psi    the weights that carry it there; None for the operation's own
    also   whether psi learns, and so needs the update even if the weight does not
    keep   whether the operation is used again
    """

    sends: bool
    psi: Tensor | None
    also: bool
    keep: bool


def hebbian_products(
    operation: Operation, y: Tensor | None, sent: Tensor | None, updates: ParameterUpdates, how: Sending
) -> Tensor | None:
    """Add the Hebbian products of one operation and y; return `sent` at the operation's input, if wanted."""
    refuse_stale(operation)
    weight, bias = operation.weight, operation.bias
    learns = weight.requires_grad or how.also
    wanted = (how.sends, learns, bias is not None and bias.requires_grad)
    if not any(wanted) or (y is None and sent is None):
        return None
    if learns:
        refuse_overwritten(operation)
    signal = None
    if how.sends and (how.psi is not None or sent is not y):
        signal = None if sent is None else signal_of(operation, sent, how.psi)
        wanted = (False, *wanted[1:])
    if y is not None and any(wanted):
        y = y if y.dtype == operation.used.dtype else y.to(operation.used.dtype)
        together, update, of_bias = operation.both(y, wanted, how.keep)
        signal = together if wanted[0] else signal
        if update is not None:
            updates.add(weight, update, operation.kind)
        if bias is not None and of_bias is not None:
            updates.add(bias, of_bias, operation.kind)
    if not how.keep:
        operation.forget()
    return signal if signal is None or signal.dtype == operation.dtype else signal.to(operation.dtype)
