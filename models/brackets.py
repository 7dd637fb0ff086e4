"""How large -x + feedback gets on the way: what a clip has to be larger than to be without effect."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from functools import cached_property

import torch
from torch import Tensor

from actrelax.models.integrators import Integrator
from actrelax.models.problem import RelaxationProblem
from actrelax.models.units import Array, Leaky, Unit


@torch.no_grad()
def largest_bracket(problem: RelaxationProblem, integrator: Integrator, *, dt: float, steps: int) -> Tensor:
    """Step a relaxation, and return the largest |-x + feedback| of any neuron at any step, before its clip.

    Norms of the feedback weights only give bounds, fifty to a thousand times too large: this is measured. Nothing waits
    for the device.

    Parameters
    ----------
    problem : RelaxationProblem
    integrator : Integrator
    dt : float
        Its step, in the problem's unit of time.
    steps : int

    Returns
    -------
    torch.Tensor
        Without dimensions; 0 where no step is taken.

    Examples
    --------
    >>> from actrelax.models.architectures import build
    >>> from actrelax.models.integrators import INTEGRATORS
    >>> network = build("digits-mlp", generator=torch.Generator().manual_seed(0))
    >>> problem = RelaxationProblem.from_batch(network, torch.rand(3, 64), torch.tensor([0, 1, 2]))
    >>> bool(0 < largest_bracket(problem, INTEGRATORS["euler"], dt=0.1, steps=5) < 10)
    True
    """
    watched = _Watched(**{f.name: getattr(problem, f.name) for f in fields(problem)})
    state = watched.initial_state(dt)
    for _ in range(steps):
        state = integrator.step(watched, state, dt)
    return torch.stack([problem.clamped.new_zeros(()), *(size.to(problem.clamped) for size in watched.seen)]).amax()


class _Watched(RelaxationProblem):
    """The same problem, of units that tell how large their brackets are."""

    @cached_property
    def seen(self) -> list[Tensor]:
        """The largest magnitude in a population, each time it was asked for."""
        return []

    @cached_property
    def units(self) -> dict[str, Unit]:
        return {name: _telling(unit, self.seen) for name, unit in self.own_units().items()}


@dataclass(frozen=True, eq=False)
class _Telling(Leaky):
    seen: list[Tensor] = field(default_factory=list)

    def bracket(self, x: Array, u: Array) -> Array:
        self.seen.append((u - x).abs().amax())
        return super().bracket(x, u)


def _telling(unit: Unit, seen: list[Tensor]) -> Unit:
    if not isinstance(unit, Leaky):
        return unit
    # with a clip, however large, every step goes by way of the bracket
    return _Telling(unit.name, unit.tau, math.inf if unit.clip is None else unit.clip, seen)
