"""Closed form of each scheme with one time constant, from SciPy's distributions (docs/theory.md).

This is an independent check of `closed_form`, which uses powers of a small matrix and PyTorch's feedback. Here the
number of hops K of a signal follows a probability distribution, and x(n) is a sum of A^k x(0) weighted by P(K = k),
with A one sparse matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.polynomial import Polynomial
from numpy.polynomial.polynomial import polypow
from scipy import sparse, stats
from scipy.sparse.linalg import splu, spsolve
from torch import Tensor

from actrelax.models.engines import BRIAN2, SparseProblem, Vector
from actrelax.models.integrators import Integrator, chain_matrix, coefficients
from actrelax.models.problem import RelaxationProblem, State

POLYNOMIAL_STEPS = 1000
"""Largest number of steps for which the polynomial of a stability function is raised to a power."""


@dataclass(frozen=True)
class Law:
    """Distribution of the number of hops K.

    name    name in reports
    weights (hops,), P(K = k) for k = 0, 1, ...
    tails   (hops,), P(K > k)
    """

    name: str
    weights: Vector
    tails: Vector


def law_of(scheme: Integrator, eta: float, steps: int, hops: int) -> Law:
    """Return the distribution of hops of a scheme after `steps` steps of dt = eta tau, for fewer than `hops` hops.

    For a scheme without an entry in `LAWS` it follows from the one-step matrix, as in `closed_form`.

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
    """Return the generating function of the hops of one step, R(eta (a - 1)), as a function of eta and steps."""
    return lambda eta, steps: Polynomial(weights)(Polynomial([-eta, eta]))


LAWS: dict[str, Callable[[float, int], tuple[str, Any] | Polynomial]] = {
    "euler": lambda eta, steps: _binomial(eta, steps),
    "sequential": lambda eta, steps: ("negative binomial law", stats.nbinom(steps, 1 - eta)),
    "exponential": lambda eta, steps: _binomial(-math.expm1(-eta), steps),
    "heun": _stability(1, 1, 1 / 2),
    "rk4": _stability(1, 1, 1 / 2, 1 / 6, 1 / 24),
    "exact": _poisson,
}
"""Scheme -> function of (eta, steps) that returns name and distribution, or the generating function of one step."""


def _power_law(step: Polynomial, steps: int, hops: int) -> Law:
    """Return the coefficients of a^k in R(eta (a - 1))^n, with tails summed from the far end to avoid cancellation."""
    weights = np.zeros(max(hops, step.degree() * steps) + 1)
    power = polypow(step.coef, steps, maxpower=None)  # Polynomial ** n stops at n = 100
    weights[: len(power)] = power
    tails = weights[::-1].cumsum()[::-1] - 0.0
    return Law("law of its stability function", weights[:hops], tails[1 : hops + 1])


class LinearRelaxation:
    """Relaxation with constant gains and one tau, x' = (-x + A x + b) / tau, on sparse matrices.

    The closed form must apply to the problem (`closed_form.uncovered_by_walks`); `fixed_point` also supports several
    taus.
    """

    def __init__(self, problem: RelaxationProblem) -> None:
        self.problem, self.flat = problem, SparseProblem(problem)
        silent = np.zeros_like(self.flat.initial_state)
        self.jacobian = self.flat.jacobian(silent).tocsc()
        self.rate = self.flat.vector_field(silent)

    @property
    def hops(self) -> int:
        """Number of hops after which every signal has left the network."""
        return len(self.problem.network.hidden)

    def predict(self, law: Law) -> tuple[State, State]:
        """Return sum_k P(K = k) A^k x(0) + P(K > k) A^k b, and the sum of the terms' magnitudes."""
        tau = self._tau
        starts = _powers(self._feedback, len(law.weights), self.flat.initial_state)
        arrivals = _powers(self._feedback, len(law.tails), tau * self.rate)
        value, magnitude = np.zeros_like(self.rate), np.zeros_like(self.rate)
        for weight, tail, x, b in zip(law.weights, law.tails, starts, arrivals, strict=True):
            value += weight * x + tail * b
            magnitude += np.abs(weight * x) + np.abs(tail * b)
        return self._populations(value), self._populations(magnitude)

    def fixed_point(self) -> State:
        """Return the state at which the derivative is zero."""
        # without cycles, the order from the top down makes the matrix block triangular, the best order for a solve
        order = "COLAMD" if self.problem.network.is_recurrent else "NATURAL"
        return self._populations(spsolve(self.jacobian, -self.rate, permc_spec=order))

    def sweep(self, eta: float, steps: int) -> State:
        """Return x after `steps` times x <- (I - eta U)^-1 ((1 - eta) x + eta (L x + b)), with U + L = A.

        U carries feedback from populations that the sweep has reached before, L all other feedback.
        """
        place = np.repeat(np.arange(len(self.problem.units)), [self.flat.sizes[name] for name in self.problem.units])
        A = self._feedback.tocoo()
        is_newer = place[A.col] < place[A.row]
        L, U = (
            sparse.csr_array((A.data[kept], (A.row[kept], A.col[kept])), shape=A.shape)
            for kept in (~is_newer, is_newer)
        )
        x, b = self.flat.initial_state, self._tau * self.rate
        sweep = splu((sparse.eye_array(len(x)) - eta * U).tocsc(), permc_spec="NATURAL")
        for _ in range(steps):
            x = sweep.solve((1 - eta) * x + eta * (L @ x + b))
        return self._populations(x)

    @cached_property
    def _tau(self) -> float:
        return float(self.problem.taus.of(self.problem.relaxing[0]))

    @cached_property
    def _feedback(self) -> sparse.csr_array:
        """A, the feedback among the hidden populations."""
        return sparse.eye_array(len(self.rate), format="csr") + self._tau * self.jacobian.tocsr()

    def _populations(self, x: Any) -> State:
        return self.flat.as_tensors(self.flat.split(np.asarray(x)))


class CapturedLinearRelaxation:
    """The same for a captured network, which has no matrices: A is PyTorch's feedback, without the clamp."""

    def __init__(self, problem: RelaxationProblem) -> None:
        self.problem = problem
        self.silent = replace(problem, clamped=torch.zeros_like(problem.clamped))

    @property
    def hops(self) -> int:
        """Number of hops after which every signal has left the network."""
        return len(self.problem.network.hidden)

    def predict(self, law: Law) -> tuple[State, State]:
        """Return sum_k P(K = k) A^k x(0) + P(K > k) A^k b, and the sum of the terms' magnitudes."""
        hidden = self.problem.network.hidden
        start = {name: self.problem.initial_activity(name) for name in hidden}
        arrival = self._fed_back(self.problem, {name: torch.zeros_like(x) for name, x in start.items()})
        value, magnitude = dict[str, Tensor](), dict[str, Tensor]()
        for weight, tail in zip(law.weights, law.tails, strict=True):
            for name in hidden:
                for factor, x in ((weight, start[name]), (tail, arrival[name])):
                    term = float(factor) * x.detach().cpu().double()
                    value[name] = value[name] + term if name in value else term
                    magnitude[name] = magnitude[name] + term.abs() if name in magnitude else term.abs()
            start, arrival = self._fed_back(self.silent, start), self._fed_back(self.silent, arrival)
        return value, magnitude

    @torch.no_grad()
    def _fed_back(self, problem: RelaxationProblem, state: State) -> dict[str, Tensor]:
        state = {**state, problem.network.output: problem.clamped}
        return {name: problem.feedback(name, state) for name in problem.network.hidden}


def _powers(matrix: sparse.csr_array, count: int, x: Vector) -> Iterator[Vector]:
    """Yield x, A x, A^2 x, ..."""
    for k in range(count):
        x = matrix @ x if k else x
        yield x
