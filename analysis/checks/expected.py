"""References for the entries of a check: closed form, autograd, a sparse solve, or another integrator."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from actrelax.analysis.checks.laws import CapturedLinearRelaxation, LinearRelaxation, law_of
from actrelax.analysis.checks.solvers import Entry, hidden
from actrelax.analysis.convergence import hidden_gradients
from actrelax.models.closed_form import predict, uncovered_by_walks
from actrelax.models.engines import BRIAN2, INTEGRATORS, Steps, schedule, solve
from actrelax.models.integrators import sweep
from actrelax.models.network import CapturedNetwork
from actrelax.models.problem import RelaxationProblem, Value

FINER = 64
"""Number of "rk4" steps per step of the problem, for the reference solution of an ODE without a closed form."""


@dataclass(frozen=True)
class Reference:
    """Expected result of an entry.

    name       name in reports
    state      hidden population -> (batch, *population.shape) in float64
    magnitude  hidden population -> (batch, *population.shape), sum of the terms' magnitudes; None if no terms cancel
    bound      error of the reference itself, beyond rounding
    """

    name: str
    state: Mapping[str, Tensor]
    magnitude: Mapping[str, Tensor] | None = None
    bound: float = 0.0


class References:
    """References for one problem; the arguments are those of `verify`."""

    def __init__(self, problem: RelaxationProblem, gradients: Mapping[str, Tensor], steps: Steps) -> None:
        self.problem, self.gradients, self.steps = problem, hidden_gradients(problem, gradients), steps

    def of(self, entry: Entry) -> Reference | None:
        """Return the expected result of an entry; None if only other entries can serve as its reference."""
        if not entry.scheme.takes_time:
            if _leads_to_backprop(self.problem):
                return Reference("autograd", {name: g.detach().cpu().double() for name, g in self.gradients.items()})
            return self._sparse_solve
        if uncovered_by_walks(self.problem) is None:
            return self._law(entry)
        if entry.scheme.engine == "scipy":
            return self._finer
        if entry.scheme.engine == "brian2" and self.problem.clip is None:
            return self._held_input(entry)
        return None

    def second(self, entry: Entry) -> Reference | None:
        """Return a second reference: with cycles autograd's gradient is an equilibrium that a solver has found, too."""
        is_settled_by_gmres = self.problem.network.is_recurrent and not entry.scheme.takes_time
        return self._sparse_solve if is_settled_by_gmres and _leads_to_backprop(self.problem) else None

    @cached_property
    def _sparse_solve(self) -> Reference:
        return Reference("sparse solve", LinearRelaxation(replace(self.problem, clip=None)).fixed_point())

    def _law(self, entry: Entry) -> Reference:
        """Return the result by the distribution of hops for one tau, or by the chain's matrix for several."""
        scheme, problem = entry.scheme, self.problem
        grid = schedule(problem, scheme, self.steps)
        taus = {float(problem.taus.of(name)) for name in problem.relaxing}
        if len(taus) > 1:
            predicted = predict(problem, scheme, dt=grid.dt, steps=grid.steps)
            return Reference("law of the chain", {v: x.cpu().double() for v, x in predicted.items()})
        eta = grid.dt / taus.pop()
        hops = self._linear.hops
        if problem.network.is_recurrent:
            if scheme.transition is sweep:
                assert isinstance(self._linear, LinearRelaxation)
                return Reference("law of its sweeps", self._linear.sweep(eta, grid.steps))
            hops = max(4 * grid.steps + 1, math.ceil(8 * eta * grid.steps) + 60)  # "rk4" has four hops in a step
        law = law_of(scheme, eta, grid.steps, hops)
        value, magnitude = self._linear.predict(law)
        return Reference(law.name, value, magnitude if eta > 1 else None)

    @cached_property
    def _linear(self) -> LinearRelaxation | CapturedLinearRelaxation:
        problem = replace(self.problem, clip=None)
        return (CapturedLinearRelaxation if isinstance(problem.network, CapturedNetwork) else LinearRelaxation)(problem)

    @cached_property
    def _finer(self) -> Reference:
        """Accurate solution of the ODE, for adaptive methods; a clip reduces it to first order at its kinks."""
        grid = schedule(self.problem, INTEGRATORS["rk4"], self.steps)
        state = solve(self.problem, "rk4", dt=grid.dt / FINER, steps=FINER * grid.steps).final
        bound = 1e-8 if self.problem.clip is None else 1e-3
        return Reference(f"torch rk4, {FINER} times as fine", hidden(self.problem, state), bound=bound)

    def _held_input(self, entry: Entry) -> Reference:
        """Return Euler's result with tau' = dt / (1 - R(-dt/tau)), at which its step equals Brian2's updater."""
        problem = self.problem
        grid = schedule(problem, entry.scheme, self.steps)
        stability = BRIAN2[entry.scheme.method][0]

        def equivalent(tau: Value) -> Tensor:
            held = 1 - stability(-grid.dt / torch.as_tensor(tau, dtype=torch.float64).cpu().numpy())
            return torch.as_tensor(grid.dt / np.asarray(held))

        taus = {name: equivalent(problem.taus.of(name)) for name in problem.relaxing}
        state = solve(replace(problem, tau=taus), "euler", dt=grid.dt, steps=grid.steps).final
        return Reference("torch euler, equivalent tau", hidden(problem, state))


def _leads_to_backprop(problem: RelaxationProblem) -> bool:
    """Return whether the equilibrium is backprop's gradient."""
    used = [problem.network.knobs(p, problem.assumptions) for p in problem.feedback_projections.values()]
    standard = all(k.feedback == "transpose" and k.activity_gain == "feedforward" for k in used)
    exact = problem.assumptions.statistics == "exact" or not isinstance(problem.network, CapturedNetwork)
    return standard and exact and problem.feedback_transform is None and not problem.dynamics
