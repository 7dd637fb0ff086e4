"""The SciPy engine: the problem as a vector field over sparse matrices, by `solve_ivp` or by our own fixed steps.

Always in float64 on the CPU.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp

from actrelax.models.engines.task import Task, at_the_start, first_bad, is_finite, on_the_way
from actrelax.models.errors import ActrelaxError, DivergenceError
from actrelax.models.flat import FlatProblem, Vector
from actrelax.models.integrators import Integrator
from actrelax.models.problem import RelaxationProblem, State
from actrelax.models.trajectory import Status, Trajectory
from actrelax.models.units import Variables

SPARSE_JACOBIAN = ("Radau", "BDF")
"""Implicit methods that take a sparse Jacobian; LSODA takes none, and approximates it."""


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
    rtol: float = 1e-8,
    atol: float = 1e-12,
    max_evaluations: int = 100_000,
) -> Trajectory:
    """Integrate.

    Parameters
    ----------
    task : Task
    rtol, atol : float, default 1e-8 and 1e-12
        Local error that adaptive methods allow, relative and absolute; atol well below the smallest gradients.
    max_evaluations : int, default 100_000
        Of the vector field, by adaptive methods: with relu and current gains they stall at the kinks.

    Raises
    ------
    ActrelaxError
        If a method gives up, or reaches the limit on evaluations.
    DivergenceError
        If a population becomes non-finite.
    """
    if task.integrator.engine == "scipy":
        return _adaptive(task, rtol, atol, max_evaluations)
    return _stepped(task)


def _stepped(task: Task) -> Trajectory:
    """Take the steps of one of our own integrators; a look at each state costs little here."""
    flat = FlatProblem(task.problem)
    state, settled, step = flat.initial_state(), False, 0
    tensors = flat.as_tensors(state)
    _check(task, tensors, 0)
    task.record(0, tensors)
    for step in range(1, task.grid.steps + 1):
        state = task.integrator.step(flat, state, task.grid.dt)
        previous, tensors = tensors, flat.as_tensors(state)
        _check(task, tensors, step, previous)
        task.record(step, tensors)
        settled = task.has_settled(previous, tensors)
        if settled:
            break
    return task.outcome(task.status(settled), tensors, step)


def _check(task: Task, state: State, step: int, previous: State | None = None) -> None:
    if not task.check_finite or is_finite(task.problem.activities(state)):
        return
    bad = first_bad(task.problem, state)
    assert bad is not None
    if previous is None:
        raise DivergenceError(at_the_start(bad), task.outcome(Status.DIVERGED, state, 0))
    reached = task.outcome(Status.DIVERGED, previous, step - 1)
    raise DivergenceError(on_the_way(bad, step, task.grid.steps), reached)


def _adaptive(task: Task, rtol: float, atol: float, max_evaluations: int) -> Trajectory:
    method = task.integrator.name.partition(":")[2]
    flat = FlatProblem(task.problem)
    start = flat.initial_state()
    _check(task, flat.as_tensors(start), 0)
    field = _Field(flat, max_evaluations)
    end = task.grid.steps * task.grid.dt
    options: dict[str, Any] = {"rtol": rtol, "atol": atol, "dense_output": True}
    if method in SPARSE_JACOBIAN:
        options["jac"] = lambda t, y: flat.jacobian(flat.split(y)).tocsc()
    if task.stop_change is not None:
        event = _equilibrium(flat, field, task.stop_change, task.grid.dt)
        if event(0.0, flat.joined(start)) <= 0:  # it only fires when it is crossed
            end = 0.0
        options["events"] = event
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # options that a method does not know
        solution = solve_ivp(field, (0.0, end), flat.joined(start), method, **options)
    if not solution.success:
        raise ActrelaxError(f"SciPy's {method} gave up at t = {solution.t[-1]:.4g}: {solution.message}")
    settled, reached = solution.status == 1 or end == 0, float(solution.t[-1])
    steps = int(np.ceil(reached / task.grid.dt - 1e-9)) if settled else task.grid.steps

    def at(time: float) -> State:
        return flat.as_tensors(flat.split(solution.sol(time)))

    for step in range(steps + 1):
        if task.recording.is_due(step):
            task.recording.keep(min(task.time(step), reached), at(min(task.time(step), reached)))
    final = flat.as_tensors(flat.split(solution.y[:, -1]))
    applications = field.evaluations * len(task.problem.feedback_projections)
    return task.outcome(task.status(settled), final, steps, applications, at=at)


@dataclass
class _Field:
    """The vector field as SciPy wants it, counting."""

    flat: FlatProblem
    most: int
    evaluations: int = 0

    def __call__(self, t: float, y: Vector) -> Vector:
        self.evaluations += 1
        if self.evaluations > self.most:
            raise ActrelaxError(
                f"no end in sight at t = {t:.4g} after {self.most:,} evaluations: with relu and current gains take "
                "fixed steps, elsewhere raise max_evaluations or rtol."
            )
        return self.flat.joined(self.of(self.flat.split(y)))

    def of(self, state: Variables) -> Variables:
        return self.flat.vector_field(state)


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
