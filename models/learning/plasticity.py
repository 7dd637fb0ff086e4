"""From a relaxed state to weight updates: the local rule, and what becomes of it before an optimiser sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from actrelax.models._names import known
from actrelax.models.assumptions import Assumptions, Gain
from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Network, Projection
from actrelax.models.problem import RelaxationProblem, State
from actrelax.models.results import Trajectory


@dataclass(frozen=True)
class Updates:
    """What happens to the local updates, summed over the batch, before an optimiser sees them; in this order.

    Parameters
    ----------
    reduction : {"mean", "sum"}, default "mean"
        Over the batch; the papers' protocols sum.
    factors : mapping, optional
        Kind of projection ("dense", "conv") -> factor; 1 unless given. The papers' CNN doubles "conv".
    clip : float, optional
        Largest magnitude of an element, in each projection's update.
    decay : float, optional
        Kolen-Pollack's decay: `decay` W and `decay` psi are added to the two gradients, so that under plain SGD
        W - psi shrinks by 1 - lr decay a step. Needed by, and only used with, "kolen-pollack" feedback.
    across : callable, optional
        Tensors -> their sums over all processes that share the batch, in the same order, called once a batch, before
        anything above but the factors; then a process may have no samples at all. None for one process.

    Raises
    ------
    ActrelaxError
        For values out of range.
    """

    reduction: Literal["mean", "sum"] = "mean"
    factors: Mapping[str, float] = field(default_factory=dict)
    clip: float | None = None
    decay: float | None = None
    across: Callable[[Sequence[Tensor]], Sequence[Tensor]] | None = None

    def __post_init__(self) -> None:
        known("reduction", self.reduction, ["mean", "sum"])
        for kind in self.factors:
            known("kind of projection", kind, ["dense", "conv"], where="factors")
        if self.clip is not None and not self.clip > 0:
            raise ActrelaxError(f"the updates' clip must be positive, got {self.clip}.")
        if self.decay is not None and not self.decay >= 0:
            raise ActrelaxError(f"decay must be 0 or positive, got {self.decay}.")

    def reduced(self, total: Tensor, batch: int | Tensor) -> Tensor:
        """The one switch between sum and mean."""
        return total / batch if self.reduction == "mean" else total

    def scale(self, kind: str, batch: int) -> float:
        """Reduction and factor of updates that are summed over a batch of so many samples.

        Where processes share the batch, nobody knows its size before their sums are taken: the factor alone.
        """
        factor = self.factors.get(kind, 1.0)
        return factor / batch if self.reduction == "mean" and self.across is None else factor

    def clipped_(self, update: Tensor) -> Tensor:
        """One parameter's update, clipped in place."""
        return update if self.clip is None else update.clamp_(-self.clip, self.clip)


@dataclass(frozen=True)
class Backward:
    """What a backward call returns.

    loss        reduced over the batch as the updates are, a tensor without dimensions
    output      (batch, *output.shape): the output activities of the feedforward pass
    finite      whether all relaxed activities are, a tensor without dimensions: nobody has looked at it yet
    samples     how many the batch has; where processes share it, a tensor without dimensions
    trajectory  the relaxation, where it was kept

    Loss, finite and samples are of the whole batch, output and trajectory of this process's share.
    """

    loss: Tensor
    output: Tensor
    finite: Tensor
    samples: int | Tensor
    trajectory: Trajectory | None = None


Rule = Callable[[Network, Tensor, Tensor], Backward]
"""(network, x, y) -> what came of it; gradients are added to `.grad`."""


def local_updates(
    problem: RelaxationProblem, projection: Projection, state: State, updates: Updates
) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Yield (parameter, gradient) of one projection at a state, by its plasticity rule.

    W, its bias, and where feedback is learned psi, by the same Hebbian product.
    """
    scaled = product(problem, projection, state, updates)
    yield from finished(problem.network, problem.assumptions, projection, scaled, updates)


def product(
    problem: RelaxationProblem,
    projection: Projection,
    state: State,
    updates: Updates,
    amplified: Mapping[Gain, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return the Hebbian product of one projection at a state, times `Updates.scale` (`Projection.plasticity`).

    `amplified` has gain times activity of its target already, for some gains.
    """
    pre = problem.presynaptic(projection, state)
    post = problem.postsynaptic(projection, state, amplified)
    return projection.plasticity(pre, post, updates.scale(problem.network.kind(projection), len(problem.clamped)))


def finished(
    network: Network,
    assumptions: Assumptions,
    projection: Projection,
    scaled: Mapping[str, Tensor],
    updates: Updates,
) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Yield (parameter, gradient) of what `Projection.plasticity` returned, summed and scaled; it is used up."""
    feedback = network.knobs(projection, assumptions).feedback
    gradient = {name: updates.clipped_(update) for name, update in scaled.items()}
    if gradient and feedback in ("learned", "kolen-pollack") and network.carries_feedback(projection):
        gradient["feedback"] = gradient["weight"].clone()
    for name, update in gradient.items():
        parameter = getattr(projection, name)
        if not parameter.requires_grad:
            continue
        decays = name != "bias" and network.decays(projection, assumptions)
        yield parameter, update + updates.decay * parameter if decays and updates.decay else update


def add_to_grad(parameter: nn.Parameter, update: Tensor) -> None:
    """Accumulate as autograd does, in the parameter's own precision; a first update becomes the gradient itself."""
    update = update.to(parameter.dtype)
    if parameter.grad is None:
        parameter.grad = update
    else:
        parameter.grad += update


def check_decay(problem: RelaxationProblem, updates: Updates) -> None:
    """Refuse Kolen-Pollack feedback without its decay, and a decay that nobody reads."""
    asked = problem.assumptions.needs_decay
    if asked and updates.decay is None:
        raise ActrelaxError('"kolen-pollack" feedback needs a rate of decay: pass updates=Updates(decay=...).')
    if updates.decay is not None and not asked:
        raise ActrelaxError('decay belongs to "kolen-pollack" feedback: use the optimiser\'s weight decay otherwise.')


def outcome(
    output: Tensor,
    losses: Tensor,
    updates: Updates,
    finite: Tensor,
    trajectory: Trajectory | None = None,
    *,
    scaled: Sequence[Tensor] = (),
) -> tuple[Sequence[Tensor], Backward]:
    """Collect what a backward call returns, over all processes where several share the batch.

    Parameters
    ----------
    losses : torch.Tensor
        Of each sample.
    scaled : sequence of torch.Tensor
        Updates summed over the samples, times `Updates.scale`; the same in every process, in the same order.

    Returns
    -------
    scaled : sequence of torch.Tensor
        The updates of the whole batch, reduced.
    backward : Backward
    """
    total, samples = losses.sum(), len(output)
    if updates.across is None:
        return scaled, Backward(updates.reduced(total, samples), output, finite, samples, trajectory)
    # what counts samples must hold large whole numbers, and be of one type whatever a process's share is
    like = output.new_empty((), dtype=torch.promote_types(output.dtype, torch.float32))
    here = torch.stack([total.to(like), (~finite).to(like), torch.full_like(like, samples)])
    *sums, (loss, lost, count) = updates.across([*scaled, here])
    backward = Backward(updates.reduced(loss, count), output, lost == 0, count, trajectory)
    return [updates.reduced(each, count) for each in sums], backward


def no_samples(network: Network, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return output, losses and `finite` of a process whose share of the batch is empty."""
    output = x.new_zeros((0, *network.populations[network.output].shape))
    return output, x.new_zeros(0), torch.ones((), dtype=torch.bool, device=x.device)


def is_finite(total: Tensor) -> Tensor:
    """Whether a number on a device is finite: the same as torch.isfinite in fewer kernels, for a number."""
    return total * 0 == 0
