"""Learning by activation relaxation: relax, then a local Hebbian rule (THEORY.md sections 1 and 2)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from actrelax.models.assumptions import Assumptions
from actrelax.models.engines import solve
from actrelax.models.errors import ActrelaxError, known
from actrelax.models.integrators import Integrator, integrator_named
from actrelax.models.losses import Loss, LossFunction, loss_named
from actrelax.models.network import Network
from actrelax.models.problem import RelaxationProblem, State
from actrelax.models.projections import Projection
from actrelax.models.schedule import schedule
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
        Largest magnitude of an element.
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


@torch.no_grad()
def relax_backward(
    network: Network,
    x: Tensor,
    y: Tensor,
    *,
    loss: str | Loss | LossFunction = "cross-entropy",
    assumptions: str | Assumptions = "ar",
    integrator: str | Integrator = "sequential",
    dt: float | None = None,
    eta: float | None = None,
    steps: int | None = None,
    duration: float | None = None,
    stop_change: float | None = None,
    updates: Updates | None = None,
    **fields: Any,
) -> Backward:
    """Relax, and add each projection's local update to its parameters' `.grad`: AR's ``loss.backward()``.

    The update of W is the product of the presynaptic activity and the postsynaptic gain times activity; at
    equilibrium it is the exact gradient. Learned feedback weights receive the same update. No autograd graph is
    built, and nothing but `.grad` changes.

    Parameters
    ----------
    network : Network
    x : torch.Tensor
        Stimuli, (batch, *input shape).
    y : torch.Tensor
        Targets: integer labels (batch,) or (batch, *output shape).
    loss : str, Loss or callable, default "cross-entropy"
        A name of `losses.LOSSES`, a `Loss`, or a function (output, target) -> one loss per sample.
    assumptions : str or Assumptions, default "ar"
        A name of `assumptions.PRESETS`, or any combination of knobs.
    integrator, dt, eta, steps, duration, stop_change
        As for `solve`; the papers' 100 sequential steps of eta = 0.1 unless given. ``integrator="equilibrium"``
        gives backprop's gradient exactly, in one sweep, where the assumptions are the standard ones.
    updates : Updates, optional
        Reduction over the batch (mean unless given), factors, clip, decay.
    **fields
        Other fields of `RelaxationProblem`: tau, start, clip.

    Returns
    -------
    Backward

    Raises
    ------
    ActrelaxError
        For input that can't be used.
    DivergenceError
        If the relaxation becomes non-finite; no `.grad` has changed then.

    Examples
    --------
    >>> from actrelax.models.architectures import build
    >>> network = build("digits-mlp", generator=torch.Generator().manual_seed(0))
    >>> optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    >>> x, y = torch.rand(8, 64), torch.arange(8)
    >>> before = relax_backward(network, x, y, steps=50).loss
    >>> optimiser.step()
    >>> bool(relax_backward(network, x, y, steps=50).loss < before)
    True
    """
    updates = updates or Updates()
    chosen = loss_named(loss)
    problem = RelaxationProblem.from_batch(network, x, y, loss=chosen, assumptions=assumptions, **fields)
    if problem.is_continuous:
        raise ActrelaxError("continuous plasticity changes weights during the relaxation: use relax_continuously.")
    _check_decay(problem, updates)
    trajectory = solve(problem, integrator, dt=dt, eta=eta, steps=steps, duration=duration, stop_change=stop_change)
    state = {name: trajectory.final[name] for name in network.hidden}
    for projection in network.projections.values():
        for parameter, update in local_updates(problem, projection, state, updates):
            add_to_grad(parameter, update)
    return _backward(problem, chosen, y, updates, trajectory)


@torch.no_grad()
def relax_continuously(
    network: Network,
    x: Tensor,
    y: Tensor,
    *,
    rate: float,
    loss: str | Loss | LossFunction = "cross-entropy",
    assumptions: str | Assumptions = "continuous",
    integrator: str | Integrator = "sequential",
    dt: float | None = None,
    eta: float | None = None,
    steps: int | None = None,
    duration: float | None = None,
    updates: Updates | None = None,
    start: str | Mapping[str, Tensor] = "zero",
    **fields: Any,
) -> Backward:
    """Relax while weights change: after each of n steps, dW = -(rate/n) times the local update of that moment.

    Plain gradient descent on the weights themselves; there is no optimiser and `.grad` is not used. Feedback by
    transposed, sign-concordant or learned weights moves along. Projections whose plasticity is "equilibrium"
    change once, after the last step, at the full rate.

    Parameters
    ----------
    rate : float
        The learning rate, > 0.
    start : default "zero"
        From the feedforward state the sum over the run is dominated by the initial transient (THEORY.md
        section 2), so anything but "zero" warns.
    network, x, y, loss, assumptions, integrator, dt, eta, steps, duration, updates, **fields
        As for `relax_backward`; an integrator that takes time.

    Returns
    -------
    Backward
        Loss and output before the weights changed; no trajectory.

    Raises
    ------
    ActrelaxError
        For input that can't be used.
    """
    updates = updates or Updates()
    chosen, scheme = loss_named(loss), integrator_named(integrator)
    if not rate > 0:
        raise ActrelaxError(f"rate must be positive, got {rate}.")
    if scheme.order is None:
        raise ActrelaxError(f'continuous plasticity needs a relaxation that takes time, "{scheme.name}" takes none.')
    if start != "zero":
        warnings.warn(
            "continuous plasticity from a start other than zero mostly learns the initial transient.",
            stacklevel=3,
        )
    problem = RelaxationProblem.from_batch(network, x, y, loss=chosen, assumptions=assumptions, start=start, **fields)
    _check_decay(problem, updates)
    grid = schedule(problem, scheme, dt=dt, eta=eta, steps=steps, duration=duration)
    by_timing: dict[str, list[Projection]] = {"equilibrium": [], "continuous": []}
    for projection in network.projections.values():
        by_timing[network.knobs(projection, problem.knobs).plasticity].append(projection)
    state = problem.initial_state()
    for _ in range(grid.steps):
        state = scheme.step(problem, state, grid.dt)
        _descend(problem, by_timing["continuous"], state, updates, rate / grid.steps)
    _descend(problem, by_timing["equilibrium"], state, updates, rate)
    return _backward(problem, chosen, y, updates, None)


def local_updates(
    problem: RelaxationProblem, projection: Projection, state: State, updates: Updates
) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Yield (parameter, gradient) of one projection at a state, by its plasticity rule.

    W, its bias, and where feedback is learned psi, by the same Hebbian product.
    """
    network = problem.network
    feedback = network.knobs(projection, problem.knobs).feedback
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
    """Accumulate as autograd does."""
    if parameter.grad is None:
        parameter.grad = update.detach().clone()
    else:
        parameter.grad += update


def _descend(
    problem: RelaxationProblem, projections: list[Projection], state: State, updates: Updates, rate: float
) -> None:
    # all updates are taken before any weight moves
    changes = [change for p in projections for change in local_updates(problem, p, state, updates)]
    for parameter, update in changes:
        parameter.sub_(rate * update)


def _check_decay(problem: RelaxationProblem, updates: Updates) -> None:
    asked = any(knobs.feedback == "kolen-pollack" for knobs in problem.knobs.both)
    if asked and updates.decay is None:
        raise ActrelaxError('"kolen-pollack" feedback needs a rate of decay: pass updates=Updates(decay=...).')
    if updates.decay is not None and not asked:
        raise ActrelaxError('decay belongs to "kolen-pollack" feedback: use the optimiser\'s weight decay otherwise.')


def _backward(
    problem: RelaxationProblem, loss: Loss, y: Tensor, updates: Updates, trajectory: Trajectory | None
) -> Backward:
    output = problem.feedforward.activities[problem.network.output]
    return Backward(updates.reduced(loss.value(output, y).sum(), len(output)), output, trajectory)
