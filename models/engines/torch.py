"""The PyTorch engine: a batch on its own device, stepped, or by the closed form of its law."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch

from actrelax.models._names import is_number, known
from actrelax.models.closed_form.evaluate import applications, collected, low_rank_plan, plan_of, unstreamable
from actrelax.models.closed_form.plan import Plan, settled_plan
from actrelax.models.engines.divergence import divergence, is_finite
from actrelax.models.engines.request import Task
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Integrator
from actrelax.models.problem import RelaxationProblem, State
from actrelax.models.results import DivergenceError, Trajectory


def unsupported(problem: RelaxationProblem, integrator: Integrator) -> str | None:
    """Return None, or one sentence that says what PyTorch can't do here."""
    if integrator.engine not in (None, "torch"):
        return f'"{integrator.name}" is a method of another engine.'
    return None


Method = Literal["auto", "stepped", "closed-form"]


def solve(task: Task, method: Method = "auto", rank_tolerance: float | None = None) -> Trajectory:
    """Take the steps, or go to their end at once.

    Parameters
    ----------
    task : Task
    method : {"auto", "stepped", "closed-form"}, default "auto"
        The closed form (`streaming`) gives what the steps would give, to rounding, and costs about one feedback pass
        whatever their number. "auto" takes it wherever there is a law and only the end is asked for.
    rank_tolerance : float, optional
        Let the closed form of a chain carry fewer vectors, with an error of about this size in each population,
        relative to the largest of the terms that it adds up. Exact unless given.

    Raises
    ------
    ActrelaxError
        If the closed form is asked for where it does not apply.
    DivergenceError
        If a population becomes non-finite; its trajectory ends with the state before.
    """
    plan = plan_for(task, method, rank_tolerance)
    return _stepped(task) if plan is None else _collected(task, plan)


def plan_for(task: Task, method: Method = "auto", rank_tolerance: float | None = None) -> Plan | None:
    """Return how the closed form goes about the task, or None where it is to be stepped.

    Raises
    ------
    ActrelaxError
        As for `solve`.
    """
    known("method", method, get_args(Method))
    reason = None if method == "stepped" else _why_stepped(task)
    if rank_tolerance is not None and not (is_number(rank_tolerance) and 0 < rank_tolerance < 1):
        raise ActrelaxError(f"rank_tolerance must lie between 0 and 1, got {rank_tolerance!r}.")
    if reason is not None and method == "closed-form":
        raise ActrelaxError(f"the closed form can't be used here: {reason}")
    if method == "stepped" or reason is not None:
        if rank_tolerance is not None:
            raise ActrelaxError(
                f"rank_tolerance belongs to the closed form, and this is stepped: {reason or 'you asked for it.'}"
            )
        return None
    if rank_tolerance is not None:
        return low_rank_plan(task.problem, task.integrator, task.grid.dt, task.grid.steps, rank_tolerance)
    if task.grid.settles:
        return settled_plan(task.problem.network.graph)
    return plan_of(task.problem, task.integrator, dt=task.grid.dt, steps=task.grid.steps)


def _why_stepped(task: Task) -> str | None:
    if task.recording.recorder is not None:
        return "what happens on the way is recorded: step the relaxation."
    if task.stop_change is not None:
        return "it is to stop by the change in a step: step the relaxation."
    return unstreamable(task.problem, task.integrator)


def _collected(task: Task, plan: Plan) -> Trajectory:
    """Keep every population that the closed form delivers."""
    state = {name: x.to(task.problem.moving) for name, x in collected(task.problem, plan).items()}
    del state[task.problem.network.output]
    if task.check_finite and not is_finite(task.problem.activities(state)):
        return _stepped(task)  # which says where
    work = applications(plan, task.problem.network)
    return task.outcome(task.status(False), state, task.grid.steps, work, method="closed-form")


@torch.no_grad()
def _stepped(task: Task) -> Trajectory:
    march = _March(task)
    rewind = _Rewind(task) if task.check_finite and task.problem.is_noisy else None
    settled, previous = False, State()
    for state in march.states():
        settled = task.has_settled(previous, state)
        if settled:
            break
        previous = state
    if task.check_finite and not is_finite(task.problem.activities(march.state)):
        if rewind is not None:
            rewind.back()
        raise _divergence(_March(task))
    return task.outcome(task.status(settled), march.state, march.step)


@dataclass
class _March:
    """One run through the steps, and where it is."""

    task: Task
    step: int = 0
    state: State = field(default_factory=dict)

    def states(self) -> Iterator[State]:
        problem, grid = self.task.problem, self.task.grid
        self._reach(0, problem.initial_state(grid.dt))
        yield self.state
        noisy = problem.is_noisy
        for step in range(1, grid.steps + 1):
            state = self.task.integrator.step(problem, self.state, grid.dt)
            if noisy:
                state = problem.kicked(state, grid.dt, self.task.generator)
            self._reach(step, state)
            yield self.state

    def _reach(self, step: int, state: State) -> None:
        self.step, self.state = step, state
        self.task.record(step, state)


class _Rewind:
    """Where the generator stood, so that a noisy run can be repeated."""

    def __init__(self, task: Task) -> None:
        kind = task.problem.clamped.device.type
        self.generator = task.generator
        self.globally = torch.random if kind == "cpu" else getattr(torch, kind)
        self.state = self.globally.get_rng_state() if self.generator is None else self.generator.get_state()

    def back(self) -> None:
        if self.generator is None:
            self.globally.set_rng_state(self.state)
        else:
            self.generator.set_state(self.state)


def _divergence(march: _March) -> DivergenceError:
    """Step once more, looking at every state, to say where it went wrong; good runs don't pay for that."""
    task = march.task
    task.recording.forget()
    good: State | None = None
    for state in march.states():
        if not is_finite(task.problem.activities(state)):
            break
        good = state
    if task.recording.is_due(march.step) and good is not None:
        task.recording.forget_last()
    return divergence(task, march.step, march.state, good)
