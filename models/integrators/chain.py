"""One step of a scheme on a chain of single units, as a small matrix (docs/theory.md).

With frozen gains every scheme is linear. Its coefficients are a power of its one-step matrix on this chain, whatever
the width of the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from actrelax.models._names import whole_number

Matrix = NDArray[np.float64]
Transition = Callable[[Matrix, float], Matrix]
"""(M, dt) -> one step on the chain dx/dt = M x, as a matrix."""


def chain_matrix(taus: Sequence[float]) -> Matrix:
    """Return M of the chain dx/dt = M x: single hidden units with these taus, from the input up, and the clamp.

    M is (L + 1, L + 1) for L hidden units: -1/tau_l on the diagonal, 1/tau_l above it, a row of zeros for the
    clamp.

    >>> chain_matrix([2.0, 4.0])
    array([[-0.5 ,  0.5 ,  0.  ],
           [ 0.  , -0.25,  0.25],
           [ 0.  ,  0.  ,  0.  ]])
    """
    rates = 1 / np.asarray(taus, dtype=np.float64)
    return np.diag([*-rates, 0.0]) + np.diag(rates, 1)


def coefficients(transition: Transition, matrix: Matrix, dt: float, steps: int) -> Matrix:
    """Return C after `steps` steps of a scheme, a power of its one-step matrix.

    For dt/tau <= 1 all entries are probabilities and nothing cancels: each entry has a small relative error.

    Raises
    ------
    ActrelaxError
        If `steps` is not a whole number, 0 or more.
    """
    return np.linalg.matrix_power(transition(matrix, dt), whole_number("steps", steps, least=0))


def polynomial(*weights: float) -> Transition:
    """Return the transition of a one-step method with stability function 1 + z + weights[0] z^2 + ..."""

    def transition(matrix: Matrix, dt: float) -> Matrix:
        z = dt * matrix
        result: Matrix = np.eye(len(z))
        power = result
        for weight in (1.0, *weights):
            power = power @ z
            result = result + weight * power
        return result

    return transition


def sweep(matrix: Matrix, dt: float) -> Matrix:
    """Return one sequential sweep, (I - N)^-1 D, where N, the part above the diagonal, multiplies new values."""
    z = dt * matrix
    # back substitution with non-negative numbers has no cancellation
    swept: Matrix = solve_triangular(np.eye(len(z)) - np.triu(z, 1), np.diag(1 + z.diagonal()), unit_diagonal=True)
    return swept


def holding(share: Callable[[Matrix], Matrix]) -> Transition:
    """Return the transition of a scheme with constant feedback within each step (docs/theory.md).

    `share` maps dt/tau to the eta of an Euler step: the fraction of its distance to the input that a unit covers.
    """

    def transition(matrix: Matrix, dt: float) -> Matrix:
        rates = -matrix.diagonal()
        etas = share(dt * rates)
        scale: Matrix = np.divide(etas, rates, out=np.zeros_like(etas), where=rates > 0)
        held: Matrix = np.eye(len(matrix)) + scale[:, None] * matrix
        return held

    return transition


def settled(matrix: Matrix, dt: float) -> Matrix:
    """Return the equilibrium: the matrix whose rows copy the clamp."""
    result = np.zeros_like(matrix)
    result[:, -1] = 1
    return result


def flow(matrix: Matrix, t: float) -> Matrix:
    """Return exp(t M) of a chain; the relative error of each entry, however small, is about t/tau roundings.

    Scaling and squaring of the non-negative M + I/tau_min, where no terms cancel; `scipy.linalg.expm` is accurate
    only relative to the largest entry. With one tau, K ~ Poisson(t / tau).
    """
    rate = float(-matrix.diagonal().min())
    squarings = max(0, math.ceil(math.log2(rate * t))) if rate * t > 0 else 0
    h = t / 2**squarings
    step = (matrix + rate * np.eye(len(matrix))) * h
    term = result = np.eye(len(matrix)) * math.exp(-rate * h)
    for k in range(1, 30 + len(matrix)):  # entry (l, m) first appears in the term k = m - l
        term = term @ step / k
        result = result + term
    for _ in range(squarings):
        result = result @ result
    return result
