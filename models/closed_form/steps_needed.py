"""How far a frozen relaxation still is from its equilibrium, and how many steps bring it there: by its law alone.

What population l holds after n steps is C[l, L] of its equilibrium, with the rest, 1 - C[l, L], made of initial
activities: the *remainder*, P(K < L - l) of THEORY.md section 4. It depends on the scheme and on the number of hops,
not on weights or data.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

import numpy as np

from actrelax.models.closed_form.evaluate import sizes
from actrelax.models.closed_form.law import hop_matrix, hop_taus
from actrelax.models.integrators import Integrator, chain_matrix, coefficients
from actrelax.models.network import Graph
from actrelax.models.problem import RelaxationProblem

ToleranceOf = Literal["activity", "gradient"]


def remainders(problem: RelaxationProblem, integrator: Integrator, *, dt: float, steps: int) -> dict[str, float]:
    """Return how much of what each hidden population holds is still made of initial activities.

    Parameters
    ----------
    problem : RelaxationProblem
        With a law (`closed_form.uncovered`).
    integrator : Integrator
    dt : float
    steps : int

    Returns
    -------
    dict
        Hidden population -> 1 - C[l, L], from the lowest up; the sum of the coefficients' magnitudes where they
        alternate in sign. Where paths to the output differ in length, that of the longest.
    """
    C = coefficients(integrator.transition, hop_matrix(problem), dt, steps)
    left = np.abs(C[:, :-1]).sum(1)
    above = problem.network.graph.above
    return {name: float(left[-1 - above[name]]) for name in problem.network.hidden}


def steps_until(
    problem: RelaxationProblem,
    integrator: Integrator,
    *,
    dt: float,
    tolerance: float,
    of: ToleranceOf = "activity",
    most: int = 10_000,
) -> int | None:
    """Return the smallest number of steps after which every population's remainder is within the tolerance.

    Parameters
    ----------
    problem, integrator, dt
        As for `remainders`.
    tolerance : float
    of : {"activity", "gradient"}, default "activity"
        What the remainder is relative to: the initial activity; or the gradient, which is usually much smaller. Both
        are measured then, as largest magnitudes, with one sweep to equilibrium: it waits for the device. What
        remains of the activities above counts by its own share of the gradient there, since feedback carries both
        down alike.
    most : int, default 10000

    Returns
    -------
    int or None
        None if that many steps are not enough.
    """
    graph, hidden = problem.network.graph, problem.network.hidden
    ratios: Mapping[str, float] = dict.fromkeys(hidden, 1.0)
    if of == "gradient" and problem.start != "zero" and hidden:
        ratios = _activity_over_gradient(problem)
    weights = _largest_above(graph, ratios)
    rows = tuple((len(hidden) - graph.above[name], tuple(weights[name])) for name in hidden)
    return _smallest(integrator, hop_taus(problem), dt, rows, tolerance, most)


def _largest_above(graph: Graph, ratios: Mapping[str, float]) -> dict[str, list[float]]:
    """Return hidden population -> the largest ratio among those so many hops above it, itself first."""
    found = {name: [ratio] for name, ratio in ratios.items()}
    for target in graph.order[1:]:  # from the top down: what is above a target is known
        for source in graph.sources[target]:
            longest = itertools.zip_longest(found[source][1:], found[target], fillvalue=0.0)
            found[source][1:] = [max(pair) for pair in longest]
    return found


@lru_cache(maxsize=256)
def _smallest(
    integrator: Integrator,
    taus: tuple[float, ...],
    dt: float,
    rows: tuple[tuple[int, tuple[float, ...]], ...],
    tolerance: float,
    most: int,
) -> int | None:
    """Go step by step: above eta = 1 remainders may grow before they shrink.

    `rows` are those of C, and what its entries from the diagonal on count.
    """
    step = integrator.transition(chain_matrix(taus), dt)
    C = np.eye(len(step))
    counted = np.zeros((len(rows), len(step)))
    for i, (row, weights) in enumerate(rows):
        counted[i, row : row + len(weights)] = weights
    chosen = [row for row, _ in rows]
    for n in range(most + 1):
        if ((np.abs(C[chosen]) * counted).sum(1) <= tolerance).all():
            return n
        C = step @ C
    return None


def _activity_over_gradient(problem: RelaxationProblem) -> Mapping[str, float]:
    """Return how many times larger each population's initial activity is than its gradient, 1 at least."""
    begun, ended = sizes(problem)
    # a population that feedback does not reach has no gradient to be relative to
    ratios = [
        max(1.0, activity / gradient) if gradient else 1.0 for activity, gradient in zip(begun, ended, strict=True)
    ]
    return dict(zip(problem.network.hidden, ratios[:-1], strict=True))
