"""The SciPy engine: the problem as a vector field over sparse matrices, by `solve_ivp` or by our own fixed steps.

Always in float64 on the CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp

from actrelax.models.engines.divergence import on_the_way, refuse_non_finite
from actrelax.models.engines.task import Task
from actrelax.models.errors import ActrelaxError, DivergenceError
from actrelax.models.flat import FlatProblem, Vector
from actrelax.models.integrators import Integrator
from actrelax.models.problem import RelaxationProblem, State
from actrelax.models.recording import populations
from actrelax.models.schedule import whole_number
from actrelax.models.trajectory import Status, Trajectory
from actrelax.models.units import Variables

SPARSE_JACOBIAN = ("Radau", "BDF")
"""Implicit methods that take a sparse Jacobian; LSODA takes none, and approximates it."""
SMALLEST_RTOL = 100 * np.finfo(float).eps
"""Below it SciPy puts its own."""


def unsupported(problem: RelaxationProblem, integrator: Integrator) -> str | None:
    """Return None, or one sentence that says what SciPy can't do here."""
    if integrator.engine not in (None, "scipy"):
        return f'"{integrator.name}" is a method of another engine.'
    if integrator.name == "exact":
        return 'the law is evaluated by PyTorch: use that engine, or "scipy:DOP853" with a small rtol.'
    if problem.is_noisy:
        return "noise is for the engines torch and brian2."
    if problem.delay.times:
        return "delays are for the engines torch and brian2."
    if problem.is_continuous:
        return "weights that change while it relaxes are for relax_continuously; here they are held."
    return None


@torch.no_grad()
def solve(
    task: Task,
    rtol: float | None = None,
    atol: float | None = None,
    max_evaluations: int | None = None,
) -> Trajectory:
    """Integrate.

    Parameters
    ----------
    task : Task
    rtol, atol : float, optional
        Local error that adaptive methods allow, relative and absolute, 1e-8 and 1e-12 unless given; atol well below
        the smallest gradients.
    max_evaluations : int, optional
        Of the vector field, by adaptive methods, 100,000 unless given: with relu and current gains they stall at the
        kinks.

    Raises
    ------
    ActrelaxError
        For options out of range or of no use, or if a method gives up, or reaches the limit on evaluations.
    DivergenceError
        If a population becomes non-finite. Of adaptive methods its trajectory ends with the last step that was
        accepted, and has recorded the start only.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what becomes of them is looked at
        if task.integrator.engine == "scipy":
            return _adaptive(task, _Limits.given(rtol, atol, max_evaluations))
        given = {"rtol": rtol, "atol": atol, "max_evaluations": max_evaluations}
        unused = [name for name, value in given.items() if value is not None]
        if unused:
            raise ActrelaxError(f'"{task.integrator.name}" takes fixed steps: leave out {" and ".join(unused)}.')
        return _stepped(task)


@dataclass(frozen=True)
class _Limits:
    """What adaptive methods are held to."""

    rtol: float
    atol: float
    evaluations: int

    @classmethod
    def given(cls, rtol: float | None, atol: float | None, evaluations: int | None) -> _Limits:
        rtol, atol = 1e-8 if rtol is None else rtol, 1e-12 if atol is None else atol
        if not SMALLEST_RTOL <= rtol < 1:
            raise ActrelaxError(f"rtol must lie between {SMALLEST_RTOL:.3g} and 1, got {rtol:g}.")
        if not 0 <= atol < np.inf:
            raise ActrelaxError(f"atol must be 0 or positive, got {atol:g}.")
        most = 100_000 if evaluations is None else whole_number("max_evaluations", evaluations, least=1)
        return cls(rtol, atol, most)


def _stepped(task: Task) -> Trajectory:
    """Take the steps of one of our own integrators; a look at each state costs little here."""
    flat = FlatProblem(task.problem)
    state, settled, step = flat.initial_state(), False, 0
    tensors = flat.as_tensors(state)
    task.record(0, tensors)
    refuse_non_finite(task, 0, tensors)
    for step in range(1, task.grid.steps + 1):
        state = task.integrator.step(flat, state, task.grid.dt)
        previous, tensors = tensors, flat.as_tensors(state)
        refuse_non_finite(task, step, tensors, previous)
        task.record(step, tensors)
        settled = task.has_settled(previous, tensors)
        if settled:
            break
    return task.outcome(task.status(settled), tensors, step)


def _adaptive(task: Task, limits: _Limits) -> Trajectory:
    method = task.integrator.name.partition(":")[2]
    flat = FlatProblem(task.problem)
    start = flat.initial_state()
    tensors = flat.as_tensors(start)
    task.record(0, tensors)
    refuse_non_finite(replace(task, check_finite=True), 0, tensors)  # SciPy takes nothing else
    field = _Field(task, flat, limits.evaluations, flat.joined(start))
    end, at_rest, events = task.grid.steps * task.grid.dt, False, [field.passes]
    if task.stop_change is not None:
        event = _equilibrium(flat, field, task.stop_change, task.grid.dt)
        at_rest = event(0.0, flat.joined(start)) <= 0  # it only fires when it is crossed
        events.append(event)
    options: dict[str, Any] = {"rtol": limits.rtol, "atol": limits.atol, "dense_output": True, "events": events}
    if method in SPARSE_JACOBIAN:
        options["jac"] = lambda t, y: flat.jacobian(flat.split(y)).tocsc()
    solution = _solved(field, 0.0 if at_rest else end, method, options)
    settled, reached = at_rest or solution.status == 1, float(solution.t[-1])
    steps = int(np.ceil(reached / task.grid.dt - 1e-9)) if settled else task.grid.steps

    final = flat.as_tensors(flat.split(solution.y[:, -1]))

    def state_at(time: float) -> State:
        return final if time == reached else flat.as_tensors(flat.split(solution.sol(time)))

    def at(time: float) -> State:
        if not 0 <= time <= reached:
            raise ActrelaxError(f"this relaxation is known from 0 to {reached:g}, not at {time:g}.")
        return populations(task.problem, state_at(time))

    for step in range(1, steps + 1):
        if task.recording.is_due(step):
            time = min(task.time(step), reached)
            task.recording.keep(time, state_at(time))
    applications = field.evaluations * len(task.problem.feedback_projections)
    return task.outcome(task.status(settled), final, steps, applications, at=at, ended=reached)


def _solved(field: _Field, end: float, method: str, options: Mapping[str, Any]) -> Any:
    """Run solve_ivp, and read how it ended."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # how LSODA gives up; the others' linear algebra raises
            solution = solve_ivp(field, (0.0, end), field.reached[1], method, **options)
    except (UserWarning, RuntimeError) as problem:
        if isinstance(problem, RuntimeError) and "singular" not in str(problem):
            raise  # not SciPy's
        said = str(problem).rstrip(".")
        raise ActrelaxError(f"SciPy's {method} gave up at t = {field.reached[0]:.4g}: {said}.") from None
    if not solution.success:
        raise ActrelaxError(f"SciPy's {method} gave up at t = {solution.t[-1]:.4g}: {solution.message}")
    return solution


class _Field:
    """The vector field as SciPy wants it: it counts, and looks for what is not finite.

    evaluations  so far; reached  the time and the variables that were accepted last
    """

    def __init__(self, task: Task, flat: FlatProblem, most: int, start: Vector) -> None:
        self.task, self.flat, self.most = task, flat, most
        self.evaluations = 0
        self.reached = 0.0, start

    def __call__(self, t: float, y: Vector) -> Vector:
        if self.evaluations >= self.most:
            raise ActrelaxError(
                f"no end in sight at t = {t:.4g} after {self.most:,} evaluations: with relu and current gains take "
                "fixed steps, elsewhere raise max_evaluations or rtol."
            )
        rates = self.of(self.flat.split(y))
        for name, unit in self.flat.units.items():
            if not all(np.isfinite(rates[variable]).all() for variable in unit.variables):
                raise self._divergence(name, t)
        return self.flat.joined(rates)

    def of(self, state: Variables) -> Variables:
        """Return the rate of each variable."""
        self.evaluations += 1
        return self.flat.vector_field(state)

    def passes(self, t: float, y: Vector) -> float:
        """An event that never happens: SciPy shows it each step that it has accepted."""
        self.reached = t, y.copy()
        return 1.0

    def _divergence(self, population: str, t: float) -> DivergenceError:
        task, (time, y) = self.task, self.reached
        last = task.outcome(
            Status.DIVERGED,
            self.flat.as_tensors(self.flat.split(y)),
            int(time / task.grid.dt),
            self.evaluations * len(task.problem.feedback_projections),
            ended=time,
        )
        step = max(1, int(np.ceil(t / task.grid.dt)))
        return DivergenceError(on_the_way(population, step, task.grid.steps), last)


def _equilibrium(flat: FlatProblem, field: _Field, bound: float, dt: float) -> Any:
    """Return an event: the largest change over dt, relative to each population's largest activity, is below a bound."""

    def excess(t: float, y: Vector) -> float:
        state = flat.split(y)
        rates = field.of(state)
        changes = [1e-300]
        for unit in flat.units.values():
            scale = max(float(np.abs(state[v]).max()) for v in unit.variables)
            changes += [dt * float(np.abs(rates[v]).max()) / max(scale, 1e-300) for v in unit.variables]
        return float(np.log(max(changes) / bound))

    excess.terminal = True  # type: ignore[attr-defined]
    excess.direction = -1  # type: ignore[attr-defined]
    return excess
