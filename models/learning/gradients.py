"""Conversion of updates, summed over the batch, to gradients: factors, reduction, clip and decay."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from actrelax.models._names import is_number, known
from actrelax.models._values import GeneratorLike, as_generator, as_number
from actrelax.models.assumptions import Assumptions
from actrelax.models.engines import Agree, Settle, Steps
from actrelax.models.engines.request import Evaluation
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning.report import Phase, SettlingReport
from actrelax.models.network import Network, Projection
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import Trajectory

Leaf = TypeVar("Leaf", bound=Tensor)

SETTLE = Steps.until(1e-2, eta=0.5, most=100)
"""Default steps of both phases in learning on a network with cycles."""


@dataclass(frozen=True)
class Updates:
    """Factors, clip and decay that convert updates to gradients, applied in this order.

    Parameters
    ----------
    factors : mapping, optional
        Kind of projection ("dense", "conv") -> factor; 1 by default. The papers' CNN doubles "conv".
    clip : float, optional
        Bound on the magnitude of each element of an update.
    decay : float, optional
        Kolen-Pollack's decay: `decay` W and `decay` psi are added to the two gradients, so that under plain SGD each
        step multiplies W - psi by 1 - lr decay. Only for "kolen-pollack" feedback, which needs it.

    Raises
    ------
    ActrelaxError
        For values out of range.
    """

    factors: Mapping[str, float] = field(default_factory=dict)
    clip: float | None = None
    decay: float | None = None

    def __post_init__(self) -> None:
        for kind in self.factors:
            known("kind of projection", kind, ["dense", "conv"], where="factors")
        factors = {kind: as_number(factor) for kind, factor in self.factors.items()}
        object.__setattr__(self, "factors", factors)
        for name in ("clip", "decay"):
            object.__setattr__(self, name, as_number(getattr(self, name)))
        for kind, factor in factors.items():
            if not (is_number(factor) and math.isfinite(factor)):
                raise ActrelaxError(f"the factor of {kind!r} must be a number, got {factor!r}.")
        if self.clip is not None and not (is_number(self.clip) and self.clip > 0):
            raise ActrelaxError(f"the updates' clip must be positive, got {self.clip!r}.")
        if self.decay is not None and not (is_number(self.decay) and 0 <= self.decay < math.inf):
            raise ActrelaxError(f"decay must be 0 or positive, got {self.decay!r}.")

    def clipped_(self, update: Tensor) -> Tensor:
        """Clip one parameter's update in place, and return it."""
        return update if self.clip is None else update.clamp_(-self.clip, self.clip)


@dataclass(frozen=True)
class BackwardOptions:
    """Options of `relax_backward`, `relax_continuously` and `ActivationRelaxation`.

    Parameters
    ----------
    updates : Updates, optional
        Factors, clip and decay of the updates.
    reduction : {"mean", "sum"}, default "mean"
        Reduction of updates and loss over the batch; the papers use the sum. `ActivationRelaxation` takes it as an
        argument instead.
    evaluation : {"auto", "stepped", "closed-form"}, default "auto"
        As for `solve`: by default the closed form if it applies, at about the cost of backprop for any number of steps.
    keep : bool, default False
        Keep the relaxed activities in `Backward.trajectory`; otherwise each population is freed after its last use.
    check_finite : bool, default True
        Raise a `DivergenceError` for nan and inf, before any gradient changes. On a GPU the check waits for the device;
        in a loop, turn it off and check `Backward.finite` less often.
    generator : torch.Generator, numpy.random.Generator or int, optional
        Generator for the noise, or a seed; by default torch's global generator. `ActivationRelaxation` also draws new
        feedback weights from it.
    settle : Settle, default Settle(Steps.until(1e-2, eta=0.5, most=100))
        How the rates of a network with cycles settle, before the relaxation.
    unsettled : {"keep", "drop"}, default "keep"
        Whether samples of a network with cycles learn although a phase has not settled. `Backward.report` counts them.
        A mean of updates and losses divides by the number of all samples, dropped ones included.
    unsettled_above : float, optional
        Residual above which a sample counts as unsettled; by default ten times the tolerance of the phase's steps, or
        0.1 if they have none. For a phase of t time constants from zero the bound is at most 1 / t, unless the
        tolerance is larger, because rates or activities that run away slowly have a small residual, too.
    sample_clip : float, optional
        Bound on the norm of each sample's activities, relative to its loss gradient, on a network with cycles: the
        updates of a sample beyond it are scaled down to it.
    agree : callable, optional
        For processes that share a batch and relax until a tolerance: a function that returns the elementwise maximum
        of a tensor over the processes. They then stop after the same step, like one process with the whole batch, and
        each process needs at least one sample. By default each process stops when its share has settled. An
        `ActivationRelaxation` calls the function only with gradients enabled.

    Raises
    ------
    ActrelaxError
        For an unknown name, or a value out of range.
    """

    updates: Updates = Updates()
    reduction: Literal["mean", "sum"] = "mean"
    evaluation: Evaluation = "auto"
    keep: bool = False
    check_finite: bool = True
    generator: GeneratorLike | None = None
    settle: Settle = field(default_factory=lambda: Settle(SETTLE))
    unsettled: Literal["keep", "drop"] = "keep"
    unsettled_above: float | None = None
    sample_clip: float | None = None
    agree: Agree | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "generator", as_generator(self.generator))
        known("reduction", self.reduction, ["mean", "sum"])
        known("evaluation", self.evaluation, get_args(Evaluation))
        if not isinstance(self.updates, Updates):
            raise ActrelaxError(f"updates must be an Updates, got {self.updates!r}: pass Updates(clip=...).")
        if not isinstance(self.settle, Settle):
            raise ActrelaxError(
                f"settle must be a Settle, got {self.settle!r}: pass Settle(Steps.until(1e-6, eta=0.5))."
            )
        known("unsettled", self.unsettled, ["keep", "drop"])
        if self.agree is not None and not callable(self.agree):
            raise ActrelaxError(
                f"agree must be a function of a tensor, got {self.agree!r}: pass one that returns the elementwise "
                "maximum over the processes."
            )
        for name in ("unsettled_above", "sample_clip"):
            value = as_number(getattr(self, name))
            object.__setattr__(self, name, value)
            if value is not None and not (is_number(value) and 0 < value < math.inf):
                raise ActrelaxError(f"{name} must be a positive number, got {value!r}.")

    def reduced(self, total: Tensor, batch: int, correction: Tensor | None = None) -> Tensor:
        """Return a total over the batch, reduced and multiplied by `Loss.correction`."""
        mean = total / batch if self.reduction == "mean" else total
        return mean if correction is None else mean * correction

    def scale(self, kind: str, batch: int) -> float:
        """Return the factor for updates of one kind of projection, divided by the batch size for a mean."""
        factor = self.updates.factors.get(kind, 1.0)
        return factor / batch if self.reduction == "mean" else factor


def with_reduction(options: BackwardOptions, reduction: Literal["mean", "sum"]) -> BackwardOptions:
    """Return the options with an argument `reduction`; refuse options that have another."""
    known("reduction", reduction, ["mean", "sum"])
    if options.reduction not in ("mean", reduction):
        raise ActrelaxError(
            f"reduction is {reduction!r}, but {options.reduction!r} in options: leave reduction out of options."
        )
    return replace(options, reduction=reduction)


def refuse_sample_clip(options: BackwardOptions, function: str) -> None:
    """Refuse a clip of relaxed activities where none are."""
    if options.sample_clip is not None:
        raise ActrelaxError(f"sample_clip needs a relaxation, but {function} has none: leave sample_clip out.")


@dataclass(frozen=True)
class Backward:
    """The result of a backward call.

    loss        reduced over the batch like the updates, without samples that are dropped; a zero-dimensional tensor
    output      (batch, *output.shape): the output activities of the feedforward pass
    finite      whether the relaxation and its updates are finite, a boolean tensor on the device
    samples     the batch size
    trajectory  the relaxation, if kept
    report      whether each sample has settled in both phases, on a network with cycles
    """

    loss: Tensor
    output: Tensor
    finite: Tensor
    samples: int
    trajectory: Trajectory | None = None
    report: SettlingReport | None = None

    @property
    def residual(self) -> Mapping[Phase, Tensor]:
        """Phase -> residual of each sample, (batch,); empty without cycles (`SettlingReport`)."""
        return {} if self.report is None else self.report.residual

    @property
    def settled(self) -> Mapping[Phase, Tensor]:
        """Phase -> whether each sample has settled, (batch,); empty without cycles."""
        return {} if self.report is None else self.report.settled


Rule = Callable[[Network, Tensor, Tensor], Backward]
"""(network, x, y) -> Backward; gradients are added to `.grad`."""


def corrected(scaled: Mapping[str, Tensor], correction: Tensor | None) -> Mapping[str, Tensor]:
    """Multiply updates by `Loss.correction`, which turns a plain mean over the batch into the loss's weighted mean."""
    return scaled if correction is None else {slot: update * correction for slot, update in scaled.items()}


def to_gradients(
    network: Network,
    assumptions: Assumptions,
    projection: Projection,
    scaled: Mapping[str, Tensor],
    updates: Updates,
) -> Iterator[tuple[str, Tensor]]:
    """Yield (slot, gradient) for a projection's "weight", "bias" and learned "feedback".

    `scaled` is the result of `Projection.plasticity`; it is changed in place.
    """
    clipped = {slot: updates.clipped_(update) for slot, update in scaled.items()}
    for slot, parameter, decays in learning_slots(network, assumptions, projection):
        if clipped:
            update = clipped["weight"].clone() if slot == "feedback" else clipped[slot]
            yield slot, update + updates.decay * parameter if decays and updates.decay else update


def learning_slots(
    network: Network, assumptions: Assumptions, projection: Projection
) -> Iterator[tuple[str, nn.Parameter, bool]]:
    """Yield (slot, parameter, whether it decays) for each parameter of the projection that learns."""
    learns = network.knobs(projection, assumptions).feedback in ("learned", "kolen-pollack")
    slots = ("weight", "bias", "feedback") if learns and network.carries_feedback(projection) else ("weight", "bias")
    for slot in slots:
        parameter = getattr(projection, slot)
        if parameter is not None and parameter.requires_grad:
            yield slot, parameter, slot != "bias" and network.decays(projection, assumptions)


def separate(gradients: Mapping[Leaf, Tensor]) -> dict[Leaf, Tensor]:
    """Return gradients that share no memory: autograd may give several leaves one tensor, or an expanded one.

    In-place operations, such as a clip or an accumulation, would change all of these at once.
    """
    seen: set[int] = set()
    found = {}
    for leaf, gradient in gradients.items():
        found[leaf] = gradient
        if gradient.layout != torch.strided:  # of embeddings with sparse=True
            continue
        storage = gradient.untyped_storage()._cdata
        expanded = any(stride == 0 and size > 1 for stride, size in zip(gradient.stride(), gradient.shape, strict=True))
        if expanded or storage in seen:
            found[leaf] = gradient.clone(memory_format=torch.contiguous_format)
        seen.add(storage)
    return found


def add_to_grad(parameter: nn.Parameter, update: Tensor) -> None:
    """Add an update to a parameter's `.grad` as autograd does: in the parameter's dtype, calling its hooks.

    The first update becomes `.grad` without a copy. Sum several updates of a Parameter first: hooks expect the whole
    gradient.
    """
    update = update.to(parameter.dtype)
    with torch.no_grad():
        for hook in list((parameter._backward_hooks or {}).values()):
            changed = hook(update)
            update = update if changed is None else changed
        if parameter.grad is None:
            parameter.grad = update
        else:
            parameter.grad += update
        for hook in list((parameter._post_accumulate_grad_hooks or {}).values()):
            hook(parameter)


def has_hooks(parameter: Tensor) -> bool:
    """Return whether the parameter has gradient hooks."""
    return bool(parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None))


def refuse_hooks(network: Network, reason: str) -> None:
    """Refuse a network with hooks on its parameters, giving the `reason`."""
    for name, parameter in network.named_parameters():
        if has_hooks(parameter):
            raise ActrelaxError(f"parameter {name!r} has a hook, but {reason}: remove it.")


def check_decay(problem: RelaxationProblem, updates: Updates) -> None:
    """Refuse Kolen-Pollack feedback without a decay, and a decay without Kolen-Pollack feedback."""
    asked = problem.assumptions.needs_decay
    if asked and updates.decay is None:
        raise ActrelaxError(
            '"kolen-pollack" feedback needs a decay rate: pass updates=Updates(decay=...) in the options.'
        )
    if updates.decay is not None and not asked:
        raise ActrelaxError('decay needs "kolen-pollack" feedback: use the optimiser\'s weight decay otherwise.')


def is_finite(total: Tensor) -> Tensor:
    """Return whether a number is finite, on its device, in fewer kernels than torch.isfinite."""
    return total * 0 == 0  # 0 * nan and 0 * inf are nan
