"""What of a relaxation Brian2 runs, and by which of its state updaters; one sentence where it does not."""

from __future__ import annotations

import ctypes.util
import functools

import brian2 as b2
import numpy as np
from brian2.stateupdaters.base import UnsupportedEquationsException
from brian2.utils.logger import catch_logs

from actrelax.models.engines.brian2 import equations as relaxing
from actrelax.models.engines.brian2.codegen import is_at_runtime
from actrelax.models.integrators import Integrator
from actrelax.models.problem import RelaxationProblem, UnitDynamics

OURS = {"euler": "euler", "exponential": "exponential_euler"}
"""Our schemes -> the state updater that does the same."""


def unsupported(problem: RelaxationProblem, integrator: Integrator) -> str | None:
    """Return None, or one sentence that says what Brian2 can't do here."""
    if integrator.engine not in (None, "brian2"):
        return f'"{integrator.name}" is a method of another engine.'
    if integrator.engine is None and integrator.name not in OURS:
        return f'Brian2 has no such scheme, it has {", ".join(OURS)}, and its own: "brian2:rk4", "brian2:exact" ...'
    if integrator.name == "exponential" and problem.dynamics:
        return "Brian2's exponential Euler takes variables one by one: units with dynamics of their own need another."
    method = method_of(integrator)
    if method in ("exact", "linear") and any(_is_coupled(dynamics) for dynamics in problem.dynamics.values()):
        return f"Brian2's {method} does not solve units whose variables act on each other: use another of its methods."
    if method.startswith("gsl") and ctypes.util.find_library("gsl") is None:
        return "Brian2's gsl methods need the GNU Scientific Library, which is not installed."
    reason = relaxing.unsupported(problem)
    if reason is not None:
        return reason
    if not is_at_runtime():  # what is only asked about would become a part of the program
        return None
    texts = {relaxing.population_text(problem, v, {}).equations for v in problem.units}
    refusals = (_refusal(text, method) for text in sorted(texts))
    return next((refusal for refusal in refusals if refusal is not None), None)


def method_of(integrator: Integrator) -> str:
    """Return the name of the state updater."""
    return OURS.get(integrator.name) or integrator.method


def _is_coupled(dynamics: UnitDynamics) -> bool:
    """Whether A is neither upper nor lower triangular: solved symbolically that takes minutes, and is refused then."""
    A = np.asarray(dynamics.A)
    return bool(np.triu(A, 1).any() and np.tril(A, -1).any())


@functools.lru_cache(maxsize=256)
def _refusal(equations: str, method: str) -> str | None:
    """Ask Brian2 whether a state updater takes some equations; None if it does."""
    with catch_logs():  # it is only asked
        group = b2.NeuronGroup(1, equations, method=method, namespace={})
        group._network = "none"  # Brian2 warns of groups that were never run
        try:
            group.state_updater.update_abstract_code({})
        except UnsupportedEquationsException as error:
            return f"Brian2's {method} does not take these equations: {' '.join(str(error).split())}"
    return None
