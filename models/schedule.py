"""How long and how finely a relaxation is integrated: dt or eta, steps or duration (THEORY.md section 3)."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
import torch

from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Integrator
from actrelax.models.problem import RelaxationProblem
from actrelax.models.registry import is_number


@dataclass(frozen=True)
class Schedule:
    """`steps` steps of `dt`, in the problem's unit of time."""

    dt: float
    steps: int


def schedule(
    problem: RelaxationProblem,
    integrator: Integrator,
    *,
    dt: float | None = None,
    eta: float | None = None,
    steps: int | None = None,
    duration: float | None = None,
) -> Schedule:
    """Work out the steps of a relaxation; without any choice the papers' 100 steps of eta = 0.1.

    Raises
    ------
    ActrelaxError
        For a problem that the integrator does not support, choices that exclude each other or are out of range, an
        unstable step, a duration or delay that is no whole number of dt, or an eta where the problem has several tau.

    Warns
    -----
    UserWarning
        If eta is above 1: errors may grow before they shrink (THEORY.md section 4).
    """
    given = {"dt": dt, "eta": eta, "steps": steps, "duration": duration}
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
        value = given[name]
        if value is not None and not (is_number(value) and 0 < value < math.inf):
            raise ActrelaxError(f"{name} must be a positive number, got {value!r}.")
    taus = _taus(problem)
    if dt is None:
        if min(taus) != max(taus):
            raise ActrelaxError("eta is dt/tau of one tau, and this problem has several: give dt.")
        if problem.dynamics:
            raise ActrelaxError("eta is dt/tau of one tau, and some units here have dynamics of their own: give dt.")
        dt = (0.1 if eta is None else eta) * taus[0]
    _check_stability(integrator, dt / min(taus))
    _check_dynamics(integrator, problem, dt)
    problem.delay.steps(dt)
    return Schedule(dt, _whole_steps(dt, steps, duration))


def whole_number(name: str, value: SupportsIndex, least: int) -> int:
    """Return a count as an int, NumPy's integers included.

    Raises
    ------
    ActrelaxError
        If it is no whole number, or below `least`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ActrelaxError(f"{name} must be a whole number, {least} or more, got {value!r}.")
    return number


def _refuse_choices(integrator: Integrator, given: Mapping[str, float | None]) -> None:
    chosen = [name for name, value in given.items() if value is not None]
    if chosen:
        raise ActrelaxError(f'"{integrator.name}" is one sweep without time: leave out {" and ".join(chosen)}.')


def _taus(problem: RelaxationProblem) -> list[float]:
    """Return the shortest and the longest time constant of each leaky population."""
    leaky = [v for v in problem.taus.shapes if v not in problem.dynamics]
    taus = [torch.as_tensor(problem.taus.of(v), dtype=torch.float64) for v in leaky]
    if not taus:
        return [math.inf if problem.dynamics else 1.0]
    return [float(tau) for each in taus for tau in (each.min(), each.max())]


def _check_stability(integrator: Integrator, eta: float) -> None:
    if eta >= integrator.stability_limit:
        raise ActrelaxError(
            f'eta must lie between 0 and {integrator.stability_limit:.4g} for "{integrator.name}", got {eta:.4g}: '
            "take more steps of a smaller dt."
        )
    if eta > 1 and integrator.stability_limit < math.inf:
        warnings.warn(
            f"eta is {eta:.4g}, above 1: errors may grow by about (eta / (2 - eta)) a layer before they shrink.",
            stacklevel=4,
        )


def _check_dynamics(integrator: Integrator, problem: RelaxationProblem, dt: float) -> None:
    """Refuse a step at which a unit with dynamics of its own does not decay: R(dt lambda) of each mode."""
    if integrator.stability_limit == math.inf:
        return
    for name, dynamics in problem.dynamics.items():
        for mode in np.linalg.eigvals(np.asarray(dynamics.A)):
            if abs(integrator.transition(np.array([[mode]]), dt)[0, 0]) >= 1:
                raise ActrelaxError(
                    f'dt {dt:.4g} is too large for the units of {name!r} under "{integrator.name}": take a smaller one.'
                )


def _whole_steps(dt: float, steps: int | None, duration: float | None) -> int:
    if duration is None:
        return 100 if steps is None else whole_number("steps", steps, least=0)
    if not (is_number(duration) and 0 <= duration < math.inf):
        raise ActrelaxError(f"duration must be a number, 0 or more, got {duration!r}.")
    steps = round(duration / dt)
    if not math.isclose(steps * dt, duration, rel_tol=1e-9):
        raise ActrelaxError(f"duration must be a whole number of dt, got {duration:g} with dt {dt:g}.")
    return steps
