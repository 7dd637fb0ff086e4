"""The SciPy engine: `scipy.integrate.solve_ivp` on a problem's sparse vector field, in float64 on the CPU."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import integrate, sparse

from actrelax.models._names import is_number
from actrelax.models.engines.options import SciPyOptions
from actrelax.models.engines.request import SolveRequest, divergence_message, refuse_non_finite
from actrelax.models.engines.schedule import Schedule
from actrelax.models.engines.sparse_forward import refused, sparse_system
from actrelax.models.engines.sparse_system import SparseSystem, Vector
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Integrator
from actrelax.models.problem import InitialValueProblem, State
from actrelax.models.results import DivergenceError, Status, Trajectory
from actrelax.models.results.recording import populations

SPARSE_JACOBIAN = ("Radau", "BDF")
"""Implicit methods that take a sparse Jacobian; LSODA approximates its own."""


def unsupported(problem: InitialValueProblem, integrator: Integrator) -> str | None:
    """Return None, or one sentence that says why SciPy can't run the problem."""
    if integrator.engine is None:
        return 'SciPy runs its own methods only: pass one, such as "RK45", or engine="torch".'
    if integrator.engine != "scipy":
        return f'"{integrator.name}" is a method of another engine.'
    return refused(problem)


@torch.no_grad()
def solve(request: SolveRequest) -> Trajectory:
    """Integrate with an adaptive method, and record states at the end.

    Raises
    ------
    ActrelaxError
        If the method fails or reaches the limit on evaluations.
    DivergenceError
        If a population becomes non-finite; its trajectory ends with the last accepted step.
    """
    options = request.options
    assert isinstance(options, SciPyOptions)
    system = sparse_system(request.problem)
    start = system.as_tensors(system.split(system.initial_state))
    request.record(0, start)
    checked = replace(request, options=replace(options, check_finite=True))  # SciPy accepts finite values only
    refuse_non_finite(checked, 0, start)
    if options.atol == 0 and not system.initial_state.all():
        raise ActrelaxError("SciPy can't choose a step if activities and atol are 0: pass atol > 0.")
    run = _Run(request, system, options)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the field checks for non-finite values
        return run.trajectory()


@dataclass(frozen=True)
class DenseOutput:
    """Time -> population -> (batch, *population.shape), at and between the steps; each call returns new tensors.

    problem   the problem
    solution  the interpolants of all steps
    end       the time of the last step
    """

    problem: InitialValueProblem
    solution: integrate.OdeSolution
    end: float

    def __call__(self, time: float) -> State:
        time = self.problem.time("time", time)
        if not (is_number(time) and 0 <= time <= self.end):
            raise ActrelaxError(f"time must lie between 0 and {self.end:g}, the end of the relaxation, got {time}.")
        system = sparse_system(self.problem)
        state = system.as_tensors(system.split(self.solution(time)))
        return populations(self.problem, state)


class _NonFiniteError(Exception):
    """The first population with a non-finite rate, and the time."""


class _Field:
    """The vector field and its Jacobian in the form that SciPy calls.

    evaluations  number of evaluations of the field
    running      whether the problem's code is running: an exception then isn't SciPy's
    time, y      end of the last accepted step
    steps        number of accepted steps
    """

    def __init__(self, system: SparseSystem, method: str, limit: int) -> None:
        self.system, self.method, self.limit = system, method, limit
        self.evaluations, self.running = 0, False
        self.time, self.y, self.steps = 0.0, system.initial_state, 0

    def __call__(self, time: float, y: Vector) -> Vector:
        self.running = True
        if self.evaluations >= self.limit:
            stiff = "" if self.method in (*SPARSE_JACOBIAN, "LSODA") else "for a stiff problem Radau, BDF or LSODA, "
            raise ActrelaxError(
                f"stopped at t = {time:.4g} after {self.limit:,} evaluations: with relu and current gains "
                f"take fixed steps, {stiff}otherwise raise max_evaluations or rtol."
            )
        self.evaluations += 1
        rates = self.system.vector_field(y)
        if not np.isfinite(rates).all():
            by_variable, units = self.system.split(rates), self.system.problem.units
            bad = [
                name for name, unit in units.items() for v in unit.variables if not np.isfinite(by_variable[v]).all()
            ]
            raise _NonFiniteError(bad[0], time)
        self.running = False
        return rates

    def jacobian(self, time: float, y: Vector) -> sparse.csc_array:
        self.running = True
        result = self.system.jacobian(y).tocsc()
        self.running = False
        return result

    def accept(self, time: float, y: Vector) -> float:
        """Store an accepted step, as an event that never fires: `solve_ivp` evaluates events at every step."""
        self.steps += int(time > self.time)
        self.time, self.y = time, y.copy()
        return 1.0


@dataclass(frozen=True)
class _Settling:
    """The event that ends the integration: no variable changes by more than the schedule's bounds over dt.

    Changes are relative to the largest activity of the population.
    """

    field: _Field
    grid: Schedule
    terminal = True
    direction = -1

    def __call__(self, time: float, y: Vector) -> float:
        """Return the logarithm of the largest change over its bound."""
        system = self.field.system
        state, rates = system.split(y), system.split(self.field(time, y))
        assert self.grid.stop_change is not None
        changes = [1e-300]
        for name, unit in system.problem.units.items():
            bound = system.per_neuron(name, self.grid.bounds.get(name, self.grid.stop_change))
            scale = max(1e-300, *(float(np.abs(state[v]).max()) for v in unit.variables))
            changes += [self.grid.dt * float(np.abs(rates[v] / bound).max()) / scale for v in unit.variables]
        return float(np.log(max(changes)))


@dataclass(frozen=True)
class _Run:
    """One integration and its recording.

    options  the request's options, typed as SciPy's
    """

    request: SolveRequest
    system: SparseSystem
    options: SciPyOptions

    def trajectory(self) -> Trajectory:
        """Integrate and return the trajectory."""
        request, dt, points = self.request, self.request.grid.dt, self.request.grid.steps
        field = self._field()
        stopping = [] if request.grid.stop_change is None else [_Settling(field, request.grid)]
        try:
            settled = any(event(0.0, field.y) <= 0 for event in stopping)
            result = self._integrate(field, 0.0 if settled else request.time(points), stopping)
        except _NonFiniteError as error:
            raise self._divergence(field, *error.args) from None
        end, y = field.time, field.y
        if stopping and result.t_events[1].size:
            settled, end, y = True, float(result.t_events[1][-1]), result.y_events[1][-1]
        if settled:
            points = min(points, int(np.ceil(end / dt - 1e-9)))
        self._record(result, before=points)
        if points > 0 and request.recording.is_due(points):
            request.recording.keep(end, self._tensors(y))
        at = DenseOutput(request.problem, result.sol, end) if self.options.dense else None
        return self._outcome(request.status(settled), field, end, y, at=at)

    def _field(self) -> _Field:
        return _Field(self.system, self.request.integrator.method, self.options.max_evaluations)

    def _integrate(self, field: _Field, end: float, stopping: list[_Settling]) -> Any:
        """Return the result of `solve_ivp` with the states to record."""
        options: dict[str, Any] = {"rtol": self.options.rtol, "atol": self.options.atol}
        options |= {"dense_output": self.options.dense, "events": [field.accept, *stopping]}
        if field.method in SPARSE_JACOBIAN:
            options["jac"] = field.jacobian
        times = [self.request.time(k) for k in self._due(end)]
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "lsoda: ", UserWarning)  # LSODA gives its reason in a warning
            try:
                result = integrate.solve_ivp(field, (0.0, end), field.y, field.method, times, **options)
            except (UserWarning, RuntimeError, ValueError) as error:
                if field.running:
                    raise
                raise _failure(field, error) from None
        if not result.success:
            raise _failure(field, result.message)
        return result

    def _due(self, end: float) -> list[int]:
        """Return the steps to record up to a time, without the start."""
        steps = range(1, self.request.grid.steps + 1)
        return [k for k in steps if self.request.recording.is_due(k) and self.request.time(k) <= end]

    def _record(self, result: Any, before: int) -> None:
        """Record the states of a result up to a step, without that step."""
        for k, y in zip(self._due(np.inf), np.transpose(result.y), strict=False):
            if k < before:
                self.request.recording.keep(self.request.time(k), self._tensors(y))

    def _divergence(self, field: _Field, population: str, time: float) -> DivergenceError:
        """Return the error; its trajectory ends with the last accepted step."""
        grid = self.request.grid
        due = [self.request.time(k) for k in self._due(field.time)]
        for end in [field.time, *reversed(due)] if due else []:  # an exception leaves no result: repeat the steps
            with contextlib.suppress(_NonFiniteError):  # LSODA evaluates rates beyond the end
                self._record(self._integrate(self._field(), end, []), before=grid.steps + 1)
                break
        sentence = divergence_message(population, max(1, int(np.ceil(time / grid.dt))), grid.steps)
        return DivergenceError(sentence, self._outcome(Status.DIVERGED, field, field.time, field.y))

    def _tensors(self, y: Vector) -> State:
        return self.system.as_tensors(self.system.split(y))

    def _outcome(self, status: Status, field: _Field, end: float, y: Vector, **more: object) -> Trajectory:
        work = field.evaluations * len(self.request.problem.carriers)
        return self.request.outcome(status, self._tensors(y), field.steps, work, ended=end, **more)


def _failure(field: _Field, reason: object) -> ActrelaxError:
    return ActrelaxError(f"SciPy's {field.method} failed at t = {field.time:.4g}: {str(reason).rstrip('.')}.")
