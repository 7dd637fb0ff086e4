"""Problems and integrators that Brian2 and its state updaters support."""

from __future__ import annotations

import ctypes.util
import functools
from types import ModuleType

import brian2 as b2
import numpy as np
from brian2.stateupdaters.base import UnsupportedEquationsException
from brian2.utils.logger import catch_logs

from actrelax.models.engines.brian2 import equations, forward
from actrelax.models.engines.brian2.codegen import is_runtime
from actrelax.models.engines.brian2.unused import forgotten_on_error
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Integrator
from actrelax.models.problem import ForwardProblem, InitialValueProblem, UnitDynamics

OURS = {"euler": "euler", "exponential": "exponential_euler"}
"""Integrator of the package -> the equivalent state updater."""

MOST_STEPS = 2**40
"""The most steps for which Brian2's clock advances correctly."""


def check_steps(steps: int) -> None:
    """Refuse more steps than Brian2 counts."""
    if steps > MOST_STEPS:
        raise ActrelaxError(f"Brian2 counts at most 2**40 steps, got {steps:,}: take fewer.")


def unsupported(problem: InitialValueProblem, integrator: Integrator) -> str | None:
    """Return None, or one sentence that says why Brian2 can't run the problem."""
    if integrator.engine not in (None, "brian2"):
        return f'"{integrator.name}" is a method of another engine.'
    if integrator.engine is None and integrator.name not in OURS:
        return f'Brian2 has no such integrator; use {", ".join(OURS)}, "brian2:rk4", "brian2:exact" ...'
    method = method_of(integrator)
    if method == "exponential_euler" and problem.dynamics:
        return "Brian2's exponential Euler treats variables one by one: use another integrator for unit dynamics."
    if method in ("exact", "linear") and any(_is_coupled(dynamics) for dynamics in problem.dynamics.values()):
        return f"Brian2's {method} does not solve units with mutually coupled variables: use another of its methods."
    if method.startswith("gsl") and ctypes.util.find_library("gsl") is None:
        return "Brian2's gsl methods need the GNU Scientific Library, which is not installed."
    text = text_of(problem)
    reason: str | None = text.unsupported(problem)
    if reason is not None:
        return reason
    if not is_runtime():  # a test group would become part of the standalone program
        return None
    texts = {text.population_text(problem, v, {}).equations for v in problem.units}
    refusals = (_refusal(text, method) for text in sorted(texts))
    return next((refusal for refusal in refusals if refusal is not None), None)


def text_of(problem: InitialValueProblem) -> ModuleType:
    """Return the module that writes the problem's equations."""
    return forward if isinstance(problem, ForwardProblem) else equations


def method_of(integrator: Integrator) -> str:
    """Return the state updater of an integrator."""
    return OURS.get(integrator.name) or integrator.method


def _is_coupled(dynamics: UnitDynamics) -> bool:
    """Return whether variables act on each other in both directions: Brian2's symbolic solution would fail, slowly."""
    A = np.asarray(dynamics.A)
    return bool(np.triu(A, 1).any() and np.tril(A, -1).any())


@functools.lru_cache(maxsize=256)
@forgotten_on_error()
def _refusal(equations: str, method: str) -> str | None:
    """Return None if a state updater accepts the equations, else a sentence with Brian2's reason."""
    with catch_logs():  # the group is only a test
        group = b2.NeuronGroup(1, equations, method=method, namespace={})
        group._network = "none"  # Brian2 would warn that the group was never run
        try:
            group.state_updater.update_abstract_code({})
        except UnsupportedEquationsException as error:
            return f"Brian2's {method} does not accept the equations: {' '.join(str(error).split())}"
    return None
