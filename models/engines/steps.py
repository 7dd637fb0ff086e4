"""Step size and number of steps of a relaxation: dt or eta, steps or duration (docs/theory.md)."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex, get_args

import numpy as np

from actrelax.models._names import is_number, known
from actrelax.models.closed_form import ToleranceOf, steps_until, uncovered
from actrelax.models.errors import ActrelaxError, warn
from actrelax.models.integrators import Integrator
from actrelax.models.problem import RelaxationProblem

Steps = int | Literal["auto"]


@dataclass(frozen=True)
class Schedule:
    """`steps` steps of `dt`, in the problem's unit of time.

    settles      for steps="auto" with the closed form: whether the relaxation settles within the steps
    stop_change  for steps="auto" without the closed form: the change in a step at which the relaxation has settled
    """

    dt: float
    steps: int
    settles: bool | None = None
    stop_change: float | None = None

    @property
    def to_settle(self) -> bool:
        """Return whether the number of steps was chosen by steps="auto"."""
        return self.settles is not None or self.stop_change is not None


def schedule(
    problem: RelaxationProblem,
    integrator: Integrator,
    *,
    dt: float | None = None,
    eta: float | None = None,
    steps: Steps | None = None,
    duration: float | None = None,
    tolerance: float | None = None,
    tolerance_of: ToleranceOf | None = None,
    max_steps: int | None = None,
) -> Schedule:
    """Return the steps of a relaxation, by default the papers' 100 steps of eta = 0.1.

    The parameters are those of `solve`.

    Raises
    ------
    ActrelaxError
        If the integrator does not support the problem; for arguments that exclude each other or are out of range; for
        an unstable step; for a duration or delay that is not a multiple of dt; for eta with several taus.

    Warns
    -----
    UserWarning
        If eta is above 1: errors may grow before they shrink (docs/theory.md).
    """
    given = {
        "dt": dt,
        "eta": eta,
        "steps": steps,
        "duration": duration,
        "tolerance": tolerance,
        "tolerance_of": tolerance_of,
        "max_steps": max_steps,
    }
    reason = integrator.unsupported(problem)
    if reason is not None:
        raise ActrelaxError(f'"{integrator.name}" can\'t be used here: {reason}')
    if not integrator.takes_time:
        _refuse_choices(integrator, given)
        return Schedule(math.inf, 1)
    if dt is not None and eta is not None:
        raise ActrelaxError("dt and eta exclude each other: give one of them.")
    if steps is not None and duration is not None:
        raise ActrelaxError("steps and duration exclude each other: give one of them.")
    for name in ("dt", "eta"):
        value: Any = given[name]
        if value is not None and not (is_number(value) and 0 < value < math.inf):
            raise ActrelaxError(f"{name} must be a positive number, got {value!r}.")
    taus = _taus(problem)
    if dt is None:
        if min(taus) != max(taus):
            raise ActrelaxError("eta is dt/tau and needs one tau, but the problem has several: give dt.")
        if problem.dynamics:
            raise ActrelaxError("eta is dt/tau and needs one tau, but some units have other dynamics: give dt.")
        dt = (0.1 if eta is None else eta) * taus[0]
    _check_stability(integrator, dt / min(taus))
    _check_dynamics(integrator, problem, dt)
    problem.delay.steps(dt)
    if steps == "auto":
        return _until_settled(problem, integrator, dt, tolerance, tolerance_of or "activity", max_steps)
    only_auto = {"tolerance": tolerance, "tolerance_of": tolerance_of, "max_steps": max_steps}
    unused = " and ".join(name for name, value in only_auto.items() if value is not None)
    if unused:
        raise ActrelaxError(f'only steps="auto" takes {unused}: choose that, or leave {unused} out.')
    return Schedule(dt, _whole_steps(dt, steps, duration))


def whole_number(name: str, value: SupportsIndex, least: int) -> int:
    """Return a count as an int, NumPy's integers included.

    Raises
    ------
    ActrelaxError
        If the value is not a whole number or is below `least`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ActrelaxError(f"{name} must be a whole number, {least} or more, got {value!r}.")
    return number


def _until_settled(
    problem: RelaxationProblem,
    integrator: Integrator,
    dt: float,
    tolerance: float | None,
    tolerance_of: ToleranceOf,
    max_steps: int | None,
) -> Schedule:
    """Return the schedule for steps="auto": computed by the closed form, or a bound on the change in a step."""
    if problem.is_noisy:
        raise ActrelaxError(
            'steps="auto" needs a relaxation that settles, but with noise it never does: pass a number of steps.'
        )
    tolerance = 1e-6 if tolerance is None else tolerance
    if not (is_number(tolerance) and 0 < tolerance < 1):
        raise ActrelaxError(f"tolerance must lie between 0 and 1, got {tolerance!r}.")
    known("tolerance_of", tolerance_of, get_args(ToleranceOf))
    most = 10_000 if max_steps is None else whole_number("max_steps", max_steps, least=1)
    if uncovered(problem) is None:
        steps = steps_until(problem, integrator, dt=dt, tolerance=tolerance, of=tolerance_of, most=most)
        return Schedule(dt, most if steps is None else steps, settles=steps is not None)
    if tolerance_of == "gradient":
        raise ActrelaxError(
            f'tolerance_of="gradient" needs the closed form: {uncovered(problem)} Leave tolerance_of out.'
        )
    return Schedule(dt, most, stop_change=tolerance * dt / _slowest(problem))


def _slowest(problem: RelaxationProblem) -> float:
    """Return the longest time constant, over leaky populations and the modes of other unit dynamics."""
    modes = [mode for dynamics in problem.dynamics.values() for mode in np.linalg.eigvals(np.asarray(dynamics.A))]
    leaky = [] if len(problem.dynamics) == len(problem.taus.shapes) else _taus(problem)
    return max([*leaky, *(-1 / float(mode.real) for mode in modes)])


def _refuse_choices(integrator: Integrator, given: Mapping[str, object]) -> None:
    chosen = [name for name, value in given.items() if value is not None]
    if chosen:
        raise ActrelaxError(f'"{integrator.name}" is a single sweep without time: leave out {" and ".join(chosen)}.')


def _taus(problem: RelaxationProblem) -> list[float]:
    """Return the shortest and the longest time constant of each leaky population."""
    leaky = [v for v in problem.taus.shapes if v not in problem.dynamics]
    if not leaky:
        return [math.inf if problem.dynamics else 1.0]
    return [tau for v in leaky for tau in problem.taus.extremes(v)]


def _check_stability(integrator: Integrator, eta: float) -> None:
    if eta >= integrator.stability_limit:
        raise ActrelaxError(
            f'eta must lie between 0 and {integrator.stability_limit:.4g} for "{integrator.name}", got {eta:.4g}: '
            "take more steps of a smaller dt."
        )
    if eta > 1 and integrator.stability_limit < math.inf:
        warn(f"eta is {eta:.4g}, above 1: errors may grow by about eta / (2 - eta) per layer before they shrink.")


def _check_dynamics(integrator: Integrator, problem: RelaxationProblem, dt: float) -> None:
    """Refuse a step at which a mode of some unit dynamics does not decay: |R(dt lambda)| >= 1."""
    if integrator.stability_limit == math.inf:
        return
    for name, dynamics in problem.dynamics.items():
        for mode in np.linalg.eigvals(np.asarray(dynamics.A)):
            if abs(integrator.transition(np.array([[mode]]), dt)[0, 0]) >= 1:
                raise ActrelaxError(
                    f'dt {dt:.4g} is unstable for the units of {name!r} under "{integrator.name}": give a smaller dt.'
                )


def _whole_steps(dt: float, steps: Steps | None, duration: float | None) -> int:
    if duration is None:
        if isinstance(steps, str):
            raise ActrelaxError(f'steps must be a whole number or "auto", got {steps!r}.')
        return 100 if steps is None else whole_number("steps", steps, least=0)
    if not (is_number(duration) and 0 <= duration < math.inf):
        raise ActrelaxError(f"duration must be a number, 0 or more, got {duration!r}.")
    whole = round(duration / dt)
    if not math.isclose(whole * dt, duration, rel_tol=1e-9):
        raise ActrelaxError(f"duration must be a whole number of dt, got {duration:g} with dt {dt:g}.")
    return whole
