"""The closed form on networks with cycles: a sum over walks of feedback, one term per number of hops (docs/theory.md).

With one tau and constant gains, x(n) = sum_k P(K = k) A^k x(0) + sum_k P(K > k) A^k b, where A is the feedback between
hidden populations and b the feedback of the clamp. On a network with cycles no power of A is zero, so that n steps of
Euler's method need n hops: this checks a relaxation, and saves nothing. A sequential sweep is no function of A, because
edges that close a cycle read old values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Integrator, Matrix, chain_matrix, coefficients, sweep
from actrelax.models.problem import RelaxationProblem, State

NEGLIGIBLE = 1e-18
"""Relative size of the terms at which a sum over infinitely many walks ends."""


@torch.no_grad()
def sum_over_walks(problem: RelaxationProblem, integrator: Integrator, *, dt: float, steps: int) -> State:
    """Return the state after `steps` steps of `dt` on a network with cycles, from one tau and constant gains."""
    if not integrator.takes_time:
        raise ActrelaxError('infinitely many walks lead to the equilibrium: call solve(problem, "equilibrium").')
    eta = dt / float(problem.taus.of(problem.relaxing[0]))
    start = {name: problem.initial_state()[name] for name in problem.network.hidden}
    silent = replace(problem, clamped=torch.zeros_like(problem.clamped))
    arrival = {name: problem.feedback(name, {v: torch.zeros_like(x) for v, x in start.items()}) for name in start}
    if integrator.transition is sweep:
        return _sweeps(silent, start, arrival, eta, steps)
    hops = _hops_per_step(integrator, eta)
    most = None if hops is None else hops * steps + 1
    return _weighted(silent, start, arrival, (integrator, eta, steps), most)


def _weighted(
    problem: RelaxationProblem, start: State, arrival: State, law: tuple[Integrator, float, int], most: int | None
) -> State:
    """Return sum_k P(K = k) A^k start + P(K > k) A^k arrival over k < most, or until the terms are negligible."""
    known = most or max(32, math.ceil(4 * law[1] * law[2]))
    weights, tails = _hop_law(*law, known)
    total = {name: torch.zeros_like(x) for name, x in start.items()}
    for k, (x, b) in enumerate(zip(_powers(problem, start), _powers(problem, arrival), strict=True)):
        if k == most:
            break
        if k == known:
            known *= 2
            weights, tails = _hop_law(*law, known)
        terms = {name: float(weights[k]) * x[name] + float(tails[k]) * b[name] for name in total}
        total = {name: value + terms[name] for name, value in total.items()}
        is_late = k > law[1] * law[2]  # beyond the mean number of hops, where weights fall
        if most is None and is_late and all(_is_negligible(terms[v], total[v]) for v in total):
            break
    return total


def _is_negligible(term: torch.Tensor, total: torch.Tensor) -> bool:
    return bool(term.abs().max() <= NEGLIGIBLE * total.abs().max())


def _hop_law(integrator: Integrator, eta: float, steps: int, hops: int) -> tuple[Matrix, Matrix]:
    """Return P(K = k) and P(K > k) for k < hops, from the scheme's one-step matrix on a chain of `hops` units."""
    C = coefficients(integrator.transition, chain_matrix([1.0] * hops), eta, steps)
    return C[0, :hops], C[:hops, hops][::-1]


def _hops_per_step(integrator: Integrator, eta: float) -> int | None:
    """Return the largest number of hops in one step; None for a scheme without a largest one."""
    length = 16
    step = integrator.transition(chain_matrix([1.0] * length), eta)[0, :length]
    hops = int(np.flatnonzero(step)[-1]) if step.any() else 0
    return hops if hops < length - 1 else None


def _powers(problem: RelaxationProblem, state: State) -> Iterator[State]:
    """Yield A^k state for k = 0, 1, ...; the problem's clamp is 0."""
    while True:
        yield state
        state = {name: problem.feedback(name, state) for name in state}


def _sweeps(problem: RelaxationProblem, x: State, arrival: State, eta: float, steps: int) -> State:
    """Return x after `steps` times x <- (I - eta U)^-1 ((1 - eta) x + eta (L x + arrival)), U + L = A.

    U carries feedback from populations that the sweep has reached before, L all other feedback. Without cycles inside
    U, (I - eta U)^-1 is the sum of the first powers of eta U.
    """
    for _ in range(steps):
        old = _part(problem, x, newer=False)
        term = {name: (1 - eta) * x[name] + eta * (old[name] + arrival[name]) for name in x}
        x = term
        for _ in range(len(x) - 1):
            term = {name: eta * y for name, y in _part(problem, term, newer=True).items()}
            x = {name: x[name] + term[name] for name in x}
    return x


def _part(problem: RelaxationProblem, state: State, *, newer: bool) -> State:
    """Return the feedback from the populations that come before each population in a sweep, or from all others."""
    place = {name: i for i, name in enumerate(problem.relaxing)}
    found: State = {}
    for name, x in state.items():
        total = torch.zeros_like(x)
        for p in problem.network.outgoing[name]:
            if p.target in place and (place[p.target] < place[name]) == newer:
                total = total + problem.feedback_along(p, state)
        found[name] = total
    return found
