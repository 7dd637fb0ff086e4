"""Conversion of updates, summed over the batch, to gradients: factors, reduction, clip and decay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from actrelax.models._names import known
from actrelax.models.assumptions import Assumptions
from actrelax.models.engines.request import Evaluation
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Network, Projection
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import Trajectory


@dataclass(frozen=True)
class Updates:
    """Options for the conversion of updates to gradients; applied in this order.

    Parameters
    ----------
    factors : mapping, optional
        Kind of projection ("dense", "conv") -> factor; 1 by default. The papers' CNN doubles "conv".
    clip : float, optional
        Largest magnitude of an element, in each projection's update.
    decay : float, optional
        Kolen-Pollack's decay: `decay` W and `decay` psi are added to the two gradients, so that under plain SGD each
        step multiplies W - psi by 1 - lr decay. Only for "kolen-pollack" feedback, which needs it.
    across : callable, optional
        Tensors -> their sums over all processes that share the batch, in the same order. It is called once per batch,
        after the factors and before all other options; a process may have no samples. None for a single process.

    Raises
    ------
    ActrelaxError
        For values out of range.
    """

    factors: Mapping[str, float] = field(default_factory=dict)
    clip: float | None = None
    decay: float | None = None
    across: Callable[[Sequence[Tensor]], Sequence[Tensor]] | None = None

    def __post_init__(self) -> None:
        for kind in self.factors:
            known("kind of projection", kind, ["dense", "conv"], where="factors")
        if self.clip is not None and not self.clip > 0:
            raise ActrelaxError(f"the updates' clip must be positive, got {self.clip}.")
        if self.decay is not None and not self.decay >= 0:
            raise ActrelaxError(f"decay must be 0 or positive, got {self.decay}.")

    def clipped_(self, update: Tensor) -> Tensor:
        """Clip one parameter's update in place, and return it."""
        return update if self.clip is None else update.clamp_(-self.clip, self.clip)


@dataclass(frozen=True)
class BackwardOptions:
    """Options of learning.

    Parameters
    ----------
    updates : Updates, optional
        Factors, clip and decay of the updates.
    reduction : {"mean", "sum"}, default "mean"
        Reduction of updates and loss over the batch; the papers sum.
    evaluation : {"auto", "stepped", "closed-form"}, default "auto"
        As for `solve`: by default the closed form if it applies, at about the cost of backprop for any number of steps.
    keep : bool, default False
        Keep the relaxed activities in `Backward.trajectory`; otherwise each population is freed after its last use.
    check_finite : bool, default True
        Raise a `DivergenceError` for nan and inf, before any gradient changes. On a GPU the check waits for the device:
        turn it off in loops with less frequent checks.
    generator : torch.Generator, optional
        Generator of the noise; by default torch's global one.

    Raises
    ------
    ActrelaxError
        For an unknown name.
    """

    updates: Updates = Updates()
    reduction: Literal["mean", "sum"] = "mean"
    evaluation: Evaluation = "auto"
    keep: bool = False
    check_finite: bool = True
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        known("reduction", self.reduction, ["mean", "sum"])
        known("evaluation", self.evaluation, get_args(Evaluation))
        if not isinstance(self.updates, Updates):
            raise ActrelaxError(f"updates must be an Updates, got {self.updates!r}: pass Updates(clip=...).")

    def reduced(self, total: Tensor, batch: int | Tensor) -> Tensor:
        """Return a total, divided by the batch size for the mean."""
        return total / batch if self.reduction == "mean" else total

    def scale(self, kind: str, batch: int) -> float:
        """Return the factor of one kind's updates, divided by the batch size for the mean in a single process.

        If processes share the batch, its size is known only after their sums.
        """
        factor = self.updates.factors.get(kind, 1.0)
        return factor / batch if self.reduction == "mean" and self.updates.across is None else factor


@dataclass(frozen=True)
class Backward:
    """The result of a backward call.

    loss        reduced over the batch like the updates, a zero-dimensional tensor
    output      (batch, *output.shape): the output activities of the feedforward pass
    finite      whether the relaxation and its updates are finite, a boolean tensor on the device
    samples     the batch size; a zero-dimensional tensor if processes share the batch
    trajectory  the relaxation, if kept

    If processes share the batch, output and trajectory are for this process, the others for the whole batch.
    """

    loss: Tensor
    output: Tensor
    finite: Tensor
    samples: int | Tensor
    trajectory: Trajectory | None = None


Rule = Callable[[Network, Tensor, Tensor], Backward]
"""(network, x, y) -> Backward; gradients are added to `.grad`."""


def to_gradients(
    network: Network,
    assumptions: Assumptions,
    projection: Projection,
    scaled: Mapping[str, Tensor],
    updates: Updates,
) -> Iterator[tuple[str, Tensor]]:
    """Yield (slot, gradient) of one projection: of its "weight", "bias" and learned "feedback".

    `scaled` is the result of `Projection.plasticity`; it is changed in place.
    """
    feedback = network.knobs(projection, assumptions).feedback
    gradient = {name: updates.clipped_(update) for name, update in scaled.items()}
    if gradient and feedback in ("learned", "kolen-pollack") and network.carries_feedback(projection):
        gradient["feedback"] = gradient["weight"].clone()
    for name, update in gradient.items():
        parameter = getattr(projection, name)
        if not parameter.requires_grad:
            continue
        decays = name != "bias" and network.decays(projection, assumptions)
        yield name, update + updates.decay * parameter if decays and updates.decay else update


def add_to_grad(parameter: nn.Parameter, update: Tensor) -> None:
    """Accumulate like autograd, in the parameter's precision; the first update itself becomes `.grad`."""
    update = update.to(parameter.dtype)
    if parameter.grad is None:
        parameter.grad = update
    else:
        parameter.grad += update


def check_decay(problem: RelaxationProblem, updates: Updates) -> None:
    """Refuse Kolen-Pollack feedback without a decay, and a decay without Kolen-Pollack feedback."""
    asked = problem.assumptions.needs_decay
    if asked and updates.decay is None:
        raise ActrelaxError(
            '"kolen-pollack" feedback needs a decay rate: pass updates=Updates(decay=...) in the options.'
        )
    if updates.decay is not None and not asked:
        raise ActrelaxError('decay needs "kolen-pollack" feedback: use the optimiser\'s weight decay otherwise.')


def reduce(
    output: Tensor,
    losses: Tensor,
    options: BackwardOptions,
    finite: Tensor,
    trajectory: Trajectory | None = None,
    *,
    scaled: Sequence[Tensor] = (),
) -> tuple[Sequence[Tensor], Backward]:
    """Sum over the processes that share the batch, and reduce.

    Parameters
    ----------
    losses : torch.Tensor
        (batch,)
    scaled : sequence of torch.Tensor
        Updates summed over the samples, times `BackwardOptions.scale`; in the same order in every process.

    Returns
    -------
    scaled : sequence of torch.Tensor
        The updates of the whole batch, reduced.
    backward : Backward
    """
    total, samples, across = losses.sum(), len(output), options.updates.across
    if across is None:
        return scaled, Backward(options.reduced(total, samples), output, finite, samples, trajectory)
    # float32 at least: it counts samples, and must have one dtype in all processes
    like = output.new_empty((), dtype=torch.promote_types(output.dtype, torch.float32))
    here = torch.stack([total.to(like), (~finite).to(like), torch.full_like(like, samples)])
    *sums, (loss, lost, count) = across([*scaled, here])
    backward = Backward(options.reduced(loss, count), output, lost == 0, count, trajectory)
    return [options.reduced(each, count) for each in sums], backward


def no_samples(network: Network, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return output, losses and `finite` for a process without samples."""
    output = x.new_zeros((0, *network.populations[network.output].shape))
    return output, x.new_zeros(0), torch.ones((), dtype=torch.bool, device=x.device)


def is_finite(total: Tensor) -> Tensor:
    """Return whether a number is finite, on its device, in fewer kernels than torch.isfinite."""
    return total * 0 == 0  # 0 * nan and 0 * inf are nan
