"""The Brian2 engine: populations and synapses in a neural simulator, a batch of samples as blocks of one group.

`models.brian2.build` makes the same simulation for users who add objects of their own. In float64.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import brian2 as b2
import numpy as np
import torch
from brian2.core.base import BrianObjectException

from actrelax.models.engines.brian2.build import UNIT, Simulation, build, own_variables
from actrelax.models.engines.brian2.codegen import at_runtime, generating, target_named
from actrelax.models.engines.brian2.support import method_of
from actrelax.models.engines.brian2.support import unsupported as unsupported
from actrelax.models.engines.divergence import is_finite, refuse_non_finite
from actrelax.models.engines.request import SolveRequest
from actrelax.models.engines.sparse_problem import SparseProblem
from actrelax.models.problem import State
from actrelax.models.results import Trajectory


def solve(request: SolveRequest, codegen: str = "numpy") -> Trajectory:
    """Run.

    Parameters
    ----------
    request : SolveRequest
    codegen : str, default "numpy"
        A target of Brian2: what it offers here, numpy always; or "cpp_standalone", which compiles a program and runs
        it. Compilers take up to a minute the first time, Brian2 keeps what they made.

    Raises
    ------
    ActrelaxError
        For a target that is not there.
    DivergenceError
        If a population becomes non-finite.
    """
    seed = _seed(request)
    if codegen == "cpp_standalone" and request.grid.steps > 0:
        from actrelax.models.engines.brian2.standalone import run_standalone

        _announce("a program of its own")
        return _replayed(request, run_standalone(request, method_of(request.integrator), seed))
    target = "numpy" if codegen == "cpp_standalone" else target_named(codegen)
    at_runtime()
    if target != "numpy":
        _announce(target)
    watch = _Watch(request, looks=request.stop_change is not None)
    _run(request, watch, target, seed)
    if request.check_finite and not is_finite(request.problem.activities(watch.state)):
        request.recording.forget()
        _run(request, _Watch(request, looks=True), target, seed)  # once more, to say where
    return request.outcome(request.status(watch.settled), watch.state, watch.step)


@functools.cache
def _announce(target: str) -> None:
    """Say, once, what takes so long."""
    print(f"Brian2 compiles for {target}, where it has not done so before.", file=sys.stderr)


class _Watch:
    """What looks at the simulation while it runs.

    request   whose recording it feeds
    looks  at every step, to see whether it has settled, or where it goes wrong
    """

    def __init__(self, request: SolveRequest, looks: bool) -> None:
        self.request, self.looks = request, looks
        self.step, self.state, self.settled = 0, State(), False
        self.flat = SparseProblem(request.problem)

    @property
    def every(self) -> int | None:
        """Steps between looks; None for no look before the end."""
        if self.looks:
            return 1
        return self.request.recording.every if self.request.recording.recorder is not None else None

    def look(self, state: State, step: int) -> bool:
        """Take a state in; return whether to stop."""
        previous, self.step, self.state = self.state, step, state
        if self.looks:
            refuse_non_finite(self.request, step, self.state, previous if step else None)
        self.request.record(step, self.state)
        self.settled = self.request.has_settled(previous, self.state)
        return self.settled


def read(flat: SparseProblem, simulation: Simulation) -> State:
    """Return all variables of a simulation as they are now, in the problem's shapes."""
    variables = own_variables(flat.problem, simulation)
    return flat.as_tensors({v: np.array(getattr(group, own)) for v, (group, own) in variables.items()})


def _run(request: SolveRequest, watch: _Watch, target: str, seed: int | None) -> None:
    grid = request.grid
    with generating(target), _seeded(seed):
        if grid.steps == 0:
            watch.look(watch.flat.as_tensors(watch.flat.split(watch.flat.initial_state)), 0)
            return
        simulation = build(request.problem, method_of(request.integrator), dt=grid.dt)
        if watch.every is not None:
            simulation.network.add(_looking(watch, simulation, grid.dt))
        try:
            simulation.network.run(grid.steps * grid.dt * UNIT, namespace={})
        except BrianObjectException as error:  # what users' own functions raise arrives as it is
            raise (error.__cause__ or error) from None
        reached = round(float(simulation.network.t / UNIT) / grid.dt)
        if not watch.settled and reached < grid.steps:  # Brian2 ends a run at Ctrl-C without a word
            raise KeyboardInterrupt
        if not watch.settled:
            watch.look(read(watch.flat, simulation), grid.steps)


def _looking(watch: _Watch, simulation: Simulation, dt: float) -> Any:
    assert watch.every is not None
    every = watch.every
    clock = simulation.clock if every == 1 else b2.Clock(every * dt * UNIT, name="actrelax_looks")

    def look() -> None:
        if watch.look(read(watch.flat, simulation), round(float(clock.t / UNIT) / dt)):
            simulation.network.stop()

    return b2.NetworkOperation(look, clock=clock, when="start", order=-1, name="actrelax_watch")


def _replayed(request: SolveRequest, states: Iterator[tuple[int, State]]) -> Trajectory:
    """Look at the states of a run that is over, as if it were under way."""
    settled, step, state = False, 0, State()
    for now, found in states:
        previous, step, state = state, now, found
        refuse_non_finite(request, step, state, previous if step else None)
        request.record(step, state)
        settled = request.has_settled(previous, state)
        if settled:
            break
    return request.outcome(request.status(settled), state, step)


def _seed(request: SolveRequest) -> int | None:
    """Return what Brian2 draws its noise from; None without noise."""
    if not request.problem.is_noisy:
        return None
    device = "cpu" if request.generator is None else request.generator.device
    return int(torch.randint(2**31 - 1, (1,), generator=request.generator, device=device))


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Seed Brian2, whose runtime draws from NumPy's global generator, and leave that as it was."""
    before = np.random.get_state()  # noqa: NPY002
    if seed is not None:
        b2.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
