"""The PyTorch engine: a batch stepped on its own device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from actrelax.models.engines.divergence import divergence, is_finite
from actrelax.models.engines.task import Task
from actrelax.models.errors import DivergenceError
from actrelax.models.integrators import Integrator
from actrelax.models.problem import RelaxationProblem, State
from actrelax.models.trajectory import Trajectory


def unsupported(problem: RelaxationProblem, integrator: Integrator) -> str | None:
    """Return None, or one sentence that says what PyTorch can't do here."""
    if integrator.engine not in (None, "torch"):
        return f'"{integrator.name}" is a method of another engine.'
    return None


@torch.no_grad()
def solve(task: Task) -> Trajectory:
    """Step the problem."""
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
