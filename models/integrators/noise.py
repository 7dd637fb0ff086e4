"""The noise of one Euler step (docs/theory.md)."""

from __future__ import annotations

import torch

from actrelax.models.problem import InitialValueProblem, State


def add_noise(problem: InitialValueProblem, state: State, dt: float, generator: torch.Generator | None) -> State:
    """Add the noise of one step of dt to the state after `euler`: sigma sqrt(2 dt/tau) xi, xi standard normal.

    The variables of a unit with dynamics share one xi (`UnitDynamics.noise`).
    """
    state = dict(state)
    for name, sigma in problem.noise_levels.items():
        unit = problem.units[name]
        x = state[unit.variables[0]]
        device = x.device if generator is None else generator.device
        xi = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device).to(x.device)
        state |= {v: state[v] + scale * xi for v, scale in unit.noise_scales(sigma, dt).items()}
    return state
