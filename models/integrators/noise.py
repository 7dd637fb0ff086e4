"""The noise of one Euler step (docs/theory.md)."""

from __future__ import annotations

import torch

from actrelax.models.problem import RelaxationProblem, State


def add_noise(problem: RelaxationProblem, state: State, dt: float, generator: torch.Generator | None) -> State:
    """Return the state after `euler` with the noise of one step of dt: sigma sqrt(2 dt/tau) xi, xi standard normal."""
    state = dict(state)
    for name, sigma in problem.noise_levels.items():
        x = state[name]
        device = x.device if generator is None else generator.device
        xi = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device).to(x.device)
        state[name] = x + sigma * (2 * dt / problem.taus.on(name, x)) ** 0.5 * xi
    return state
