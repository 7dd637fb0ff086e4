"""Plasticity during the relaxation: weights change together with activities (docs/theory.md)."""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor

from actrelax.models._names import is_number, look_up
from actrelax.models._values import as_generator
from actrelax.models.assumptions import Assumptions
from actrelax.models.engines import INTEGRATORS, PAPERS, Steps, schedule
from actrelax.models.engines.residual import residual_of_state
from actrelax.models.engines.schedule import Schedule
from actrelax.models.engines.steps import take_steps
from actrelax.models.errors import ActrelaxError, warn
from actrelax.models.integrators import Integrator, add_noise, fill_delay_lines
from actrelax.models.learning.captured_continuous import CapturedDescent
from actrelax.models.learning.gradients import Backward, BackwardOptions, check_decay, refuse_hooks
from actrelax.models.learning.plasticity import local_updates
from actrelax.models.learning.relax import RelaxFields
from actrelax.models.learning.report import SettlingReport
from actrelax.models.learning.settling import Ended, forward_end, pass_for, report_of
from actrelax.models.network import CapturedNetwork, Network, Projection, check_network
from actrelax.models.problem import Loss, LossFunction, RelaxationProblem, State, loss_named
from actrelax.models.results import DivergenceError


class ContinuousFields(RelaxFields, total=False):
    """Further keywords of `relax_continuously`: those of `relax_backward`, and `assumptions`."""

    assumptions: str | Assumptions


@torch.no_grad()
def relax_continuously(
    network: Network,
    x: Tensor,
    y: Tensor,
    steps: int | Steps = PAPERS,
    *,
    rate: float,
    loss: str | Loss | LossFunction = "cross-entropy",
    integrator: str | Integrator = "sequential",
    options: BackwardOptions | None = None,
    **fields: Unpack[ContinuousFields],
) -> Backward:
    """Relax while weights change: after each of n steps, dW = -(rate/n) times the current local update.

    This is plain gradient descent without an optimiser or `.grad`. Transposed, sign-concordant and learned feedback
    weights change with W. Projections with plasticity at "equilibrium" change once, after the last step, at the full
    rate. In captured networks the forward pass fixes the adjoints of pieces, so their parameters change after the last
    step, by the sum of their updates; weights that are computed from parameters are refused.

    Parameters
    ----------
    rate : float
        Learning rate, > 0.
    network, x, y, steps, loss, integrator, options
        As for `relax_backward`, except `Steps.until`, "equilibrium" and the options "closed-form" and `keep`.
    **fields
        As for `relax_backward`, and `assumptions`, "continuous" by default. The default `start` is "zero"; any other
        start gives a warning, because the updates then mostly reflect the initial transient.

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
    options, chosen = options or BackwardOptions(), loss_named(loss)
    scheme = look_up("integrator", integrator, INTEGRATORS)
    steps, others = take_steps(steps, {"assumptions": "continuous", "start": "zero"} | fields)
    _check(options, steps, scheme, rate)
    if others["start"] != "zero":
        warn("continuous plasticity from a start other than zero mostly learns the initial transient: leave start out.")
    check_network(network)
    passed = pass_for(network, x, options)
    problem = RelaxationProblem.from_batch(network, passed, y, loss=chosen, **others)
    check_decay(problem, options.updates)
    refuse_hooks(network, "continuous plasticity changes weights without a gradient")
    grid = schedule(problem, scheme, steps)
    output = problem.feedforward.activities[network.output]
    correction = chosen.correction(output, y, options.reduction)
    is_captured = isinstance(network, CapturedNetwork)
    descent = (CapturedDescent if is_captured else _Descent)(problem, options, correction)
    before = [(parameter, parameter.clone()) for parameter in descent.parameters() if options.check_finite]
    state = _descend_along(problem, scheme, grid, descent, rate, options)
    bad = _first_non_finite(problem, state) if options.check_finite else None
    if bad is not None:
        for parameter, value in before:
            parameter.copy_(value)
        raise DivergenceError(f"{bad} became non-finite: lower rate or eta; no weight has changed.")
    finite = torch.stack([torch.isfinite(x).all() for x in [problem.clamped, *state.values()]]).all()
    losses = chosen.value(output, y)
    loss_value = options.reduced(losses.sum(), len(output), correction)
    return Backward(loss_value, output, finite, len(output), report=_report(problem, state, grid.steps, options))


def _descend_along(
    problem: RelaxationProblem,
    scheme: Integrator,
    grid: Schedule,
    descent: _Descent | CapturedDescent,
    rate: float,
    options: BackwardOptions,
) -> State:
    """Take the steps, changing weights after each and after the last, and return the final state."""
    state, noisy = fill_delay_lines(problem, problem.initial_state(), grid.dt), problem.is_noisy
    for _ in range(grid.steps):
        state = scheme.step(problem, state, grid.dt)
        if noisy:
            state = add_noise(problem, state, grid.dt, as_generator(options.generator))
        descent.step(state, rate / grid.steps)
    descent.end(state, rate)
    return state


def _report(problem: RelaxationProblem, state: State, steps: int, options: BackwardOptions) -> SettlingReport | None:
    """Return how far each sample was from its fixed points after the last step, on a network with cycles."""
    passed = problem.feedforward
    if not problem.network.is_recurrent:
        return None
    backward = Ended(residual_of_state(problem, state), None, steps)  # plasticity keeps moving the fixed point
    return report_of(options, {"forward": forward_end(options, passed), "backward": backward})


def _first_non_finite(problem: RelaxationProblem, state: State) -> str | None:
    """Return the first population with non-finite activities, or else the first non-finite parameter."""
    named = {f'population "{name}"': x for name, x in problem.activities(state).items()}
    named |= {f"parameter {name!r}": w for name, w in problem.network.named_parameters()}
    return next((name for name, x in named.items() if not bool(torch.isfinite(x).all())), None)


def _check(options: BackwardOptions, steps: Steps, scheme: Integrator, rate: float) -> None:
    if options.evaluation == "closed-form" or options.keep:
        raise ActrelaxError("continuous plasticity has no closed form or trajectory: leave out evaluation and keep.")
    if options.unsettled == "drop" or options.sample_clip is not None:
        raise ActrelaxError(
            "continuous plasticity has changed the weights before it is known which samples settle: leave "
            'unsettled="drop" and sample_clip out.'
        )
    if not (is_number(rate) and 0 < rate < math.inf):
        raise ActrelaxError(f"rate must be positive, got {rate!r}.")
    if not scheme.takes_time:
        raise ActrelaxError(f'continuous plasticity needs an integrator with steps in time, got "{scheme.name}".')
    if steps.tolerance is not None:
        raise ActrelaxError(
            f"continuous plasticity divides the rate by the number of steps: pass a number, got {steps}."
        )


class _Descent:
    """Gradient descent during the relaxation and after it."""

    def __init__(self, problem: RelaxationProblem, options: BackwardOptions, correction: Tensor | None) -> None:
        self.problem, self.options, self.correction = problem, options, correction
        self.by_timing: dict[str, list[Projection]] = {"equilibrium": [], "continuous": []}
        for projection in problem.network.projections.values():
            self.by_timing[problem.network.knobs(projection, problem.assumptions).plasticity].append(projection)

    def parameters(self) -> list[Tensor]:
        """Return all parameters that may change."""
        return list(self.problem.network.parameters())

    def step(self, state: State, rate: float) -> None:
        """Change the weights of projections with continuous plasticity."""
        self._descend("continuous", state, rate)

    def end(self, state: State, rate: float) -> None:
        """Change the weights of the other projections."""
        self._descend("equilibrium", state, rate)

    def _descend(self, timing: str, state: State, rate: float) -> None:
        # compute all updates before any weight changes
        projections, given = self.by_timing[timing], (state, self.options, self.correction)
        changes = [change for p in projections for change in local_updates(self.problem, p, *given)]
        for parameter, update in changes:
            parameter.sub_(rate * update)
