"""The Brian2 engine: one group per population, with one block of neurons per sample; in float64."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import brian2 as b2
import numpy as np
import torch
from brian2.core.base import BrianObjectException

from actrelax.models.engines import Brian2Options
from actrelax.models.engines.brian2.build import UNIT, Simulation, assemble, state_variables
from actrelax.models.engines.brian2.codegen import generating, require_runtime, target_named
from actrelax.models.engines.brian2.support import check_steps, method_of
from actrelax.models.engines.brian2.support import unsupported as unsupported
from actrelax.models.engines.brian2.unused import forgotten_on_error
from actrelax.models.engines.request import SolveRequest, is_finite, refuse_non_finite
from actrelax.models.engines.sparse_forward import sparse_system
from actrelax.models.engines.sparse_system import SparseSystem
from actrelax.models.integrators import fill_delay_lines, shift_delay_lines
from actrelax.models.problem import State
from actrelax.models.results import Trajectory

logger = logging.getLogger(__name__)


def solve(request: SolveRequest) -> Trajectory:
    """Run a request in Brian2.

    Raises
    ------
    ActrelaxError
        For a target that doesn't work on this machine, or a standalone device.
    DivergenceError
        If a population becomes non-finite.
    """
    assert isinstance(request.options, Brian2Options)
    seed = _seed(request)
    target = target_named(request.options.codegen)
    require_runtime()
    check_steps(request.grid.steps)
    if target != "numpy":
        _announce(target)
    watch = _Watch(request, every_step=request.grid.stop_change is not None)
    _run(request, watch, target, seed)
    if request.options.check_finite and not is_finite(request.problem.activities(watch.state)):
        request.recording.forget()
        _run(request, _Watch(request, every_step=True), target, seed)  # run again to find the step
    return request.outcome(request.status(watch.settled), watch.state, watch.step)


@functools.cache
def _announce(target: str) -> None:
    """Log, once per target, that Brian2 may compile."""
    logger.warning("Brian2 compiles code for %s unless it has done so before.", target)


class _Watch:
    """Observer of a running simulation, which records states and can stop the simulation.

    request     the request to run
    every_step  whether to check each step, for settling or divergence
    """

    def __init__(self, request: SolveRequest, every_step: bool) -> None:
        self.request, self.every_step = request, every_step
        self.step, self.state, self.settled = 0, State(), False
        self.lines = State()
        self.flat = sparse_system(request.problem)

    @property
    def every(self) -> int | None:
        """Number of steps between observations; None to observe only the end."""
        if self.every_step:
            return 1
        return self.request.recording.every if self.request.recording.spec is not None else None

    def observe(self, state: State, step: int) -> bool:
        """Check and record the state after a step; return whether to stop."""
        previous, self.step, self.state = self.state, step, state
        if self.every_step:
            refuse_non_finite(self.request, step, self.state, previous if step else None)
        self.request.record(step, self.state)
        self.settled = self._has_settled(previous)
        return self.settled

    def _has_settled(self, previous: State) -> bool:
        """Return whether units and signals on their way have settled; each step has to be observed.

        Brian2 keeps delayed signals in variables of its groups, so they are followed here, from the states.
        """
        if self.request.grid.stop_change is None:
            return False
        problem, before = self.request.problem, self.lines
        if previous:
            self.lines = shift_delay_lines(problem, previous | before)
        else:
            filled = fill_delay_lines(problem, self.state, self.request.grid.dt)
            self.lines = {name: line for name, line in filled.items() if name not in self.state}
        return self.request.has_settled(previous | before, self.state | self.lines)


def _read_state(flat: SparseSystem, simulation: Simulation) -> State:
    """Return the current values of all state variables, in the problem's shapes."""
    variables = state_variables(flat.problem, simulation)
    return flat.as_tensors({v: np.array(getattr(group, own)) for v, (group, own) in variables.items()})


@forgotten_on_error()
def _run(request: SolveRequest, watch: _Watch, target: str, seed: int | None) -> None:
    grid = request.grid
    with generating(target), _seeded(seed):
        if grid.steps == 0:
            watch.observe(watch.flat.as_tensors(watch.flat.split(watch.flat.initial_state)), 0)
            return
        simulation = assemble(request.problem, method_of(request.integrator), grid.dt, monitored={})
        if watch.every is not None:
            simulation.network.add(_observer(watch, watch.every, simulation, grid.dt))
        try:
            simulation.network.run(grid.steps * grid.dt * UNIT, namespace={})
        except BrianObjectException as error:  # raise exceptions of users' functions unchanged
            raise (error.__cause__ or error) from None
        reached = round(float(simulation.network.t / UNIT) / grid.dt)
        if not watch.settled and reached < grid.steps:  # Brian2 ends a run silently at Ctrl-C
            raise KeyboardInterrupt
        if not watch.settled:
            watch.observe(_read_state(watch.flat, simulation), grid.steps)


def _observer(watch: _Watch, every: int, simulation: Simulation, dt: float) -> Any:
    """Return a Brian2 object that calls the watch at every `every`-th step."""
    clock = simulation.clock if every == 1 else b2.Clock(every * dt * UNIT, name="actrelax_looks")

    def observe() -> None:
        if watch.observe(_read_state(watch.flat, simulation), round(float(clock.t / UNIT) / dt)):
            simulation.network.stop()

    return b2.NetworkOperation(observe, clock=clock, when="start", order=-1, name="actrelax_watch")


def _seed(request: SolveRequest) -> int | None:
    """Draw a seed for Brian2's noise from the request's generator; None without noise."""
    if not request.problem.is_noisy:
        return None
    device = "cpu" if request.generator is None else request.generator.device
    return int(torch.randint(2**31 - 1, (1,), generator=request.generator, device=device))


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Seed NumPy's global generator, which Brian2 uses, inside a block, and restore its state afterwards."""
    before = np.random.get_state()  # noqa: NPY002
    if seed is not None:
        b2.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
