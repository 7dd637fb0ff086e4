"""The integrator "exact": the solution of the ODE after any dt, by the closed form (docs/theory.md)."""

from __future__ import annotations

import math
from dataclasses import replace

from actrelax.models.closed_form.law import predict, uncovered
from actrelax.models.integrators import Integrator, flow
from actrelax.models.problem import InitialValueProblem, RelaxationProblem, State


def exact(problem: InitialValueProblem, state: State, dt: float) -> State:
    """Return the state after dt, at the same cost for any dt."""
    assert isinstance(problem, RelaxationProblem)  # `uncovered` refuses the others
    return predict(replace(problem, start=state), EXACT, dt=dt, steps=1)


EXACT = Integrator("exact", exact, flow, order=None, stages=None, stability_limit=math.inf, refuses=uncovered)
