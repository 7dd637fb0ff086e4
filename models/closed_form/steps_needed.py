"""The distance of a frozen relaxation from equilibrium, and the number of steps that it needs.

After n steps population l is C[l, L] times its equilibrium, plus initial activities from its own and higher
populations, whose coefficients add up to 1 - C[l, L]: the *remainder*, P(K < L - l) in docs/theory.md. The remainder
depends on the scheme and the number of hops, not on weights or data.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from actrelax.models.closed_form.evaluate import evaluate_all
from actrelax.models.closed_form.law import each_term, hop_matrix, hop_taus
from actrelax.models.closed_form.plan import settled_plan
from actrelax.models.integrators import Integrator, Matrix, chain_matrix, coefficients
from actrelax.models.problem import RelaxationProblem


def remainders(problem: RelaxationProblem, integrator: Integrator, *, dt: float, steps: int) -> dict[str, float]:
    """Return the share of initial activities in each hidden population after `steps` steps of `dt`.

    Returns
    -------
    dict
        Hidden population -> 1 - C[l, L], from the lowest up, along the longest path to the output. Above dt/tau = 1,
        where coefficients alternate in sign, the sum of their magnitudes.
    """
    C = coefficients(integrator.transition, hop_matrix(problem), problem.time("dt", dt), steps)
    by_hops = np.abs(C[:, :-1]).sum(1)[::-1]
    above = problem.network.graph.above
    return {name: float(by_hops[above[name]]) for name in problem.network.hidden}


def steps_until(
    problem: RelaxationProblem, integrator: Integrator, *, dt: float, tolerance: float, most: int = 10_000
) -> int | None:
    """Return the smallest number of steps after which every population's remainder is within the tolerance.

    The remainder is relative to the initial activity; the distance from equilibrium, relative to the gradient, is
    usually much larger (`gradient_steps`). None if `most` steps are not enough.
    """
    above, hidden = problem.network.graph.above, problem.network.hidden
    rows = frozenset(len(hidden) - above[name] for name in hidden)
    return _remainder_steps(integrator, hop_taus(problem), dt, rows, tolerance, most)


@torch.no_grad()
def gradient_steps(
    problem: RelaxationProblem, integrator: Integrator, *, dt: float, tolerance: float, most: int = 10_000
) -> int | None:
    """Return a number of steps after which every population is within the tolerance of its gradient.

    The distance from equilibrium is a sum of terms (`law.terms`). Each is a coefficient, which depends on the
    number of steps, times an activity that feedback has carried down, which does not. The sum of their magnitudes
    is an upper bound; the result is the smallest number of steps for which this bound is within the tolerance. The
    cost is L (L - 1) / 2 feedback applications in a chain of L, else 2 L - 1 sweeps, and a synchronisation with the
    device.

    The tolerance is relative to the largest gradient of the population (`results.relative_error`); a population
    that feedback does not reach has no gradient and is compared with its initial activity. None if `most` steps are
    not enough.
    """
    hidden, size = problem.network.hidden, len(problem.network.hidden) + 1
    largest = _largest(evaluate_all(problem, settled_plan(problem.network.graph)))
    begun = _largest(problem.initial_state())
    scale = {name: largest[name] or begun[name] or 1.0 for name in hidden}
    # weights of each |C[l, m]|, and of 1 - C[l, L], the sum of the other entries of row l
    initial, clamp = np.zeros((len(hidden), size, size)), np.zeros((len(hidden), size))
    index = {name: i for i, name in enumerate(hidden)}
    for name, term in each_term(problem):
        weight = float(term.value.abs().amax()) / scale[name]
        if term.is_clamp:
            clamp[index[name], term.row] += weight
        else:
            initial[index[name], term.row, term.column] += weight
    step, C = integrator.transition(hop_matrix(problem), dt), np.eye(size)
    for n in range(most + 1):
        missing = np.abs(C[:, :-1].sum(1))
        if ((initial * np.abs(C)).sum((1, 2)) + clamp @ missing).max(initial=0.0) <= tolerance:
            return n
        C = step @ C
    return None


@lru_cache(maxsize=256)
def _remainder_steps(
    integrator: Integrator, taus: tuple[float, ...], dt: float, rows: frozenset[int], tolerance: float, most: int
) -> int | None:
    """Return the smallest number of steps, by trying each: above eta = 1 remainders may grow before they shrink."""
    step = integrator.transition(chain_matrix(taus), dt)
    C: Matrix = np.eye(len(step))
    chosen = sorted(rows)
    for n in range(most + 1):
        if (np.abs(C[chosen, :-1]).sum(1) <= tolerance).all():
            return n
        C = step @ C
    return None


def _largest(activities: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(x.abs().amax()) for name, x in activities.items()}
