"""How long and how finely a relaxation runs: `Steps`, and what they mean for a problem."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, TypedDict, get_args

import numpy as np

from actrelax.models._names import is_number, known, whole_number
from actrelax.models.closed_form import gradient_steps, steps_until, uncovered
from actrelax.models.errors import ActrelaxError, warn
from actrelax.models.integrators import Integrator
from actrelax.models.problem import RelaxationProblem

ToleranceOf = Literal["activity", "gradient", "change"]


@dataclass(frozen=True)
class Steps:
    """A number of steps and their size, or a tolerance that ends the relaxation.

    Parameters
    ----------
    number : int, optional
        Number of steps; 100 unless `duration` is given.
    eta : float, optional
        Step size relative to the problem's single tau, dt = eta tau; 0.1 unless `dt` is given.
    dt : float, optional
        Step size in the problem's unit of time. SciPy's methods choose their own steps; for them it is the interval
        between outputs.
    duration : float, optional
        Total time in place of `number`, a multiple of dt.
    tolerance, of
        Set by `Steps.until`.

    Raises
    ------
    ActrelaxError
        For arguments that exclude each other or are out of range.

    See Also
    --------
    Steps.until : Relax until a tolerance is reached.

    Examples
    --------
    >>> Steps(100, eta=0.1)
    Steps(100, eta=0.1)
    >>> Steps(dt=1.0, duration=200.0)
    Steps(dt=1.0, duration=200.0)
    >>> Steps.until(1e-6, of="gradient", eta=0.1)
    Steps.until(1e-06, of='gradient', eta=0.1, most=10000)
    """

    number: int | None = None
    _: KW_ONLY
    eta: float | None = None
    dt: float | None = None
    duration: float | None = None
    tolerance: float | None = None
    of: ToleranceOf = "activity"

    def __post_init__(self) -> None:
        if self.number is None and self.tolerance is not None:
            raise ActrelaxError("a tolerance needs a largest number of steps: use Steps.until.")
        if self.number is not None:
            least, name = (0, "steps") if self.tolerance is None else (1, "most")
            object.__setattr__(self, "number", whole_number(name, self.number, least))
        if self.number is not None and self.duration is not None:
            raise ActrelaxError("a number of steps and duration exclude each other: give one of them.")
        if self.dt is not None and self.eta is not None:
            raise ActrelaxError("dt and eta exclude each other: give one of them.")
        for name in ("dt", "eta"):
            value = getattr(self, name)
            if value is not None and not (is_number(value) and 0 < value < math.inf):
                raise ActrelaxError(f"{name} must be a positive number, got {value!r}.")
        if self.duration is not None and not (is_number(self.duration) and 0 <= self.duration < math.inf):
            raise ActrelaxError(f"duration must be a number, 0 or more, got {self.duration!r}.")
        known("of", self.of, get_args(ToleranceOf))
        if self.tolerance is None and self.of != "activity":
            raise ActrelaxError(f"of={self.of!r} needs a tolerance: use Steps.until.")
        if self.tolerance is not None and not (is_number(self.tolerance) and 0 < self.tolerance < 1):
            raise ActrelaxError(f"tolerance must lie between 0 and 1, got {self.tolerance!r}.")

    @classmethod
    def until(
        cls,
        tolerance: float = 1e-6,
        *,
        of: ToleranceOf = "activity",
        eta: float | None = None,
        dt: float | None = None,
        most: int = 10_000,
    ) -> Steps:
        """Return steps that end once every hidden population has settled.

        Parameters
        ----------
        tolerance : float, default 1e-6
            Between 0 and 1.
        of : {"activity", "gradient", "change"}, default "activity"
            Meaning of the tolerance. If the closed form applies, "activity" and "gradient" compute the number of
            steps beforehand. "activity": the remaining share of the initial activity, a number that depends on the
            depth and the scheme alone. "gradient": the distance from equilibrium, relative to the largest gradient of
            the population; measured at the cost of L (L - 1) / 2 feedback projections in a chain of L. "change": the
            change in a step, relative to the population's largest activity; the remaining distance is larger by
            about tau/dt of the slowest population. Without the closed form, "activity" is a change of
            tolerance * dt/tau, and "gradient" is refused.
        eta, dt : float, optional
            As for `Steps`.
        most : int, default 10000
            Largest number of steps; a relaxation that has not settled by then warns.
        """
        return cls(most, eta=eta, dt=dt, tolerance=tolerance, of=of)

    def __repr__(self) -> str:
        size = {"eta": self.eta, "dt": self.dt}
        if self.tolerance is None:
            parts = [] if self.number is None else [str(self.number)]
            size |= {"duration": self.duration}
            return f"Steps({', '.join([*parts, *_as_keywords(size)])})"
        until = [f"{self.tolerance!r}", f"of={self.of!r}", *_as_keywords(size), f"most={self.number}"]
        return f"Steps.until({', '.join(until)})"


PAPERS = Steps(100, eta=0.1)
"""The papers' steps, the default of `solve` and `relax_backward`."""


class StepSize(TypedDict, total=False):
    """Keywords of `solve` and `relax_backward` that stand for a `Steps`."""

    eta: float | None
    dt: float | None
    duration: float | None


def as_steps(steps: int | Steps, shorthand: Mapping[str, Any]) -> Steps:
    """Return the steps that a call asks for.

    Parameters
    ----------
    steps : int or Steps
    shorthand : mapping
        eta, dt and duration, if given.

    Raises
    ------
    ActrelaxError
        For shorthand next to a `Steps`, other keywords, or as for `Steps`.
    """
    for name in shorthand:
        known("keyword", name, StepSize.__annotations__)
    given = {name: value for name, value in shorthand.items() if value is not None}
    if steps is PAPERS:
        return Steps(None if "duration" in given else 100, **given) if given else PAPERS
    if isinstance(steps, Steps):
        if given:
            raise ActrelaxError(
                f"{' and '.join(given)} must be a part of steps, got {steps!r} beside: pass "
                f"Steps(..., {', '.join(_as_keywords(given))})."
            )
        return steps
    return Steps(steps, **given)


def take_steps(steps: int | Steps, fields: Mapping[str, Any]) -> tuple[Steps, dict[str, Any]]:
    """Return the steps of a call whose keywords are shorthand and other fields, and the other fields."""
    size = StepSize.__annotations__
    others = {name: value for name, value in fields.items() if name not in size}
    return as_steps(steps, {name: value for name, value in fields.items() if name in size}), others


@dataclass(frozen=True)
class Schedule:
    """`steps` steps of `dt`, in the problem's unit of time.

    settles      whether the relaxation settles within the steps, if the closed form tells
    tolerance    of the gradient: `measured` replaces it by the number of steps that keep it
    stop_change  the change in a step at which the relaxation has settled, if it is to be watched
    """

    dt: float
    steps: int
    settles: bool | None = None
    tolerance: float | None = None
    stop_change: float | None = None

    @property
    def to_settle(self) -> bool:
        """Return whether a tolerance ends the relaxation."""
        return any(value is not None for value in (self.settles, self.tolerance, self.stop_change))

    def measured(self, problem: RelaxationProblem, integrator: Integrator) -> Schedule:
        """Return the steps that keep a tolerance of the gradient, by sending every initial activity down once."""
        if self.tolerance is None:
            return self
        steps = gradient_steps(problem, integrator, dt=self.dt, tolerance=self.tolerance, most=self.steps)
        return Schedule(self.dt, self.steps if steps is None else steps, settles=steps is not None)


def schedule(problem: RelaxationProblem, integrator: Integrator, steps: Steps = PAPERS) -> Schedule:
    """Return the steps of a relaxation.

    Raises
    ------
    ActrelaxError
        If the integrator does not support the problem; for an unstable step; for a duration or delay that is not a
        multiple of dt; for eta with several taus.

    Warns
    -----
    UserWarning
        If eta is above 1: errors may grow before they shrink (docs/theory.md).
    """
    reason = integrator.unsupported(problem)
    if reason is not None:
        raise ActrelaxError(f'"{integrator.name}" can\'t be used here: {reason}')
    if not integrator.takes_time:
        if steps is not PAPERS:
            raise ActrelaxError(f'"{integrator.name}" is a single sweep without time: leave steps out, got {steps!r}.')
        return Schedule(math.inf, 1)
    dt, taus = _step_size(problem, steps), _taus(problem)
    _check_stability(integrator, dt / min(taus))
    _check_dynamics(integrator, problem, dt)
    problem.delay.steps(dt)
    if steps.tolerance is not None:
        return _until_settled(problem, integrator, dt, steps)
    return Schedule(dt, _whole_steps(dt, steps))


def _step_size(problem: RelaxationProblem, steps: Steps) -> float:
    if steps.dt is not None:
        return steps.dt
    taus = _taus(problem)
    if min(taus) != max(taus):
        raise ActrelaxError("eta is dt/tau and needs one tau, but the problem has several: give dt.")
    if problem.dynamics:
        raise ActrelaxError("eta is dt/tau and needs one tau, but some units have other dynamics: give dt.")
    return (0.1 if steps.eta is None else steps.eta) * taus[0]


def _until_settled(problem: RelaxationProblem, integrator: Integrator, dt: float, steps: Steps) -> Schedule:
    """Return the schedule of `Steps.until`."""
    tolerance, most = steps.tolerance, steps.number
    assert tolerance is not None
    assert most is not None
    if problem.is_noisy:
        raise ActrelaxError("a relaxation with noise never settles: pass a number of steps in place of Steps.until.")
    if steps.of == "change":
        return Schedule(dt, most, stop_change=tolerance)
    reason = uncovered(problem)
    if steps.of == "gradient":
        if reason is not None:
            raise ActrelaxError(f'of="gradient" needs the closed form: {reason} Or pass of="change".')
        return Schedule(dt, most, tolerance=tolerance)
    if reason is not None:
        return Schedule(dt, most, stop_change=tolerance * dt / _slowest(problem))
    found = steps_until(problem, integrator, dt=dt, tolerance=tolerance, most=most)
    return Schedule(dt, most if found is None else found, settles=found is not None)


def _slowest(problem: RelaxationProblem) -> float:
    """Return the longest time constant, over leaky populations and the modes of other unit dynamics."""
    modes = [mode for dynamics in problem.dynamics.values() for mode in np.linalg.eigvals(np.asarray(dynamics.A))]
    leaky = [] if len(problem.dynamics) == len(problem.taus.shapes) else _taus(problem)
    return max([*leaky, *(-1 / float(mode.real) for mode in modes)])


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


def _whole_steps(dt: float, steps: Steps) -> int:
    if steps.duration is None:
        return 100 if steps.number is None else steps.number
    whole = round(steps.duration / dt)
    if not math.isclose(whole * dt, steps.duration, rel_tol=1e-9):
        raise ActrelaxError(f"duration must be a whole number of dt, got {steps.duration:g} with dt {dt:g}.")
    return whole


def _as_keywords(given: Mapping[str, object]) -> list[str]:
    return [f"{name}={value!r}" for name, value in given.items() if value is not None]
