"""How far the samples of a batch are from a fixed point, each relative to its own activities."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from actrelax.models.integrators import zero_if_finite
from actrelax.models.network import FeedforwardPass
from actrelax.models.problem import RelaxationProblem, State


def residual_of_pass(passed: FeedforwardPass, populations: Iterable[str] | None = None) -> Tensor:
    """Return |f(a(r)) - r| of the forward phase, (batch,): the largest over units, relative to the population's rates.

    For each sample, the largest over the given populations. By default these are the populations in cycles, and the
    residual is nan if any other population has an activity of nan or inf.
    """
    names = passed.responses if populations is None else populations
    others = passed.activities.keys() - passed.responses.keys() if populations is None else ()
    parts = [relative_residual(passed.responses[v] - passed.activities[v], passed.activities[v]) for v in names]
    return largest_residual([*parts, *(zero_if_finite(passed.activities[v]) for v in others)])


@torch.no_grad()
def residual_of_state(problem: RelaxationProblem, state: State) -> Tensor:
    """Return |-x + feedback| of a relaxation, (batch,): the largest over units, relative to their largest activity.

    For each sample the largest over all hidden populations, at the cost of one more evaluation of their feedback.
    """
    parts = []
    for name in problem.relaxing:
        unit = problem.units[name]
        x = unit.activity(state)
        parts.append(relative_residual(unit.gain * problem.unit_input(name, state) - x, x))
    return largest_residual(parts)


def relative_residual(change: Tensor, x: Tensor) -> Tensor:
    """Return the largest change of each sample's units over their largest magnitude, (batch,); 0 where both are 0."""
    most, scale = change.abs().flatten(1).amax(1), x.abs().flatten(1).amax(1)
    return torch.where((most == 0) & (scale == 0), most, most / scale)


def largest_residual(parts: list[Tensor]) -> Tensor:
    """Return the largest of several residuals of each sample, (batch,)."""
    return torch.stack(parts).amax(0)
