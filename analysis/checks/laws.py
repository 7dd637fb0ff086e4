"""The exact law of each scheme with one time constant, by SciPy's distributions (docs/theory.md).

`closed_form` predicts by powers of a small matrix and PyTorch's feedback. This is an independent second
version: the number of hops K of a signal follows a distribution, P(K = k) weighs A^k x(0), and A is one sparse
matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.polynomial import Polynomial
from numpy.polynomial.polynomial import polypow
from scipy import sparse, stats
from scipy.sparse.linalg import spsolve

from actrelax.models.engines import BRIAN2, SparseProblem, Vector
from actrelax.models.integrators import Integrator, chain_matrix, coefficients
from actrelax.models.problem import RelaxationProblem, State

POLYNOMIAL_STEPS = 1000
"""Largest number of steps for which a stability function's polynomial is raised to a power."""


@dataclass(frozen=True)
class Law:
    """The distribution of hops.

    name    name in reports
    weights (hops,), P(K = k) for k = 0, 1, ...
    tails   (hops,), P(K > k)
    """

    name: str
    weights: Vector
    tails: Vector


def law_of(scheme: Integrator, eta: float, steps: int, hops: int) -> Law:
    """Return the law of a scheme after `steps` steps of dt = eta tau, for up to `hops` hops.

    A scheme without an entry in `LAWS` has the law of its one-step matrix, as in `closed_form`.

    >>> from actrelax import INTEGRATORS
    >>> law = law_of(INTEGRATORS["euler"], 0.5, 2, 3)
    >>> law.name, law.weights.round(12).tolist(), law.tails.round(12).tolist()
    ('binomial law', [0.25, 0.5, 0.25], [0.75, 0.25, 0.0])
    """
    found = _distribution(scheme, eta, steps) if steps > 0 else None
    k = np.arange(hops)
    if isinstance(found, tuple):
        name, distribution = found
        weights, tails = distribution.pmf(k), distribution.sf(k)
        if np.isfinite(weights).all() and np.isfinite(tails).all():
            return Law(name, weights, tails)
    elif found is not None and steps <= POLYNOMIAL_STEPS:
        return _power_law(found, steps, hops)
    C = coefficients(scheme.transition, chain_matrix([1.0] * hops), eta, steps)
    return Law("law of its one-step matrix", C[0, :hops], C[:hops, hops][::-1])


def _distribution(scheme: Integrator, eta: float, steps: int) -> tuple[str, Any] | Polynomial | None:
    if scheme.engine == "scipy":
        return _poisson(eta, steps)
    if scheme.engine == "brian2":
        stability = BRIAN2[scheme.method][0]
        return _binomial(float(1 - stability(np.asarray(-eta))), steps)
    entry = LAWS.get(scheme.name)
    return None if entry is None else entry(eta, steps)


def _binomial(probability: float, steps: int) -> tuple[str, Any]:
    return "binomial law", stats.binom(steps, probability)


def _poisson(eta: float, steps: int) -> tuple[str, Any]:
    return "Poisson law", stats.poisson(steps * eta)


def _stability(*weights: float) -> Callable[[float, int], Polynomial]:
    """Return R(eta (a - 1)), the generating function of one step's hops."""
    return lambda eta, steps: Polynomial(weights)(Polynomial([-eta, eta]))


LAWS: dict[str, Callable[[float, int], tuple[str, Any] | Polynomial]] = {
    "euler": lambda eta, steps: _binomial(eta, steps),
    "sequential": lambda eta, steps: ("negative binomial law", stats.nbinom(steps, 1 - eta)),
    "exponential": lambda eta, steps: _binomial(-math.expm1(-eta), steps),
    "heun": _stability(1, 1, 1 / 2),
    "rk4": _stability(1, 1, 1 / 2, 1 / 6, 1 / 24),
    "exact": _poisson,
}
"""Our schemes -> (eta, steps) -> name and distribution, or the generating function of one step."""


def _power_law(step: Polynomial, steps: int, hops: int) -> Law:
    """Return the coefficients of a^k in R(eta (a - 1))^n; tails are sums from the far end, where nothing cancels."""
    weights = np.zeros(max(hops, step.degree() * steps) + 1)
    power = polypow(step.coef, steps, maxpower=None)  # Polynomial's own stops at 100
    weights[: len(power)] = power
    tails = weights[::-1].cumsum()[::-1] - 0.0
    return Law("law of its stability function", weights[:hops], tails[1 : hops + 1])


class LinearRelaxation:
    """A relaxation with constant gains and one tau as x' = (-x + A x + b) / tau, on sparse matrices.

    The problem must have a law (`closed_form.uncovered`); only `fixed_point` also supports several time constants.
    """

    def __init__(self, problem: RelaxationProblem) -> None:
        self.problem, self.flat = problem, SparseProblem(problem)
        silent = np.zeros_like(self.flat.initial_state)
        self.jacobian = self.flat.jacobian(silent).tocsc()
        self.rate = self.flat.vector_field(silent)

    @property
    def hops(self) -> int:
        """Largest number of hops: after it every signal has left the network."""
        return len(self.problem.network.hidden)

    def predict(self, law: Law) -> tuple[State, State]:
        """Return sum_k P(K = k) A^k x(0) + P(K > k) A^k b, and the sum of the terms' magnitudes."""
        starts, arrivals = self._series
        terms = [w * x for w, x in zip(law.weights, starts, strict=True)]
        terms += [w * x for w, x in zip(law.tails, arrivals, strict=True)]
        return self._populations(sum(terms)), self._populations(sum(map(np.abs, terms)))

    def fixed_point(self) -> State:
        """Return the state at which the field is zero."""
        # populations come from the top down, so that the matrix is triangular in blocks: no other order is better
        return self._populations(spsolve(self.jacobian, -self.rate, permc_spec="NATURAL"))

    @cached_property
    def _series(self) -> tuple[list[Vector], list[Vector]]:
        """A^k x(0) and A^k b for each k below the number of hops."""
        tau = float(self.problem.taus.of(self.problem.relaxing[0]))
        A = sparse.eye_array(len(self.rate), format="csr") + tau * self.jacobian.tocsr()
        return _powers(A, self.hops, self.flat.initial_state), _powers(A, self.hops, tau * self.rate)

    def _populations(self, x: Any) -> State:
        return self.flat.as_tensors(self.flat.split(np.asarray(x)))


def _powers(matrix: sparse.csr_array, count: int, x: Vector) -> list[Vector]:
    """Return x, A x, A^2 x, ..."""
    powers = [x]
    for _ in range(count - 1):
        powers.append(matrix @ powers[-1])
    return powers
