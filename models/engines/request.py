"""A resolved call of `solve`, its trajectory, and the error if the relaxation diverges."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor

from actrelax.models.closed_form import predict_applications
from actrelax.models.engines.options import Options
from actrelax.models.engines.schedule import Schedule
from actrelax.models.integrators import Integrator
from actrelax.models.problem import InitialValueProblem, State, Value
from actrelax.models.results import DivergenceError, Status, Trajectory
from actrelax.models.results.recording import History, populations
from actrelax.models.results.trajectory import time_after

Evaluation = Literal["auto", "stepped", "closed-form"]
Agree = Callable[[Tensor], Tensor]
"""Numbers -> their largest values over all processes that share a batch."""


@dataclass(frozen=True)
class SolveRequest:
    """One relaxation to run.

    engine        name of the engine
    grid          step size and number of steps
    recording     values to record, and the records so far
    options       options of the engine
    evaluation    step by step or by the closed form; "auto" chooses
    generator     generator for the noise; None for torch's global generator
    agree         lets processes that share a batch stop together; None for one process
    """

    engine: str
    problem: Any  # a RelaxationProblem or a ForwardProblem
    integrator: Integrator
    grid: Schedule
    recording: History
    options: Options
    evaluation: Evaluation = "auto"
    generator: torch.Generator | None = None
    agree: Agree | None = None

    def time(self, step: int) -> float:
        """Return the time at which a step ends."""
        return time_after(step, self.grid.dt)

    def record(self, step: int, state: State) -> None:
        """Record the state after a step, if the recording is due."""
        if self.recording.is_due(step):
            self.recording.keep(self.time(step), state)

    def has_settled(self, previous: State, state: State) -> bool:
        """Return whether the change between two successive states is small enough to stop."""
        bound = self.grid.stop_change
        if bound is None or (state and not previous):  # before the first step; without units there is nothing to settle
            return False
        units, bounds = self.problem.units, self.grid.bounds
        lines = [v for v in state if not any(v in unit.variables for unit in units.values())]  # delays
        return all(
            change_is_small(previous, state, unit.variables, bounds.get(name, bound), self.agree)
            for name, unit in units.items()
        ) and all(change_is_small(previous, state, (v,), bound, self.agree) for v in lines)

    def status(self, settled: bool) -> Status:
        """Return the final status of a relaxation that has not diverged."""
        if self.grid.settles is not None:
            settled = self.grid.settles
        elif self.grid.stop_change is None:
            return Status.COMPLETED
        return Status.SETTLED if settled else Status.NOT_SETTLED

    def of(self, problem: InitialValueProblem) -> SolveRequest:
        """Return the same request for the problem of another batch."""
        return replace(self, problem=problem, recording=History(problem, self.recording.record, self.recording.about))

    def measured(self) -> SolveRequest:
        """Return the request with the number of steps that its tolerance needs (`Schedule.measured`)."""
        return replace(self, grid=self.grid.measured(self.problem, self.integrator))

    def outcome(
        self, status: Status, state: State, steps: int, applications: int | None = None, **more: object
    ) -> Trajectory:
        """Return the trajectory that ends with `state` after `steps` steps.

        `applications` is the number of feedback applications, by default computed from the steps; `more` holds further
        fields of the trajectory.
        """
        if applications is None:
            stages, problem = self.integrator.stages, self.problem
            each = predict_applications(problem) if stages is None else stages * len(problem.carriers)
            applications = steps * each
        return Trajectory(
            problem=self.problem,
            integrator=self.integrator.name,
            engine=self.engine,
            dt=self.grid.dt,
            steps=steps,
            status=status,
            final=populations(self.problem, state),
            times=tuple(self.recording.times),
            recorded=self.recording.recorded(),
            feedback_applications=applications,
            state=state,
            units=self.recording.units,
            options=self.options.given(),
            arguments=self.recording.arguments,
            **more,  # type: ignore[arg-type]
        )


def change_is_small(
    previous: State, state: State, variables: Sequence[str], bound: Value, agree: Agree | None = None
) -> bool:
    """Return whether all variables changed by at most the bound, relative to the largest magnitude among them.

    With `agree` the samples of all processes count, and each process must call this function.
    """
    scale = reduce(torch.maximum, [state[v].abs().amax() for v in variables])
    change = reduce(torch.maximum, [(state[v] - previous[v]).abs() for v in variables])
    change = change.amax(0) if isinstance(bound, Tensor) else change.amax()
    if agree is not None:
        both = torch.cat([scale.view(1), change.flatten()])
        # a maximum over processes may lose nan; infinity never settles either
        numbers = agree(both.nan_to_num(nan=math.inf, posinf=math.inf))
        scale, change = numbers[0], numbers[1:].view(change.shape)
    return bool((change <= bound * scale).all()) and bool(scale < math.inf)


def is_finite(activities: Mapping[str, Tensor]) -> bool:
    """Return whether all activities are finite."""
    return all(bool(torch.isfinite(x).all()) for x in activities.values())


def refuse_non_finite(request: SolveRequest, step: int, state: State, previous: State | None = None) -> None:
    """Raise an error if an activity is nan or inf after a step; its trajectory ends with the previous state."""
    if request.options.check_finite and not is_finite(request.problem.activities(state)):
        raise divergence(request, step, state, previous)


def divergence(request: SolveRequest, step: int, state: State, previous: State | None = None) -> DivergenceError:
    """Return the error for a state that is non-finite after a step, or at the start if there is no previous state."""
    activities = request.problem.activities(state)
    names = [name for name in request.problem.network.populations if name in activities]
    bad = next(name for name in names if not is_finite({name: activities[name]}))
    if previous is None:
        return DivergenceError(divergence_message(bad, 0, 0), request.outcome(Status.DIVERGED, state, 0))
    sentence = divergence_message(bad, step, request.grid.steps)
    return DivergenceError(sentence, request.outcome(Status.DIVERGED, previous, step - 1))


def divergence_message(population: str, step: int, steps: int) -> str:
    """Return the message for a population that became non-finite during a step, or was so at the start (step 0)."""
    if step == 0:
        return (
            f'population "{population}" is non-finite at the start: look for inf and nan in stimuli, targets and '
            "weights."
        )
    return (
        f'population "{population}" became non-finite at step {step} of {steps}: '
        "lower eta, the learning rate or the scale of the feedback weights."
    )
