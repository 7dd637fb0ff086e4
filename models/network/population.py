"""Populations: groups of units, with shapes that follow from the projections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from actrelax.models.errors import ActrelaxError
from actrelax.models.network.activations import ACTIVATIONS, Activation
from actrelax.models.network.feedforward_pass import check_shapes, pass_forward
from actrelax.models.network.projection import Projection


@dataclass(frozen=True)
class Population:
    """A group of units; `shape` excludes the batch."""

    name: str
    shape: tuple[int, ...]
    activation: Activation


@torch.no_grad()
def populations_of(
    input_shape: tuple[int, ...],
    order: Sequence[str],
    incoming: Mapping[str, Sequence[Projection]],
    activations: Mapping[str, Activation],
    like: Tensor,
) -> dict[str, Population]:
    """Return the populations, with shapes found by passing one sample of zeros, in the dtype and device of `like`.

    Projections that close a cycle come last: they must fit the shapes that the others give.
    """
    place = {name: i for i, name in enumerate(order)}
    onward = {name: [p for p in incoming[name] if place[p.source] < place[name]] for name in order}
    try:
        passed = pass_forward(like.new_zeros(1, *input_shape), order, onward, activations)
        for name in order:
            if len(onward[name]) < len(incoming[name]):
                check_shapes(name, {p.name: p.find(passed.activities[p.source])[0] for p in incoming[name]})
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ActrelaxError(f"a sample of shape {input_shape} doesn't fit the projections: {reason}") from error
    activations = {order[0]: ACTIVATIONS["identity"], **activations}
    return {name: Population(name, tuple(passed.activities[name].shape[1:]), activations[name]) for name in order}
