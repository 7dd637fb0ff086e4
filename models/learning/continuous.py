"""Plasticity during the relaxation: weights change together with activities (docs/theory.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from actrelax.models._names import look_up
from actrelax.models.assumptions import Assumptions
from actrelax.models.engines import INTEGRATORS, schedule
from actrelax.models.errors import ActrelaxError, warn
from actrelax.models.integrators import Integrator, add_noise, fill_delay_lines
from actrelax.models.learning.gradients import Backward, Updates, check_decay, reduce
from actrelax.models.learning.plasticity import local_updates
from actrelax.models.network import Network, Projection
from actrelax.models.problem import Loss, LossFunction, RelaxationProblem, State, loss_named
from actrelax.models.results import DivergenceError


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
    check_finite: bool = True,
    generator: torch.Generator | None = None,
    start: str | Mapping[str, Tensor] = "zero",
    **fields: Any,
) -> Backward:
    """Relax while weights change: after each of n steps, dW = -(rate/n) times the current local update.

    This is plain gradient descent without an optimiser or `.grad`. Transposed, sign-concordant and learned feedback
    weights change with W. Projections with plasticity at "equilibrium" change once, after the last step, at the full
    rate.

    Parameters
    ----------
    rate : float
        Learning rate, > 0.
    start : default "zero"
        Other starts warn: their updates are mostly the initial transient (docs/theory.md).
    network, x, y, loss, assumptions, integrator, dt, eta, steps, duration, updates, check_finite, generator, **fields
        As for `relax_backward`; "equilibrium" is not possible.

    Returns
    -------
    Backward
        Loss and output before the weights change, without a trajectory.

    Raises
    ------
    ActrelaxError
        For invalid arguments.
    DivergenceError
        If activities or weights become non-finite and `check_finite` is set; the weights are then unchanged.
    """
    updates = updates or Updates()
    if updates.across is not None:
        raise ActrelaxError("continuous plasticity works in one process only: leave across out.")
    chosen, scheme = loss_named(loss), look_up("integrator", integrator, INTEGRATORS)
    if not rate > 0:
        raise ActrelaxError(f"rate must be positive, got {rate}.")
    if not scheme.takes_time:
        raise ActrelaxError(f'continuous plasticity needs an integrator with steps in time, got "{scheme.name}".')
    if start != "zero":
        warn("continuous plasticity from a start other than zero mostly learns the initial transient.")
    problem = RelaxationProblem.from_batch(network, x, y, loss=chosen, assumptions=assumptions, start=start, **fields)
    check_decay(problem, updates)
    if isinstance(steps, str):
        raise ActrelaxError('continuous plasticity divides the rate by the number of steps: pass a number, not "auto".')
    grid = schedule(problem, scheme, dt=dt, eta=eta, steps=steps, duration=duration)
    by_timing: dict[str, list[Projection]] = {"equilibrium": [], "continuous": []}
    for projection in network.projections.values():
        by_timing[network.knobs(projection, problem.assumptions).plasticity].append(projection)
    before = [(parameter, parameter.clone()) for parameter in network.parameters() if check_finite]
    state, noisy = fill_delay_lines(problem, problem.initial_state(), grid.dt), problem.is_noisy
    for _ in range(grid.steps):
        state = scheme.step(problem, state, grid.dt)
        if noisy:
            state = add_noise(problem, state, grid.dt, generator)
        _descend(problem, by_timing["continuous"], state, updates, rate / grid.steps)
    _descend(problem, by_timing["equilibrium"], state, updates, rate)
    if check_finite and not all(bool(torch.isfinite(x).all()) for x in [*state.values(), *network.parameters()]):
        for parameter, value in before:
            parameter.copy_(value)
        raise DivergenceError("activities or weights became non-finite: lower rate or eta; no weight has changed.")
    finite = torch.stack([torch.isfinite(x).all() for x in [problem.clamped, *state.values()]]).all()
    output = problem.feedforward.activities[network.output]
    return reduce(output, chosen.value(output, y), updates, finite)[1]


def _descend(
    problem: RelaxationProblem, projections: list[Projection], state: State, updates: Updates, rate: float
) -> None:
    # compute all updates before any weight changes
    changes = [change for p in projections for change in local_updates(problem, p, state, updates)]
    for parameter, update in changes:
        parameter.sub_(rate * update)
