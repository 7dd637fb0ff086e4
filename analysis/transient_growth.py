"""Transient growth of errors in a frozen relaxation: |exp(tA)| and its bounds.

A is the matrix of `spectra.linear_part`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import minimize, minimize_scalar
from scipy.sparse.linalg import expm_multiply
from scipy.stats import poisson

from actrelax.analysis.spectra import (
    Product,
    is_triangular,
    largest_eigenvalue,
    rightmost_eigenvalue,
    smallest_singular_value,
)
from actrelax.models.engines import Vector
from actrelax.models.errors import ActrelaxError


def kreiss_constant(matrix: sparse.csr_array) -> float:
    """Return Kreiss's constant K = sup Re z |(z - A)^-1| over Re z > 0.

    K <= max over t of |exp(tA)| <= e m K (Kreiss's matrix theorem with Spijker's lemma), with m the degree of the
    minimal polynomial of A: with one tau per population, at most the number of hidden populations.

    The search runs along the real axis, where a chain with one tau has its maximum, along the line at the imaginary
    part of the rightmost eigenvalue, and then in the plane. The result is a local maximum, at least 1, so it remains a
    lower bound on growth. A must be stable.
    """
    eigenvalue = rightmost_eigenvalue(matrix)
    if not eigenvalue.real < 0:
        raise ActrelaxError(
            f"Kreiss's constant needs a stable A, got an eigenvalue with real part {eigenvalue.real:g}: all must be "
            "negative."
        )

    scale = float(np.abs(matrix.diagonal()).mean()) or 1.0  # 1 / tau: K has no unit, but the search has a range
    scaled = matrix / scale

    def negative(place: NDArray[np.float64]) -> float:
        x = math.exp(place[0])
        return -x / smallest_singular_value(scaled, complex(x, place[1]))

    heights = [0.0] if eigenvalue.imag == 0 else [0.0, eigenvalue.imag / scale]
    return max(1.0, *(_largest_from(negative, height) for height in heights))


def _largest_from(negative: Callable[[NDArray[np.float64]], float], height: float) -> float:
    """Return the largest value found along a line parallel to the real axis, and then in the plane around it."""
    grid = np.linspace(math.log(1e-3), math.log(1e2), 24)
    best = int(np.argmin([negative(np.array([x, height])) for x in grid]))
    ends = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    on_line = minimize_scalar(lambda x: negative(np.array([x, height])), bounds=ends, method="bounded")
    start = np.array([on_line.x, height + 0.3 if height == 0 else height])
    in_plane = minimize(negative, start, method="Nelder-Mead", options={"maxfev": 60, "xatol": 1e-4, "fatol": 1e-6})
    return max(-float(on_line.fun), -float(in_plane.fun))


def propagator_norms(matrix: sparse.csr_array, times: Sequence[float]) -> list[float]:
    """Return |exp(tA)|_2, the largest growth of any error, at each time t >= 0, without forming exp(tA).

    Raises
    ------
    ActrelaxError
        For a negative time.
    """
    transposed = matrix.T.tocsr()

    def squared(t: float) -> float:
        forward, adjoint = propagator(matrix, t), propagator(transposed, t)
        return largest_eigenvalue(lambda v: adjoint(forward(v)), matrix.shape[0])

    return [math.sqrt(squared(t)) for t in times]


def propagator(matrix: sparse.csr_array, t: float) -> Product:
    """Return the map x -> exp(tA) x, which propagates an error by a time t >= 0.

    With one tau, A = -1/tau + N and exp(tA) x = sum_k P(K = k) (tau N)^k x with K ~ Poisson(t/tau), a finite sum
    because N is nilpotent (docs/theory.md). Otherwise SciPy's `expm_multiply` is used.

    Raises
    ------
    ActrelaxError
        For a negative time.
    """
    if not 0 <= t < math.inf:
        raise ActrelaxError(f"a time must be a number, 0 or more, got {t:g}.")
    rates = -matrix.diagonal()
    if not (is_triangular(matrix) or is_triangular(matrix.T)) or np.ptp(rates) > 0:
        return lambda x: np.asarray(expm_multiply(t * matrix, x))
    N = _feedback(matrix) / rates[0]
    weights = poisson.pmf(np.arange(levels(matrix)), t * rates[0])

    def law(x: Vector) -> Vector:
        total, carried = weights[0] * x, x
        for weight in weights[1:]:
            carried = N @ carried
            total = total + weight * carried
        return np.asarray(total)

    return law


def levels(matrix: sparse.csr_array) -> int:
    """Return the smallest m with N^m = 0, where N is a triangular A without its diagonal.

    m is the number of units on the longest feedback path; for a chain, the number of hidden populations.
    """
    N = abs(_feedback(matrix))
    reached, count = np.ones(matrix.shape[0]), 0
    while np.any(reached):
        reached, count = np.sign(N @ reached), count + 1
    return count


def _feedback(matrix: sparse.csr_array) -> sparse.csr_array:
    """Return A without its diagonal."""
    return (sparse.tril(matrix, -1) + sparse.triu(matrix, 1)).tocsr()
