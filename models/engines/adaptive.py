"""SciPy's adaptive methods, a step at a time: what is due is recorded after each, and the step is let go."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from scipy import integrate, sparse
from scipy.optimize import brentq

from actrelax.models._names import is_number
from actrelax.models.engines.request import SolveRequest, divergence_message, refuse_non_finite
from actrelax.models.engines.sparse_problem import SparseProblem, Vector
from actrelax.models.engines.steps import whole_number
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem, State
from actrelax.models.problem.unit_dynamics import Variables
from actrelax.models.results import DivergenceError, Status, Trajectory
from actrelax.models.results.recording import populations

SPARSE_JACOBIAN = ("Radau", "BDF")
"""Implicit methods that take a sparse Jacobian; LSODA takes none, and approximates it."""
EPSILON = np.finfo(float).eps
SMALLEST_RTOL = 100 * EPSILON
"""Below it SciPy puts its own."""

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """What adaptive methods are held to."""

    rtol: float
    atol: float
    evaluations: int

    @classmethod
    def given(cls, rtol: float | None, atol: float | None, evaluations: int | None) -> Limits:
        """Check what was chosen, and choose the rest."""
        rtol, atol = 1e-8 if rtol is None else rtol, 1e-12 if atol is None else atol
        if not (is_number(rtol) and SMALLEST_RTOL <= rtol < 1):
            raise ActrelaxError(f"rtol must lie between {SMALLEST_RTOL:.3g} and 1, got {rtol!r}.")
        if not (is_number(atol) and 0 <= atol < np.inf):
            raise ActrelaxError(f"atol must be 0 or positive, got {atol!r}.")
        most = 100_000 if evaluations is None else whole_number("max_evaluations", evaluations, least=1)
        return cls(rtol, atol, most)


@dataclass(frozen=True, eq=False)
class Between:
    """Time -> population -> (batch, *population.shape), new tensors: an adaptive relaxation at and between its steps.

    problem   what was relaxed
    solution  the interpolants of all steps
    end       when it ended
    last      all variables then
    """

    problem: RelaxationProblem
    solution: integrate.OdeSolution
    end: float
    last: Vector

    def __call__(self, time: float) -> State:
        if not 0 <= time <= self.end:
            raise ActrelaxError(f"this relaxation is known from 0 to {self.end:g}, not at {time:g}.")
        flat = SparseProblem(self.problem)
        state = flat.as_tensors(flat.split(self.last if time == self.end else self.solution(time)))
        return {name: x.clone() for name, x in populations(self.problem, state).items()}


def run(request: SolveRequest, limits: Limits, dense: bool) -> Trajectory:
    """Integrate; with `dense`, keep the interpolants of all steps."""
    going = _Run(request, limits, dense)
    start = going.tensors(going.y)
    request.record(0, start)
    refuse_non_finite(replace(request, check_finite=True), 0, start)  # SciPy takes nothing else
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "lsoda: ", UserWarning)  # how LSODA says why it gives up
        going.to_the_end()
    return going.outcome()


class _Field:
    """The vector field and its Jacobian as SciPy wants them.

    diverged     makes the error for a population that has become non-finite on the way to some time
    evaluations  so far
    inside       whether the problem's own functions are at work: what is raised then is not SciPy's
    """

    def __init__(
        self, flat: SparseProblem, method: str, most: int, diverged: Callable[[str, float], ActrelaxError]
    ) -> None:
        self.flat, self.method, self.most, self.diverged = flat, method, most, diverged
        self.evaluations, self.inside = 0, False

    def __call__(self, t: float, y: Vector) -> Vector:
        if self.evaluations >= self.most:
            stiff = "" if self.method in (*SPARSE_JACOBIAN, "LSODA") else "for a stiff problem Radau, BDF or LSODA, "
            raise ActrelaxError(
                f"no end in sight at t = {t:.4g} after {self.most:,} evaluations: with relu and current gains take "
                f"fixed steps, {stiff}elsewhere raise max_evaluations or rtol."
            )
        rates = self.of(self.flat.split(y))
        for name, unit in self.flat.units.items():
            if not all(np.isfinite(rates[variable]).all() for variable in unit.variables):
                raise self.diverged(name, t)
        return self.flat.joined(rates)

    def of(self, state: Variables) -> Variables:
        """Return the rate of each variable."""
        self.evaluations += 1
        self.inside = True
        rates = self.flat.vector_field(state)
        self.inside = False
        return rates

    def jacobian(self, t: float, y: Vector) -> sparse.csc_array:
        self.inside = True
        derivative = self.flat.jacobian(self.flat.split(y)).tocsc()
        self.inside = False
        return derivative


class _Run:
    """One integration.

    t, y     the time and the variables that it has arrived at
    step     how many of the points every dt lie behind it
    settled  whether it has come to rest
    pieces   the time at which each step ended, and its interpolant, where they are kept
    """

    def __init__(self, request: SolveRequest, limits: Limits, dense: bool) -> None:
        self.request, self.limits, self.dense = request, limits, dense
        self.method = request.integrator.method
        self.flat = SparseProblem(request.problem)
        self.field = _Field(self.flat, self.method, limits.evaluations, self._diverged)
        self.t, self.y = 0.0, self.flat.joined(self.flat.initial_state())
        self.step, self.settled = 0, False
        self.pieces: list[tuple[float, integrate.DenseOutput]] = []

    def to_the_end(self) -> None:
        """Take all steps, or those until it has settled."""
        self.settled = self._is_at_rest(self.y)
        if self.settled:
            return
        options: dict[str, Any] = {"rtol": self.limits.rtol, "atol": self.limits.atol}
        if self.method in SPARSE_JACOBIAN:
            options["jac"] = self.field.jacobian
        method, end = getattr(integrate, self.method), self.request.time(self.request.grid.steps)
        solver = self._asked(lambda: method(self.field, 0.0, self.y, end, **options))
        while solver.status == "running" and not self.settled:
            message = self._asked(solver.step)
            if solver.status == "failed":
                raise self._gave_up(message)
            self._arrive(solver)

    def outcome(self) -> Trajectory:
        """Return what has become of it."""
        at = None
        if self.dense:
            times = [0.0, *(time for time, _ in self.pieces)]
            later = self.method in ("BDF", "LSODA")  # where two steps meet solve_ivp reads them from the second
            solution = integrate.OdeSolution(times, [piece for _, piece in self.pieces], alt_segment=later)
            at = Between(self.request.problem, solution, self.t, self.y.copy())
        return self._ended(self.request.status(self.settled), at=at)

    def tensors(self, y: Vector) -> State:
        """Return the variables in the problem's shapes, sharing memory."""
        return self.flat.as_tensors(self.flat.split(y))

    def _arrive(self, solver: integrate.OdeSolver) -> None:
        """Take over the step that was accepted, as far as where it settled, and record what is due in it."""
        interpolant = functools.cache(lambda: self._asked(solver.dense_output))  # DOP853 evaluates for it
        before, self.t, self.y = self.t, float(solver.t), np.array(solver.y)
        if self.dense:
            self.pieces.append((self.t, interpolant()))
        if self._is_at_rest(self.y):
            self.settled = True
            time = self._crossing(interpolant(), before)
            if time < self.t:
                self.t, self.y = time, interpolant()(time)
        self._record(interpolant)

    def _record(self, interpolant: Callable[[], Callable[[float], Vector]]) -> None:
        """Keep the points every dt that now lie behind it; where it has settled is the last of them."""
        request = self.request
        last = request.grid.steps
        if self.settled:
            last = min(last, int(np.ceil(self.t / request.grid.dt - 1e-9)))
        while self.step < last:
            time = self.t if self.settled and self.step + 1 == last else request.time(self.step + 1)
            if time > self.t:
                break
            self.step += 1
            if request.recording.is_due(self.step):
                request.recording.keep(time, self.tensors(self.y if time == self.t else interpolant()(time)))

    def _is_at_rest(self, y: Vector) -> bool:
        return self.request.stop_change is not None and self._excess(y) <= 0

    def _excess(self, y: Vector) -> float:
        """log of the largest change over dt, relative to its population's largest activity, over the bound."""
        state, dt, bound = self.flat.split(y), self.request.grid.dt, self.request.stop_change
        assert bound is not None
        rates = self.field.of(state)
        changes = [1e-300]
        for unit in self.flat.units.values():
            scale = max(float(np.abs(state[v]).max()) for v in unit.variables)
            changes += [dt * float(np.abs(rates[v]).max()) / max(scale, 1e-300) for v in unit.variables]
        return float(np.log(max(changes) / bound))

    def _crossing(self, interpolant: Callable[[float], Vector], before: float) -> float:
        """Return when within the last step the excess fell to zero."""

        def excess(time: float) -> float:
            return self._excess(interpolant(time))

        if excess(self.t) > 0:  # an interpolant need not pass through a step's ends
            return self.t
        if excess(before) <= 0:
            return before
        return float(brentq(excess, before, self.t, xtol=4 * EPSILON, rtol=4 * EPSILON))  # as solve_ivp does

    def _asked(self, action: Callable[[], T]) -> T:
        """Let SciPy do something, and say so if it gives up."""
        try:
            return action()
        except (UserWarning, RuntimeError) as problem:
            if self.field.inside:
                raise
            raise self._gave_up(problem) from None

    def _gave_up(self, said: object) -> ActrelaxError:
        return ActrelaxError(f"SciPy's {self.method} gave up at t = {self.t:.4g}: {str(said).rstrip('.')}.")

    def _diverged(self, population: str, t: float) -> ActrelaxError:
        if np.isnan(t):  # an error of 0/0
            return self._gave_up("it finds no step where activities are 0 and atol is: give an atol above 0")
        step, steps = max(1, int(np.ceil(t / self.request.grid.dt))), self.request.grid.steps
        return DivergenceError(divergence_message(population, step, steps), self._ended(Status.DIVERGED))

    def _ended(self, status: Status, **more: object) -> Trajectory:
        applications = self.field.evaluations * len(self.request.problem.feedback_projections)
        return self.request.outcome(status, self.tensors(self.y), self.step, applications, ended=self.t, **more)
