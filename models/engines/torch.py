"""The PyTorch engine: a batch stepped on its own device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from actrelax.models.errors import DivergenceError
from actrelax.models.integrators import Integrator
from actrelax.models.problem import RelaxationProblem, State
from actrelax.models.schedule import Schedule
from actrelax.models.trajectory import Status, Trajectory

Recorder = Callable[[State], Mapping[str, Tensor]]


@torch.no_grad()
def solve(
    problem: RelaxationProblem,
    integrator: Integrator,
    grid: Schedule,
    stop_change: float | None,
    recorder: Recorder | None,
    every: int,
    check_finite: bool,
) -> Trajectory:
    """Step the problem; the arguments are those of `actrelax.models.engines.solve`, resolved."""
    march = _March(problem, integrator, grid, recorder, every)
    status = Status.COMPLETED if stop_change is None else Status.NOT_SETTLED
    previous: State = {}
    for state in march.states():
        if stop_change is not None and previous and _settled(previous, state, stop_change):
            status = Status.SETTLED
            break
        previous = state
    if check_finite and not _is_finite(problem.activities(march.state)):
        raise _divergence(_March(problem, integrator, grid, recorder, every))
    return march.trajectory(status)


@dataclass
class _March:
    """One run through the steps, and what it has kept so far."""

    problem: RelaxationProblem
    integrator: Integrator
    grid: Schedule
    recorder: Recorder | None
    every: int
    step: int = 0
    state: State = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    kept: list[Mapping[str, Tensor]] = field(default_factory=list)

    def states(self) -> Iterator[State]:
        self._advance(0, self.problem.initial_state())
        yield self.state
        for step in range(1, self.grid.steps + 1):
            self._advance(step, self.integrator.step(self.problem, self.state, self.grid.dt))
            yield self.state

    def _advance(self, step: int, state: State) -> None:
        self.step, self.state = step, state
        if self.recorder is not None and step % self.every == 0:
            self.times.append(step * self.grid.dt if step else 0.0)
            self.kept.append(self.recorder(self._populations(state)))

    def step_back(self, state: State) -> None:
        """Forget the last step; `state` is the one before."""
        if self.recorder is not None and self.step % self.every == 0:
            self.times.pop()
            self.kept.pop()
        self.step, self.state = self.step - 1, state

    def _populations(self, state: State) -> State:
        """Hidden populations and the clamped output, in topological order."""
        network = self.problem.network
        return {**{name: state[name] for name in network.hidden}, network.output: self.problem.clamped}

    def trajectory(self, status: Status) -> Trajectory:
        names = self.kept[0] if self.kept else {}
        return Trajectory(
            problem=self.problem,
            integrator=self.integrator.name,
            engine="torch",
            dt=self.grid.dt,
            steps=self.step,
            status=status,
            final=self._populations(self.state),
            times=tuple(self.times),
            recorded={name: torch.stack([kept[name] for kept in self.kept]) for name in names},
            feedback_applications=self.step * self.integrator.work(self.problem),
        )


def _settled(previous: State, state: State, bound: float) -> bool:
    return all(bool((x - previous[v]).abs().amax() <= bound * x.abs().amax()) for v, x in state.items())


def _is_finite(activities: Mapping[str, Tensor]) -> bool:
    return all(bool(torch.isfinite(x).all()) for x in activities.values())


def _divergence(march: _March) -> DivergenceError:
    """Step once more, looking at every state, to say where it went wrong; good runs don't pay for that."""
    populations = march.problem.network.populations
    good: State | None = None
    bad: list[str] = []
    for state in march.states():
        activities = march.problem.activities(state)
        bad = [name for name in populations if not _is_finite({name: activities[name]})]
        if bad:
            break
        good = state
    if good is None:
        sentence = (
            f'population "{bad[0]}" is non-finite at the start: look for inf and nan in stimuli, targets and weights.'
        )
    else:
        sentence = (
            f'population "{bad[0]}" became non-finite at step {march.step} of {march.grid.steps}: '
            "lower eta, the learning rate or the scale of the feedback weights."
        )
        march.step_back(good)
    return DivergenceError(sentence, march.trajectory(Status.DIVERGED))
