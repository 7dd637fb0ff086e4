"""Number and size of the steps of a relaxation, as given by the caller."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Literal, TypedDict, get_args

from actrelax.models._names import MOST_STEPS, is_number, known, whole_number
from actrelax.models._values import MS, as_number, without_unit
from actrelax.models.errors import ActrelaxError

ToleranceOf = Literal["activity", "gradient", "change"]


@dataclass(frozen=True)
class Steps:
    """A number of steps and their size, or a tolerance that ends the relaxation.

    Parameters
    ----------
    number : int, optional
        Number of steps; 100 unless `duration` is given.
    eta : float, optional
        Step size relative to tau: dt = eta tau. Needs a problem with a single tau. 0.1 unless `dt` is given.
    dt : float, optional
        Step size in the problem's unit of time. SciPy's methods choose their own steps; for them it is the interval
        between outputs.
    duration : float, optional
        Total time, a multiple of dt; use it in place of `number`.
    tolerance, of
        Set by `Steps.until`.
    unit : {"ms"}, optional
        Unit of `dt` and `duration`, set by Brian2 quantities (``dt=0.1 * ms``); by default the problem's unit.

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
    unit: Literal["ms"] | None = None

    def __post_init__(self) -> None:
        times, unit = without_unit(dt=self.dt, duration=self.duration)
        numbers = {name: as_number(getattr(self, name)) for name in ("eta", "tolerance")}
        for name, value in {**times, **numbers, "unit": unit or self.unit}.items():
            object.__setattr__(self, name, value)
        if self.unit is not None:
            known("unit", self.unit, [MS])
        if self.number is None and self.tolerance is not None:
            raise ActrelaxError("a tolerance needs a largest number of steps: use Steps.until.")
        if self.number is not None:
            least, name = (0, "steps") if self.tolerance is None else (1, "most")
            object.__setattr__(self, "number", whole_number(name, self.number, least))
            if self.number > MOST_STEPS:
                raise ActrelaxError(f"{name} must be at most 2**53, got {self.number}: a float can't count more.")
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
            Quantity that the tolerance bounds, in every hidden population:

            - "activity": the remaining share of the initial activity. With the closed form, the number of steps is
              computed beforehand, from the depth and the scheme alone; up to a tolerance of 1e-5 the result is the
              equilibrium itself, above it that of the steps. Otherwise the relaxation ends when the residual
              |-x + feedback|, measured as the change in a step over dt/tau of each neuron, is at most the tolerance,
              relative to the population's largest activity.
            - "gradient": the distance from equilibrium, relative to the population's largest gradient. The number of
              steps is computed for each batch, at the cost of L (L - 1) / 2 feedback applications in a chain of L.
              Needs the closed form.
            - "change": the change in a step, relative to the population's largest activity. The remaining distance
              is larger by about tau/dt of the slowest population.
        eta, dt : float, optional
            As for `Steps`.
        most : int, default 10000
            Largest number of steps; if the relaxation has not settled by then, it ends with a warning.
        """
        return cls(most, eta=eta, dt=dt, tolerance=tolerance, of=of)

    def __repr__(self) -> str:
        size: dict[str, object] = {"eta": self.eta, "dt": self.dt}
        if self.tolerance is None:
            parts = [] if self.number is None else [str(self.number)]
            size |= {"duration": self.duration, "unit": self.unit}
            return f"Steps({', '.join([*parts, *_as_keywords(size)])})"
        until = [f"{self.tolerance!r}", f"of={self.of!r}", *_as_keywords(size), f"most={self.number}"]
        return f"Steps.until({', '.join(until)})"


PAPERS = Steps(100, eta=0.1)
"""The papers' steps, the default of `solve` and `relax_backward`."""


class StepSize(TypedDict, total=False):
    """Keywords of `solve` and `relax_backward` that are shorthand for `Steps`."""

    eta: float | None
    dt: float | None
    duration: float | None


def as_steps(steps: int | Steps, shorthand: Mapping[str, Any], default: Steps = PAPERS) -> Steps:
    """Return the steps of a call from its `steps` and its shorthand (eta, dt and duration).

    Shorthand replaces the step size or the length of `default`, and can't be combined with any other `Steps`.
    """
    for name in shorthand:
        known("keyword", name, StepSize.__annotations__)
    given = {name: value for name, value in shorthand.items() if value is not None}
    if steps is default:
        if "duration" in given:
            return Steps(**given)
        return replace(default, **{"eta": None, "dt": None} | given) if given else default
    if isinstance(steps, Steps):
        if given:
            raise ActrelaxError(
                f"{' and '.join(given)} can't be combined with {steps!r}: pass "
                f"Steps(..., {', '.join(_as_keywords(given))})."
            )
        return steps
    return Steps(whole_number("steps", steps, least=0), **given)


def step_size(steps: Steps, tau: float = 1.0) -> float:
    """Return dt of steps for units with a single time constant, in the unit of the time constant."""
    if steps.dt is not None:
        return steps.dt
    return (0.1 if steps.eta is None else steps.eta) * tau


def take_steps(steps: int | Steps, fields: Mapping[str, Any], default: Steps = PAPERS) -> tuple[Steps, dict[str, Any]]:
    """Split a call's keywords into its steps, from `steps` and shorthand, and the other keywords."""
    size = StepSize.__annotations__
    others = {name: value for name, value in fields.items() if name not in size}
    return as_steps(steps, {name: value for name, value in fields.items() if name in size}, default), others


def _as_keywords(given: Mapping[str, object]) -> list[str]:
    return [f"{name}={value!r}" for name, value in given.items() if value is not None]
