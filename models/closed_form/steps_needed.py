"""The distance of a frozen relaxation from equilibrium, and the number of steps that it needs.

After n steps population l is C[l, L] times its equilibrium, plus initial activities from its own and higher
populations, whose coefficients add up to 1 - C[l, L]: the *remainder*, P(K < L - l) in docs/theory.md. The remainder
depends on the scheme and the number of hops, not on weights or data.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

from actrelax.models.closed_form.evaluate import evaluate_all
from actrelax.models.closed_form.law import hop_matrix, hop_taus
from actrelax.models.closed_form.plan import settled_plan
from actrelax.models.integrators import Integrator, chain_matrix, coefficients
from actrelax.models.network import Graph
from actrelax.models.problem import RelaxationProblem

ToleranceOf = Literal["activity", "gradient"]


def remainders(problem: RelaxationProblem, integrator: Integrator, *, dt: float, steps: int) -> dict[str, float]:
    """Return the share of initial activities in each hidden population after `steps` steps.

    Parameters
    ----------
    problem : RelaxationProblem
        Covered by the closed form (`closed_form.uncovered`).
    integrator : Integrator
    dt : float
        Length of a step, in the problem's unit of time.
    steps : int

    Returns
    -------
    dict
        Hidden population -> 1 - C[l, L], from the lowest up, along the longest path to the output. Above dt/tau = 1,
        where coefficients alternate in sign, the sum of their magnitudes.
    """
    C = coefficients(integrator.transition, hop_matrix(problem), dt, steps)
    by_hops = np.abs(C[:, :-1]).sum(1)[::-1]
    above = problem.network.graph.above
    return {name: float(by_hops[above[name]]) for name in problem.network.hidden}


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
        Largest remainder, relative to the initial activity or the gradient (`of`).
    of : {"activity", "gradient"}, default "activity"
        Reference of the tolerance; gradients are usually much smaller than activities. For "gradient" one sweep to
        equilibrium measures the largest magnitudes of both and waits for the device. Remainders from higher
        populations are compared with the gradient at their own level, since feedback carries both down alike.
    most : int, default 10000
        Largest number of steps.

    Returns
    -------
    int or None
        None if `most` steps are not enough.
    """
    graph, hidden = problem.network.graph, problem.network.hidden
    ratios: Mapping[str, float] = dict.fromkeys(hidden, 1.0)
    if of == "gradient" and problem.start != "zero" and hidden:
        ratios = _activity_over_gradient(problem)
    weights = _largest_above(graph, ratios)
    rows = tuple((len(hidden) - graph.above[name], tuple(weights[name])) for name in hidden)
    return _smallest(integrator, hop_taus(problem), dt, rows, tolerance, most)


def _largest_above(graph: Graph, ratios: Mapping[str, float]) -> dict[str, list[float]]:
    """Return hidden population -> the largest ratios among the populations 0, 1, 2, ... hops above it."""
    found = {name: [ratio] for name, ratio in ratios.items()}
    for target in graph.order[1:]:  # from the top down, so that the target's list is complete
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
    """Return the smallest number of steps, by trying each: above eta = 1 remainders may grow before they shrink.

    rows  for each population, its row of C and the weights of the entries from the diagonal on
    """
    step = integrator.transition(chain_matrix(taus), dt)
    C = np.eye(len(step))
    weights = np.zeros((len(rows), len(step)))
    for i, (row, from_diagonal) in enumerate(rows):
        weights[i, row : row + len(from_diagonal)] = from_diagonal
    chosen = [row for row, _ in rows]
    for n in range(most + 1):
        if ((np.abs(C[chosen]) * weights).sum(1) <= tolerance).all():
            return n
        C = step @ C
    return None


def _activity_over_gradient(problem: RelaxationProblem) -> Mapping[str, float]:
    """Return the ratio of each population's initial activity to its gradient, at least 1."""
    begun, ended = _magnitudes(problem)
    # a population that feedback does not reach has no gradient and is compared with its activity
    ratios = [
        max(1.0, activity / gradient) if gradient else 1.0 for activity, gradient in zip(begun, ended, strict=True)
    ]
    return dict(zip(problem.network.hidden, ratios[:-1], strict=True))


def _magnitudes(problem: RelaxationProblem) -> tuple[list[float], list[float]]:
    """Return the largest magnitudes of the hidden populations, from the lowest up, at the start and at equilibrium.

    The last entry of both belongs to the clamp. It takes one sweep to equilibrium and waits for the device.
    """
    network = problem.network
    start = problem.initial_state() | {network.output: problem.clamped}
    settled = evaluate_all(problem, settled_plan(network.graph))
    largest = [[state[v].abs().amax() for v in (*network.hidden, network.output)] for state in (start, settled)]
    begun, ended = torch.stack([torch.stack(each) for each in largest]).tolist()
    return begun, ended
