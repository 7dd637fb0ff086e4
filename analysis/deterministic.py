"""The deterministic part of a relaxation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from actrelax.models.problem import RelaxationProblem


def deterministic(problem: RelaxationProblem) -> RelaxationProblem:
    """Return a relaxation without its noise, delays and clip: none of them moves its equilibrium."""
    tau = problem.tau
    if isinstance(tau, Mapping):  # an input without noise has no time constant
        tau = {name: value for name, value in tau.items() if name != problem.network.input}
    return replace(problem, tau=tau, noise=0.0, input_noise=0.0, delays=0.0, clip=None)
