"""From a relaxed state to weight updates: the local rule, and what becomes of it before an optimiser sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from actrelax.models.errors import ActrelaxError
from actrelax.models.losses import Loss
from actrelax.models.problem import RelaxationProblem, State
from actrelax.models.projections import Projection
from actrelax.models.registry import known
from actrelax.models.trajectory import Trajectory


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

    Raises
    ------
    ActrelaxError
        For values out of range.
    """

    reduction: Literal["mean", "sum"] = "mean"
    factors: Mapping[str, float] = field(default_factory=dict)
    clip: float | None = None
    decay: float | None = None

    def __post_init__(self) -> None:
        known("reduction", self.reduction, ["mean", "sum"])
        for kind in self.factors:
            known("kind of projection in factors", kind, ["dense", "conv"])
        if self.clip is not None and not self.clip > 0:
            raise ActrelaxError(f"the updates' clip must be positive, got {self.clip}.")
        if self.decay is not None and not self.decay >= 0:
            raise ActrelaxError(f"decay must be 0 or positive, got {self.decay}.")

    def reduced(self, total: Tensor, batch: int) -> Tensor:
        """The one switch between sum and mean."""
        return total / batch if self.reduction == "mean" else total

    def applied(self, total: Tensor, batch: int, kind: str) -> Tensor:
        """Reduction, factor and clip of one parameter's update."""
        update = self.reduced(total, batch) * self.factors.get(kind, 1.0)
        return update if self.clip is None else update.clamp(-self.clip, self.clip)


@dataclass(frozen=True)
class Backward:
    """What a backward call returns.

    loss        reduced over the batch as the updates are, a tensor without dimensions
    output      (batch, *output.shape): the output activities of the feedforward pass
    trajectory  the relaxation; None for backprop
    """

    loss: Tensor
    output: Tensor
    trajectory: Trajectory | None


def local_updates(
    problem: RelaxationProblem, projection: Projection, state: State, updates: Updates
) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Yield (parameter, gradient) of one projection at a state, by its plasticity rule.

    W, its bias, and where feedback is learned psi, by the same Hebbian product.
    """
    network = problem.network
    feedback = network.knobs(projection, problem.assumptions).feedback
    if projection.map is None:
        return
    raw = projection.plasticity(problem.presynaptic(projection, state), problem.postsynaptic(projection, state))
    kind, batch = network.kind(projection), len(problem.clamped)
    gradient = {name: updates.applied(total, batch, kind) for name, total in raw.items()}
    if feedback in ("learned", "kolen-pollack") and network.carries_feedback(projection):
        gradient["feedback"] = gradient["weight"]
    for name, update in gradient.items():
        parameter = getattr(projection, name)
        if not parameter.requires_grad:
            continue
        decays = feedback == "kolen-pollack" and name in ("weight", "feedback") and "feedback" in gradient
        yield parameter, update + updates.decay * parameter if decays and updates.decay else update


def add_to_grad(parameter: nn.Parameter, update: Tensor) -> None:
    """Accumulate as autograd does, in the parameter's own precision."""
    update = update.to(parameter.dtype)
    if parameter.grad is None:
        parameter.grad = update.detach().clone()
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
    problem: RelaxationProblem, loss: Loss, y: Tensor, updates: Updates, trajectory: Trajectory | None
) -> Backward:
    """Collect what a backward call returns."""
    output = problem.feedforward.activities[problem.network.output]
    return Backward(updates.reduced(loss.value(output, y).sum(), len(output)), output, trajectory)
