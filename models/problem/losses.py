"""Loss functions: a value per sample, and the gradient that clamps the output (docs/theory.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actrelax.models._names import look_up
from actrelax.models.errors import ActrelaxError

LossFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Loss:
    """A loss: its value and its gradient.

    Parameters
    ----------
    value : callable
        (output, target) -> loss of each sample, (batch,).
    gradient : callable
        (output, target) -> dLoss/doutput of each sample, (batch, *output.shape).
    shared : callable, optional
        (output, target) -> (value, gradient), if they share work.
    weights : callable, optional
        (output, target) -> weight of each sample, (batch,); a mean over the batch is divided by their sum.
    """

    value: LossFunction
    gradient: LossFunction
    shared: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    weights: LossFunction | None = None

    def both(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and gradient."""
        if self.shared is not None:
            return self.shared(output, target)
        return self.value(output, target), self.gradient(output, target)

    def correction(self, output: Tensor, target: Tensor, reduction: str) -> Tensor | None:
        """Return the factor from a plain mean over the batch to the loss's weighted mean; None if it is 1."""
        if self.weights is None or reduction == "sum":
            return None
        total = self.weights(output, target).sum()
        return torch.where(total > 0, len(output) / total, 0)  # nothing is learned if no sample counts


def from_function(function: LossFunction, *, weights: LossFunction | None = None) -> Loss:
    """Return a loss for any differentiable function, with its gradient by autograd.

    Parameters
    ----------
    function : callable
        (output, target) -> one loss per sample, (batch,), such as ``partial(F.cross_entropy, reduction="none")``.
    weights : callable, optional
        (output, target) -> weight of each sample, (batch,). A mean over the batch is divided by the sum of these
        weights; without them by the batch size. `nn.CrossEntropyLoss`, `nn.NLLLoss`, subclasses that inherit
        `forward`, and partials of their functions need no `weights`: their class weights and `ignore_index` count as
        in PyTorch. Class weights inside any other function, such as a lambda, can't be seen from outside: pass
        ``partial(F.cross_entropy, weight=w, reduction="none")`` in place of the lambda, or `weights`.

    Raises
    ------
    ActrelaxError
        For a subclass of these modules with class weights or an `ignore_index` and a separate `forward`, unless
        `weights` are given.
        When the loss is called, if the function does not return one loss per sample: a mean over the batch would
        divide the clamp by the batch size.

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
                f"the loss must return one value per sample, shape ({len(output)},), got {tuple(losses.shape)}: make "
                'it with reduction="none", and choose the reduction over the batch by '
                "options=BackwardOptions(reduction=...)."
            )
        return losses

    def both(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            output = output.detach().requires_grad_()
            losses = value(output, target)
            if not losses.requires_grad:
                raise ActrelaxError(
                    "the loss has no gradient, as after argmax() or detach(): compute it from the output by "
                    "differentiable functions alone."
                )
            return losses.detach(), torch.autograd.grad(losses.sum(), output)[0]

    return Loss(value, partial(_part, both, 1), both, weights or _weights_in_mean(function))


def _weights_in_mean(function: LossFunction) -> LossFunction | None:
    """Return the sample weights whose sum divides a PyTorch loss's mean; None for other functions."""
    by_class: Tensor | None
    if isinstance(function, nn.CrossEntropyLoss | nn.NLLLoss):
        if not _inherits_forward(function):
            if function.weight is None and function.ignore_index < 0:  # which no label has
                return None
            raise ActrelaxError(
                f"{type(function).__name__} has class weights or an ignore_index and overrides forward, which hides "
                "the weights in its mean: pass loss=from_function(loss, weights=...), with a weight per sample."
            )
        by_class, ignored = getattr(function, "weight", None), getattr(function, "ignore_index", -100)
    elif isinstance(function, partial) and function.func in (F.cross_entropy, F.nll_loss):
        by_class, ignored = function.keywords.get("weight"), function.keywords.get("ignore_index", -100)
    else:
        return None

    def weights(output: Tensor, target: Tensor) -> Tensor:
        if target.shape == output.shape:  # class probabilities: PyTorch's mean divides by the batch size
            return output.new_ones(len(output))
        counted = target != ignored
        by_label = output.new_ones(()) if by_class is None else by_class[target.where(counted, 0)]
        return torch.where(counted, by_label, 0)

    return weights


def _inherits_forward(loss: nn.Module) -> bool:
    """Return whether a loss runs PyTorch's own forward pass."""
    return type(loss).forward in (nn.CrossEntropyLoss.forward, nn.NLLLoss.forward) and "forward" not in vars(loss)


def _squares(factor: float, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    difference = output - _dense(target, output)
    return (difference**2).flatten(1).sum(1) * factor, 2 * factor * difference


def _cross_entropy(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if output.shape[1] == 1:
        raise ActrelaxError(
            'cross-entropy of one output is always 0: use loss="sum-of-squares", or one output per class.'
        )
    target, logarithms = _dense(target, output), F.log_softmax(output, 1)
    return -(logarithms * target).flatten(1).sum(1), logarithms.exp() * target.sum(1, keepdim=True) - target


def _built_in(both: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Loss:
    return Loss(partial(_part, both, 0), partial(_part, both, 1), both)


def _part(both: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], part: int, output: Tensor, target: Tensor) -> Tensor:
    return both(output, target)[part]


LOSSES: dict[str, Loss] = {
    "cross-entropy": _built_in(_cross_entropy),
    "sum-of-squares": _built_in(partial(_squares, 1.0)),
    "half-sum-of-squares": _built_in(partial(_squares, 0.5)),
}
"""Softmax cross-entropy on logits; the papers' sum of (x - t)^2 over the output; half that sum.

Targets are integer class labels (batch,), which become one-hot vectors, or (batch, *output.shape). A single output also
accepts its target values as (batch,).
"""


def loss_named(given: str | Loss | LossFunction) -> Loss:
    """Return the loss of this name; a `Loss` passes through, a function goes to `from_function`."""
    return from_function(given) if callable(given) else look_up("loss", given, LOSSES)


def smoothed(loss: Loss, share: float) -> Loss:
    """Return a loss with smoothed labels: `share` of each target is spread evenly over all outputs.

    Smoothed "cross-entropy" equals `torch.nn.CrossEntropyLoss(label_smoothing=share)`.
    """
    return _built_in(partial(_smoothed, loss, share))


def _smoothed(loss: Loss, share: float, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    dense = _dense(target, output)
    return loss.both(output, (1 - share) * dense + share / output.shape[1])


def dense_targets(target: Tensor, shape: Sequence[int], like: Tensor) -> Tensor:
    """Return targets for outputs of `shape` (without the batch) in the dtype of `like`; labels become one-hot."""
    return _dense(target, like.new_empty(()).expand(len(like), *shape))


def _dense(target: Tensor, output: Tensor) -> Tensor:
    """Return targets in the output's shape and dtype: labels as one-hot vectors, or a single output's values."""
    if not isinstance(target, Tensor):
        raise ActrelaxError(f"targets must be a torch.Tensor, got {type(target).__name__}: use torch.as_tensor.")
    if target.shape == output.shape:
        return target.to(output.dtype)
    if output.shape[1:] == (1,) and target.shape == output.shape[:1]:
        return target.to(output.dtype).unsqueeze(1)
    is_labels = output.dim() == 2 and target.shape == output.shape[:1] and not target.dtype.is_floating_point
    is_labels &= target.dtype != torch.bool or output.shape[1:] == (2,)
    if not is_labels:
        raise ActrelaxError(
            f"targets must be integer labels ({len(output)},) or of the output's shape {tuple(output.shape)}, "
            f"got {target.dtype} {tuple(target.shape)}."
        )
    is_class = target.unsqueeze(1) == torch.arange(output.shape[1], device=output.device)
    _check_labels(target, is_class)
    return is_class.to(output.dtype)


def _check_labels(labels: Tensor, is_class: Tensor) -> None:
    """Refuse labels (batch,) that name no class; `is_class` is their one-hot form, (batch, classes).

    On an NVIDIA GPU the check is asynchronous: an invalid label stops the device, with the rule in its message.
    """
    allowed = f"labels must lie between 0 and {is_class.shape[1] - 1}"
    if labels.device.type == "cuda":
        torch._assert_async(is_class.any(1).all(), allowed)
    elif labels.device.type != "meta" and len(labels):
        least, largest = (int(label) for label in labels.aminmax())
        if least < 0 or largest >= is_class.shape[1]:
            raise ActrelaxError(f"{allowed}, got {least if least < 0 else largest}.")
