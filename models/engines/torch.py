"""The PyTorch engine: a batch on its device, step by step or by the closed form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch

from actrelax.models.closed_form import Plan, evaluate_all, plan_applications, plan_of, settled_plan, why_not
from actrelax.models.engines.request import SolveRequest, divergence, is_finite, refuse_non_finite
from actrelax.models.errors import ActrelaxError, warn
from actrelax.models.integrators import TOLERANCE, Integrator, add_noise, equilibrium_by_components, fill_delay_lines
from actrelax.models.problem import InitialValueProblem, State
from actrelax.models.results import DivergenceError, Status, Trajectory


def unsupported(problem: InitialValueProblem, integrator: Integrator) -> str | None:
    """Return None, or one sentence that says why PyTorch can't run the problem."""
    if integrator.engine not in (None, "torch"):
        return f'"{integrator.name}" is a method of another engine.'
    return None


def solve(request: SolveRequest) -> Trajectory:
    """Take the steps, or evaluate their result by the closed form.

    Raises
    ------
    ActrelaxError
        For evaluation="closed-form" if the closed form does not apply.
    DivergenceError
        If a population becomes non-finite; its trajectory ends with the last finite state.
    """
    if request.problem.network.is_recurrent and not request.integrator.takes_time:
        return _solve_components(request)
    plan = plan_for(request)
    return _take_steps(request) if plan is None else _evaluate(request, plan)


def plan_for(request: SolveRequest) -> Plan | None:
    """Return the closed form's plan for a request, or None if the request has to be stepped."""
    if request.engine != "torch" or request.evaluation == "stepped":
        return None
    reason = _why_stepped(request)
    if reason is not None:
        if request.evaluation == "closed-form":
            raise ActrelaxError(f'evaluation="closed-form" can\'t be used here: {reason}')
        return None
    if request.grid.rests:
        return settled_plan(request.problem.network.graph)
    return plan_of(request.problem, request.integrator, dt=request.grid.dt, steps=request.grid.steps)


def _why_stepped(request: SolveRequest) -> str | None:
    if request.recording.spec is not None:
        return "recording needs every step: leave record out, or step the relaxation."
    reason = why_not(request.problem, request.integrator)
    if reason is None and request.grid.stop_change is not None:
        return 'of="change" compares successive steps: pass of="activity", or step the relaxation.'
    return reason


def _evaluate(request: SolveRequest, plan: Plan) -> Trajectory:
    """Return the trajectory by the closed form."""
    state = {name: x.to(request.problem.state_like) for name, x in evaluate_all(request.problem, plan).items()}
    del state[request.problem.network.output]
    if request.options.check_finite and not is_finite(request.problem.activities(state)):
        return _take_steps(request)  # to find the first non-finite step
    work = plan_applications(plan, request.problem.network)
    return request.outcome(request.status(False), state, request.grid.steps, work, evaluation="closed-form")


def _solve_components(request: SolveRequest) -> Trajectory:
    """Return the trajectory that ends with the equilibrium of a network with cycles."""
    problem, tolerance = request.problem, request.grid.stop_change or TOLERANCE
    if request.evaluation == "closed-form":
        plan_for(request)  # which refuses cycles
    start = problem.initial_state()
    request.record(0, start)
    found = equilibrium_by_components(problem, tolerance)
    if request.options.check_finite:
        refuse_non_finite(request, 1, found.state, start)
    request.record(1, found.state)
    settled = found.residual <= tolerance
    if not settled:
        warn(
            f"the equilibrium has a relative residual of {found.residual:.3g}, more than {tolerance:.3g}: step the "
            "relaxation, or pass Steps.until with a larger tolerance."
        )
    status = Status.SETTLED if settled else Status.NOT_SETTLED
    return request.outcome(status, found.state, 1, found.applications, products=found.products)


@torch.no_grad()
def _take_steps(request: SolveRequest) -> Trajectory:
    run = _SteppedRun(request)
    reset_noise = _noise_reset(request) if request.options.check_finite and request.problem.is_noisy else None
    settled, previous = False, State()
    for state in run.states():
        settled = request.has_settled(previous, state)
        if settled:
            break
        previous = state
    if request.options.check_finite and not is_finite(request.problem.activities(run.state)):
        if reset_noise is not None:
            reset_noise()
        raise _divergence(_SteppedRun(request))
    return request.outcome(request.status(settled), run.state, run.step)


@dataclass
class _SteppedRun:
    """One run through the steps, and its current step and state."""

    request: SolveRequest
    step: int = 0
    state: State = field(default_factory=dict)

    def states(self) -> Iterator[State]:
        problem, grid = self.request.problem, self.request.grid
        self._enter(0, fill_delay_lines(problem, problem.initial_state(), grid.dt))
        yield self.state
        noisy = problem.is_noisy
        for step in range(1, grid.steps + 1):
            state = self.request.integrator.step(problem, self.state, grid.dt)
            if noisy:
                state = add_noise(problem, state, grid.dt, self.request.generator)
            self._enter(step, state)
            yield self.state

    def _enter(self, step: int, state: State) -> None:
        self.step, self.state = step, state
        self.request.record(step, state)


def _noise_reset(request: SolveRequest) -> Callable[[], object]:
    """Return a function that resets the noise generator to its current state, to repeat the run."""
    generator, kind = request.generator, request.problem.like.device.type
    if generator is not None:
        return partial(generator.set_state, generator.get_state())
    globally = torch.random if kind == "cpu" else getattr(torch, kind)
    return partial(globally.set_rng_state, globally.get_rng_state())


def _divergence(run: _SteppedRun) -> DivergenceError:
    """Repeat the run with a check of every state, and return the error with the first non-finite step."""
    request = run.request
    request.recording.forget()
    good: State | None = None
    for state in run.states():
        if not is_finite(request.problem.activities(state)):
            break
        good = state
    if request.recording.is_due(run.step) and good is not None:
        request.recording.forget_last()
    return divergence(request, run.step, run.state, good)
