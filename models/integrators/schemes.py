"""Integrators: numerical schemes, each with a function that takes one step (docs/theory.md).

A step takes a problem, a state (hidden population -> activities) and dt, in the problem's unit of time, and returns
the next state. A relaxation is a loop of steps::

    state = problem.initial_state()
    for _ in range(100):
        state = euler(problem, state, dt=0.1)

Steps add no noise: see `noise.add_noise`. Delayed feedback needs Euler's scheme and, before the loop,
`delay_lines.fill_delay_lines`. `Integrator.unsupported` says why a scheme can't solve a problem.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from actrelax.models.integrators.chain import Transition, holding, polynomial, settled, sweep
from actrelax.models.integrators.components import equilibrium_by_components
from actrelax.models.integrators.delay_lines import shift_delay_lines
from actrelax.models.problem import InitialValueProblem, RelaxationProblem, State

Step = Callable[[InitialValueProblem, State, float], State]


@dataclass(frozen=True)
class Integrator:
    """A numerical scheme.

    name            key in `engines.INTEGRATORS`
    step            (problem, state, dt) -> the state after dt
    transition      (M, dt) -> the same step on a chain of single units, dx/dt = M x, as a matrix (docs/theory.md)
    order           of convergence as dt -> 0; None for "exact", "equilibrium" and SciPy's methods
    stages          evaluations of the whole feedback per step; None for "exact" and SciPy's methods
    stability_limit smallest dt/tau at which a unit without feedback no longer decays
    takes_time      whether the result depends on dt
    takes_noise     whether problems may have noise
    takes_delays    whether feedback may be delayed
    refuses         problem -> None, or one sentence with another reason why the scheme can't solve it; optional
    engine          the only engine with this scheme; None for a scheme of this package
    """

    name: str
    step: Step
    transition: Transition
    order: int | None
    stages: int | None
    stability_limit: float
    takes_time: bool = True
    takes_noise: bool = False
    takes_delays: bool = False
    refuses: Callable[[InitialValueProblem], str | None] | None = None
    engine: str | None = None

    def unsupported(self, problem: InitialValueProblem) -> str | None:
        """Return None, or one sentence with the reason why the scheme can't solve the problem."""
        if problem.is_noisy and not self.takes_noise:
            return 'it does not support noise: use "euler", or one of Brian2\'s methods that do.'
        if problem.delay.times and not self.takes_delays:
            return 'it does not support delays: use "euler", or one of Brian2\'s methods.'
        return None if self.refuses is None else self.refuses(problem)

    @property
    def method(self) -> str:
        """Name without the engine."""
        return self.name.rpartition(":")[2]


def euler(problem: InitialValueProblem, state: State, dt: float) -> State:
    """Take a step of explicit Euler, synchronous (Jacobi): all populations read old values."""
    new = shift_delay_lines(problem, state)
    for v, unit in problem.units.items():
        new |= unit.euler(state, problem.unit_input(v, state), dt)
    return new


def sequential(problem: InitialValueProblem, state: State, dt: float) -> State:
    """Take an Euler step in one sweep from the output down, in which populations read their targets' new values.

    The papers' loop (Gauss-Seidel). It runs ahead of the ODE by O(dt); like Euler it has order 1.
    """
    state = dict(state)
    for v, unit in problem.units.items():
        state |= unit.euler(state, problem.unit_input(v, state), dt)
    return state


def exponential(problem: InitialValueProblem, state: State, dt: float) -> State:
    """Take an exact step for constant feedback: Euler with eta = 1 - exp(-dt/tau)."""
    new: State = {}
    for v, unit in problem.units.items():
        new |= unit.exact_step(state, problem.unit_input(v, state), dt)
    return new


def heun(problem: InitialValueProblem, state: State, dt: float) -> State:
    """Take a step of the explicit trapezoidal rule: average the slopes at the start and at the Euler point."""
    k1 = problem.vector_field(state)
    k2 = problem.vector_field(_advance(state, k1, dt))
    return _advance(state, {v: (k1[v] + k2[v]) / 2 for v in state}, dt)


def rk4(problem: InitialValueProblem, state: State, dt: float) -> State:
    """Take a step of the classical fourth-order Runge-Kutta method."""
    k1 = problem.vector_field(state)
    k2 = problem.vector_field(_advance(state, k1, dt / 2))
    k3 = problem.vector_field(_advance(state, k2, dt / 2))
    k4 = problem.vector_field(_advance(state, k3, dt))
    return _advance(state, {v: (k1[v] + 2 * k2[v] + 2 * k3[v] + k4[v]) / 6 for v in state}, dt)


def equilibrium(problem: InitialValueProblem, state: State, dt: float) -> State:
    """Return the fixed point for frozen gains: one sweep from the output down with eta = 1; dt is not used.

    On a network with cycles, the fixed point by components, to a relative residual of 1e-6.
    """
    if problem.network.is_recurrent and isinstance(problem, RelaxationProblem):
        return equilibrium_by_components(problem).state
    state = dict(state)
    for v, unit in problem.units.items():
        state |= unit.fixed_point(problem.unit_input(v, state))
    return state


def _needs_constant_gains(problem: InitialValueProblem) -> str | None:
    if not isinstance(problem, RelaxationProblem):
        return "the forward phase is nonlinear: call settle(network, x), or step it until it has settled."
    if problem.is_frozen:
        return None
    return (
        'it needs a constant activity gain, "feedforward" or "none": '
        "step the relaxation instead, with any other integrator."
    )


EULER = Integrator(
    "euler", euler, polynomial(), order=1, stages=1, stability_limit=2.0, takes_noise=True, takes_delays=True
)
SEQUENTIAL = Integrator("sequential", sequential, sweep, order=1, stages=1, stability_limit=2.0)
HEUN = Integrator("heun", heun, polynomial(1 / 2), order=2, stages=2, stability_limit=2.0)
RK4 = Integrator(
    "rk4",
    rk4,
    polynomial(1 / 2, 1 / 6, 1 / 24),
    order=4,
    stages=4,
    stability_limit=2.785293563405282,  # the real root of 1 - z/2 + z^2/6 - z^3/24, where R(-z) = 1 again
)
EXPONENTIAL = Integrator(
    "exponential",
    exponential,
    holding(lambda ratio: -np.expm1(-ratio)),
    order=1,
    stages=1,
    stability_limit=math.inf,
)
EQUILIBRIUM = Integrator(
    "equilibrium",
    equilibrium,
    settled,
    order=None,
    stages=1,
    stability_limit=math.inf,
    takes_time=False,
    refuses=_needs_constant_gains,
)


def _advance(state: State, slope: State, dt: float) -> State:
    """Return state + dt slope, with one kernel per variable."""
    return {v: torch.add(x, slope[v], alpha=dt) for v, x in state.items()}
