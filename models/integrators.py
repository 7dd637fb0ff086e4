"""Integrators: one step of a relaxation problem each (THEORY.md section 3).

A step takes a problem, a state (hidden population -> activities) and dt, in the problem's unit of time, and returns
the next state. To relax by hand is therefore a loop::

    state = problem.initial_state()
    for _ in range(100):
        state = INTEGRATORS["euler"].step(problem, state, dt=0.1)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from actrelax.models.problem import RelaxationProblem, State, Tau

Step = Callable[[RelaxationProblem, State, float], State]


@dataclass(frozen=True)
class Integrator:
    """A numerical scheme.

    name            its key in `INTEGRATORS`
    step            (problem, state, dt) -> the state after dt
    order           of convergence as dt -> 0; None for a scheme that does not follow the ODE in time
    stages          evaluations of the feedback in one step
    stability_limit the dt/tau at which a unit without feedback stops to decay
    """

    name: str
    step: Step
    order: int | None
    stages: int
    stability_limit: float


def euler(problem: RelaxationProblem, state: State, dt: float) -> State:
    """Synchronous (Jacobi) Euler, the ODE's explicit Euler: everything from the old values."""
    return {v: problem.approach(v, state, dt / problem.tau_of(v)) for v in problem.relaxing}


def sequential(problem: RelaxationProblem, state: State, dt: float) -> State:
    """Euler's formula in one sweep from the output down, each population reading its targets' new values.

    The papers' loop (Gauss-Seidel). It runs ahead of the ODE's time by O(dt) and is no higher in order.
    """
    state = dict(state)
    for v in problem.relaxing:
        state[v] = problem.approach(v, state, dt / problem.tau_of(v))
    return state


def exponential(problem: RelaxationProblem, state: State, dt: float) -> State:
    """Exact decay with the feedback held for the step: Euler with eta = 1 - exp(-dt/tau)."""
    return {v: problem.approach(v, state, _decayed(dt / problem.tau_of(v))) for v in problem.relaxing}


def heun(problem: RelaxationProblem, state: State, dt: float) -> State:
    """Explicit trapezoidal rule: the slope at the start and at the Euler point, averaged."""
    k1 = problem.vector_field(state)
    k2 = problem.vector_field(_moved(state, k1, dt))
    return _moved(state, {v: (k1[v] + k2[v]) / 2 for v in state}, dt)


def rk4(problem: RelaxationProblem, state: State, dt: float) -> State:
    """The classical fourth-order Runge-Kutta method."""
    k1 = problem.vector_field(state)
    k2 = problem.vector_field(_moved(state, k1, dt / 2))
    k3 = problem.vector_field(_moved(state, k2, dt / 2))
    k4 = problem.vector_field(_moved(state, k3, dt))
    return _moved(state, {v: (k1[v] + 2 * k2[v] + 2 * k3[v] + k4[v]) / 6 for v in state}, dt)


def equilibrium(problem: RelaxationProblem, state: State, dt: float) -> State:
    """The fixed point itself, where gains are frozen: one sweep from the output down with eta = 1 (dt is not used)."""
    state = dict(state)
    for v in problem.relaxing:
        state[v] = problem.feedback(v, state)
    return state


INTEGRATORS: dict[str, Integrator] = {
    integrator.name: integrator
    for integrator in (
        Integrator("euler", euler, order=1, stages=1, stability_limit=2.0),
        Integrator("sequential", sequential, order=1, stages=1, stability_limit=2.0),
        Integrator("heun", heun, order=2, stages=2, stability_limit=2.0),
        # the real root of 1 - z/2 + z^2/6 - z^3/24, where R(-z) = 1 again
        Integrator("rk4", rk4, order=4, stages=4, stability_limit=2.785293563405282),
        Integrator("exponential", exponential, order=1, stages=1, stability_limit=math.inf),
        Integrator("equilibrium", equilibrium, order=None, stages=1, stability_limit=math.inf),
    )
}


def _moved(state: State, slope: State, dt: float) -> State:
    return {v: torch.add(x, slope[v], alpha=dt) for v, x in state.items()}


def _decayed(ratio: Tau) -> Tau:
    return -torch.expm1(-ratio) if isinstance(ratio, Tensor) else -math.expm1(-ratio)
