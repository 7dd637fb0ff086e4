"""A bound on the recurrent weights of a network with cycles, by power iteration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from actrelax.models._names import is_number, whole_number
from actrelax.models.errors import ActrelaxError
from actrelax.models.network.projection import Projection

Shapes = Mapping[str, Sequence[int]]
"""Population -> shape of its activity."""


@torch.no_grad()
def bound_recurrence(
    cycles: Mapping[tuple[str, ...], Sequence[Projection]], shapes: Shapes, limit: float, iterations: int
) -> dict[tuple[str, ...], Tensor]:
    """Scale down the weights of each cycle's projections: `Network.bound_recurrence`."""
    iterations = whole_number("iterations", iterations, least=1)
    if not (is_number(limit) and limit > 0):
        raise ActrelaxError(f"the limit of recurrent weights must be a positive number, got {limit!r}.")
    found: dict[tuple[str, ...], Tensor] = {}
    for members, inside in cycles.items():
        copies = [p.name for p in inside if p.map is None]
        if copies:
            raise ActrelaxError(
                f"the recurrent weights of {', '.join(members)} can't be bounded, because {copies[0]!r} is a copy: "
                "give it weights."
            )
        own = {name: shapes[name] for name in members}
        found[members] = _scale({p: p.weight for p in inside}, own, limit, iterations)
        learned = {p: p.feedback for p in inside if isinstance(p.feedback, torch.nn.Parameter)}
        if learned:
            _scale(learned, own, limit, iterations)
    return found


def _scale(
    weights: Mapping[Projection, Tensor | None],
    shapes: Shapes,
    limit: float,
    iterations: int,
) -> Tensor:
    """Scale weights down until the norm of their map is within the limit, and return the norm before."""
    norm = _norm(weights, shapes, iterations)
    factor = torch.where(norm > limit, limit / norm, 1.0)
    for weight in {id(w): w for w in weights.values() if w is not None}.values():  # projections may share it
        weight.mul_(factor)
    return norm


def _norm(weights: Mapping[Projection, Tensor | None], shapes: Shapes, iterations: int) -> Tensor:
    """Return the largest singular value of the map of all projections together, by power iteration from a fixed start.

    A maximum over pixels takes the routes of the vector that it is given.
    """
    like = next(w for w in weights.values() if w is not None)
    linear = [p.with_weights({(p.name, "weight"): w}) for p, w in weights.items() if w is not None]  # without biases
    drawing = torch.Generator().manual_seed(0)
    x = {v: torch.randn(1, *shape, generator=drawing, dtype=torch.float64).to(like) for v, shape in shapes.items()}
    norm = like.new_zeros(())
    for _ in range(iterations):
        size = _size(x)
        x = {name: part / size for name, part in x.items()}
        drives = {name: torch.zeros_like(part) for name, part in x.items()}
        routes = {}
        for p in linear:
            drive, routes[p.name] = p.find(x[p.source])
            drives[p.target] += drive
        norm = _size(drives)
        back = {name: torch.zeros_like(part) for name, part in x.items()}
        for p in linear:
            back[p.source] += p.feedback_signal(drives[p.target], routes[p.name], p.weight)
        x = back
    return norm


def _size(parts: Mapping[str, Tensor]) -> Tensor:
    size = torch.stack([part.norm() for part in parts.values()]).norm()
    return torch.where(size > 0, size, torch.ones_like(size))
