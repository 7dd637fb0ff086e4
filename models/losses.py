"""Loss functions: a value per sample, and the gradient that clamps the output (THEORY.md section 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from actrelax.models.errors import ActrelaxError
from actrelax.models.registry import look_up

LossFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Loss:
    """A loss by its value and its gradient.

    Parameters
    ----------
    value : callable
        (output, target) -> loss of each sample, (batch,).
    gradient : callable
        (output, target) -> dLoss/doutput of each sample, (batch, *output.shape).
    """

    value: LossFunction
    gradient: LossFunction


def from_function(function: LossFunction) -> Loss:
    """Make a loss of any differentiable function; autograd sees the output and the target, nothing of the network.

    Parameters
    ----------
    function : callable
        (output, target) -> one loss per sample, (batch,), such as ``partial(F.cross_entropy, reduction="none")``.

    Raises
    ------
    ActrelaxError
        When called, if the function returns anything but one loss per sample: a mean over the batch would divide
        the clamp by the batch size.

    Examples
    --------
    >>> loss = from_function(lambda output, target: (output - target).abs().sum(1))
    >>> loss.gradient(torch.tensor([[2.0, -1.0]]), torch.zeros(1, 2))
    tensor([[ 1., -1.]])
    """

    def value(output: Tensor, target: Tensor) -> Tensor:
        losses = function(output, target)
        if losses.shape != output.shape[:1]:
            raise ActrelaxError(
                f"the loss function must return one loss per sample, shape ({len(output)},), "
                f"got {tuple(losses.shape)}: leave the reduction over the batch to `reduction`."
            )
        return losses

    def gradient(output: Tensor, target: Tensor) -> Tensor:
        with torch.enable_grad():
            output = output.detach().requires_grad_()
            return torch.autograd.grad(value(output, target).sum(), output)[0]

    return Loss(value, gradient)


def _squares(output: Tensor, target: Tensor) -> Tensor:
    return ((output - _dense(target, output)) ** 2).flatten(1).sum(1)


def _squares_gradient(output: Tensor, target: Tensor) -> Tensor:
    return 2 * (output - _dense(target, output))


def _half_squares(output: Tensor, target: Tensor) -> Tensor:
    return _squares(output, target) / 2


def _half_squares_gradient(output: Tensor, target: Tensor) -> Tensor:
    return output - _dense(target, output)


def _cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return -(F.log_softmax(output, 1) * _dense(target, output)).sum(1)


def _cross_entropy_gradient(output: Tensor, target: Tensor) -> Tensor:
    target = _dense(target, output)
    return F.softmax(output, 1) * target.sum(1, keepdim=True) - target


LOSSES: dict[str, Loss] = {
    "cross-entropy": Loss(_cross_entropy, _cross_entropy_gradient),
    "sum-of-squares": Loss(_squares, _squares_gradient),
    "half-sum-of-squares": Loss(_half_squares, _half_squares_gradient),
}
"""Softmax cross-entropy on logits; sum over the output of (x - t)^2, the papers' choice; half of it.

Targets are class labels (batch,) of an integer type, taken as one-hot, or (batch, *output.shape).
"""


def loss_named(given: str | Loss | LossFunction) -> Loss:
    """Look a loss up by name; a `Loss` passes through, any other callable goes to `from_function`.

    Raises
    ------
    ActrelaxError
        If no loss has that name.
    """
    return from_function(given) if callable(given) else look_up("loss", given, LOSSES)


def _dense(target: Tensor, output: Tensor) -> Tensor:
    """Targets in the output's shape and type; class labels become one-hot."""
    if not isinstance(target, Tensor):
        raise ActrelaxError(f"targets must be a torch.Tensor, got {type(target).__name__}: use torch.as_tensor.")
    if target.shape == output.shape:
        return target.to(output.dtype)
    is_labels = output.dim() == 2 and target.shape == output.shape[:1] and not target.dtype.is_floating_point
    if not is_labels:
        raise ActrelaxError(
            f"targets must be integer labels ({len(output)},) or of the output's shape {tuple(output.shape)}, "
            f"got {target.dtype} {tuple(target.shape)}."
        )
    # on a GPU this look would stall the queue; there labels are whoever loads the data's to check
    if target.device.type == "cpu" and len(target) and not (target.min() >= 0 and target.max() < output.shape[1]):
        worst = target.min() if target.min() < 0 else target.max()
        raise ActrelaxError(f"labels must lie between 0 and {output.shape[1] - 1}, got {worst}.")
    classes = torch.arange(output.shape[1], device=output.device)
    return (target.unsqueeze(1) == classes).to(output.dtype)
