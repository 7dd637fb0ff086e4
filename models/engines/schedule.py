"""Step size and number of steps for a problem, from `Steps`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from actrelax.models._names import whole_steps
from actrelax.models.closed_form import gradient_steps, steps_until, uncovered
from actrelax.models.engines.steps import PAPERS, Steps, step_size
from actrelax.models.errors import ActrelaxError, warn
from actrelax.models.integrators import Integrator
from actrelax.models.problem import InitialValueProblem, RelaxationProblem, Value

AT_REST = 1e-5
"""The largest tolerance for which the closed form gives the equilibrium in place of the steps' result."""


@dataclass(frozen=True)
class Schedule:
    """`steps` steps of `dt`, in the problem's unit of time.

    settles      whether the relaxation settles within the steps; None unless the closed form predicts it
    rests        whether the equilibrium stands for the state that has settled, from which it hardly differs
    tolerance    tolerance of the gradient; `measured` replaces it with a number of steps
    stop_change  relative change per step at which the relaxation ends; None to take all steps
    bounds       population -> its own bound on the change, in place of `stop_change`: one, or one per neuron
    residual     relative residual |-x + u| at which the relaxation ends; None to take all steps
    """

    dt: float
    steps: int
    settles: bool | None = None
    rests: bool = False
    tolerance: float | None = None
    stop_change: float | None = None
    bounds: Mapping[str, Value] = field(default_factory=dict)
    residual: float | None = None

    def measured(self, problem: InitialValueProblem, integrator: Integrator) -> Schedule:
        """Return the schedule with the number of steps that the gradient's tolerance needs (`gradient_steps`)."""
        if self.tolerance is None:
            return self
        assert isinstance(problem, RelaxationProblem)  # `uncovered` refuses the others
        steps = gradient_steps(problem, integrator, dt=self.dt, tolerance=self.tolerance, most=self.steps)
        return _predicted(self.dt, steps, self.steps, self.tolerance)


def schedule(problem: InitialValueProblem, integrator: Integrator, steps: Steps = PAPERS) -> Schedule:
    """Return the step size and the number of steps of a relaxation.

    Refuses unstable steps, durations and delays that are not a multiple of dt, eta with several taus, and problems that
    the integrator can't solve. Warns of eta above 1, where errors may grow before they shrink.
    """
    if not isinstance(problem, InitialValueProblem):
        raise ActrelaxError(
            f"a RelaxationProblem or a ForwardProblem is needed, got {type(problem).__name__}: make one by "
            "RelaxationProblem.from_batch(network, x, y)."
        )
    reason = integrator.unsupported(problem)
    if reason is not None:
        raise ActrelaxError(f'"{integrator.name}" can\'t be used here: {reason}')
    if not integrator.takes_time:
        if problem.network.is_recurrent and steps.tolerance is not None:
            return Schedule(math.inf, 1, stop_change=steps.tolerance, residual=steps.tolerance)
        if steps != PAPERS:
            raise ActrelaxError(f'"{integrator.name}" is a single sweep without time: leave steps out, got {steps!r}.')
        return Schedule(math.inf, 1)
    problem.check_unit("dt" if steps.duration is None else "duration", steps.unit)
    dt = _step_size(problem, steps)
    require_stable(problem, integrator, dt)
    eta = dt / min(_taus(problem))
    if eta > 1 and integrator.stability_limit < math.inf:
        warn(f"eta is {eta:.4g}, above 1: errors may grow by about eta / (2 - eta) per layer before they shrink.")
    problem.delay.steps(dt)
    if steps.tolerance is not None:
        return _until_settled(problem, integrator, dt, steps)
    return Schedule(dt, _whole_steps(dt, steps))


def require_stable(problem: InitialValueProblem, integrator: Integrator, dt: float) -> None:
    """Refuse a step at which leaky units, or a mode of some unit dynamics, don't decay: |R(dt lambda)| >= 1."""
    limit = integrator.stability_limit
    if limit == math.inf:
        return
    eta = dt / min(_taus(problem))
    if eta >= limit:
        raise ActrelaxError(
            f'eta must lie between 0 and {limit:.4g} for "{integrator.name}", got {eta:.4g}: '
            "take more steps of a smaller dt."
        )
    for name, dynamics in problem.dynamics.items():
        for mode in np.linalg.eigvals(np.asarray(dynamics.A)):
            if abs(integrator.transition(np.array([[mode]]), dt)[0, 0]) >= 1:
                raise ActrelaxError(
                    f'dt {dt:.4g} is unstable for the units of {name!r} under "{integrator.name}": give a smaller dt.'
                )


def _step_size(problem: InitialValueProblem, steps: Steps) -> float:
    if steps.dt is not None:
        return steps.dt
    taus = _taus(problem)
    if min(taus) != max(taus):
        raise ActrelaxError("eta is dt/tau and needs one tau, but the problem has several: give dt.")
    if problem.dynamics:
        raise ActrelaxError("eta is dt/tau and needs one tau, but some units have other dynamics: give dt.")
    return step_size(steps, taus[0])


def _until_settled(problem: InitialValueProblem, integrator: Integrator, dt: float, steps: Steps) -> Schedule:
    """Return the schedule of `Steps.until`."""
    tolerance, most = steps.tolerance, steps.number
    assert tolerance is not None
    assert most is not None
    if problem.is_noisy:
        raise ActrelaxError("a relaxation with noise never settles: pass a number of steps in place of Steps.until.")
    if steps.of == "change":
        return Schedule(dt, most, stop_change=tolerance, residual=tolerance * max(_taus(problem)) / dt)
    reason = uncovered(problem)
    if steps.of == "gradient":
        if reason is not None:
            raise ActrelaxError(f'of="gradient" needs the closed form, otherwise pass of="change": {reason}')
        return Schedule(dt, most, tolerance=tolerance)
    if reason is not None:
        shares = {name: _share(problem, name, integrator, dt) for name in problem.units}
        bounds = {name: tolerance * share for name, share in shares.items()}
        least = min(map(_least, bounds.values()), default=tolerance)
        return Schedule(dt, most, stop_change=least, bounds=bounds, residual=tolerance)
    assert isinstance(problem, RelaxationProblem)
    found = steps_until(problem, integrator, dt=dt, tolerance=tolerance, most=most)
    return _predicted(dt, found, most, tolerance)


def _predicted(dt: float, steps: int | None, most: int, tolerance: float) -> Schedule:
    """Return the schedule of a relaxation that settles after so many steps; None if `most` are not enough."""
    if steps is None:
        return Schedule(dt, most, settles=False)
    return Schedule(dt, steps, settles=True, rests=tolerance <= AT_REST)


def _share(problem: InitialValueProblem, population: str, integrator: Integrator, dt: float) -> Value:
    """Return the change in a step over the distance u - x to rest, for the slowest mode of a population's units.

    dt/tau, but 1 - exp(-dt/tau) where dt may exceed tau. SciPy compares rates of change, for which it is dt/tau too.
    """
    if population in problem.dynamics:
        modes = np.linalg.eigvals(np.asarray(problem.dynamics[population].A))
        tau: Value = max(-1 / float(mode.real) for mode in modes)
    else:
        tau = problem.taus.on(population, problem.state_like)
    ratio = dt / tau
    if integrator.stability_limit < math.inf or integrator.engine == "scipy":
        return ratio
    return -torch.expm1(-ratio) if isinstance(ratio, Tensor) else -math.expm1(-ratio)


def _least(value: Value) -> float:
    return float(value.min()) if isinstance(value, Tensor) else value


def _taus(problem: InitialValueProblem) -> list[float]:
    """Return the shortest and the longest time constant of each leaky population."""
    leaky = [v for v in problem.taus.shapes if v not in problem.dynamics]
    if not leaky:
        return [math.inf if problem.dynamics else 1.0]
    return [tau for v in leaky for tau in problem.taus.extremes(v)]


def _whole_steps(dt: float, steps: Steps) -> int:
    if steps.duration is None:
        return 100 if steps.number is None else steps.number
    return whole_steps("duration", steps.duration, dt)
