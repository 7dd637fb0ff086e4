"""What an engine is asked to do: everything `solve` was given, checked and resolved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from actrelax.models.closed_form.law import applications
from actrelax.models.engines.steps import Schedule
from actrelax.models.integrators import Integrator
from actrelax.models.problem import RelaxationProblem, State
from actrelax.models.results import Status, Trajectory
from actrelax.models.results.recording import History, populations
from actrelax.models.results.trajectory import time_after


@dataclass(frozen=True)
class SolveRequest:
    """One relaxation to be run.

    engine        its name
    stop_change   settle when no population changes more in a step, relative to its largest activity; None: don't ask
    check_finite  whether to look for nan and inf at the end
    generator     what noise is drawn from; torch's global one unless given
    options       those of the engine, as they were given
    """

    engine: str
    problem: RelaxationProblem
    integrator: Integrator
    grid: Schedule
    recording: History
    stop_change: float | None = None
    check_finite: bool = True
    generator: torch.Generator | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def time(self, step: int) -> float:
        """Return when a step ends."""
        return time_after(step, self.grid.dt)

    def record(self, step: int, state: State) -> None:
        """Keep a state if it is one of those that are kept."""
        if self.recording.is_due(step):
            self.recording.keep(self.time(step), state)

    def has_settled(self, previous: State, state: State) -> bool:
        """Whether the step between these states was small enough to stop."""
        bound = self.stop_change
        if bound is None or not previous:
            return False
        groups = [unit.variables for unit in self.problem.units.values()]
        groups += [(v,) for v in state if not any(v in group for group in groups)]  # delay lines
        return all(_has_settled(previous, state, group, bound) for group in groups)

    def status(self, settled: bool) -> Status:
        """Return how a relaxation ended that did not diverge."""
        if self.grid.settles is not None:
            settled = self.grid.settles
        elif self.stop_change is None:
            return Status.COMPLETED
        return Status.SETTLED if settled else Status.NOT_SETTLED

    def outcome(
        self, status: Status, state: State, steps: int, applications: int | None = None, **more: object
    ) -> Trajectory:
        """Collect what `solve` returns; the work is that of the steps unless given."""
        work = steps * work_per_step(self.problem, self.integrator) if applications is None else applications
        trajectory = Trajectory(
            problem=self.problem,
            integrator=self.integrator.name,
            engine=self.engine,
            dt=self.grid.dt,
            steps=steps,
            status=status,
            final=populations(self.problem, state),
            times=tuple(self.recording.times),
            recorded=self.recording.recorded(),
            feedback_applications=work,
            state=state,
            units=self.recording.units,
            options=self.options,
            **more,  # type: ignore[arg-type]
        )
        self.recording.finish(trajectory)
        return trajectory


def work_per_step(problem: RelaxationProblem, integrator: Integrator) -> int:
    """Return how often one step carries feedback through a projection."""
    if integrator.stages is None:
        return applications(problem)
    return integrator.stages * len(problem.feedback_projections)


def _has_settled(previous: State, state: State, variables: Sequence[str], bound: float) -> bool:
    """Whether no variable changed by more than the bound, relative to the largest of them."""
    scale = max(state[v].abs().amax() for v in variables)
    return all(bool((state[v] - previous[v]).abs().amax() <= bound * scale) for v in variables)
