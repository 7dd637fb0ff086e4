"""A relaxation on a chain of single units: what a scheme's step does to it, as one tiny matrix (THEORY.md section 4).

While gains are frozen every scheme is linear, and its coefficients are powers of its one-step matrix on this chain,
whatever the network's width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Transition = Callable[[Matrix, float], Matrix]
"""(M, dt) -> one step on the chain dx/dt = M x, as a matrix."""


def chain_matrix(taus: Sequence[float]) -> Matrix:
    """Return M of the chain of single units dx/dt = M x: hidden units with these tau, from the input up, and a clamp.

    Returns
    -------
    numpy.ndarray
        (L + 1, L + 1) for L hidden units: -1/tau_l on the diagonal, 1/tau_l beside it, a row of zeros for the clamp.

    Examples
    --------
    >>> chain_matrix([2.0, 4.0])
    array([[-0.5 ,  0.5 ,  0.  ],
           [ 0.  , -0.25,  0.25],
           [ 0.  ,  0.  ,  0.  ]])
    """
    rates = 1 / np.asarray(taus, dtype=np.float64)
    size = len(rates) + 1
    matrix = np.zeros((size, size))
    hidden = np.arange(size - 1)
    matrix[hidden, hidden] = -rates
    matrix[hidden, hidden + 1] = rates
    return matrix


def coefficients(transition: Transition, matrix: Matrix, dt: float, steps: int) -> Matrix:
    """Return C after so many steps of a scheme: its one-step matrix to that power.

    For dt/tau <= 1 all entries are probabilities and nothing cancels: entries of 1e-300 are as exact as those near 1.
    """
    return np.linalg.matrix_power(transition(matrix, dt), steps)


def flow(matrix: Matrix, t: float) -> Matrix:
    """Return exp(t M) of a chain, each entry relative to itself, however small, to about t/tau roundings.

    Scaling and squaring on the non-negative M + I/tau_min, where no terms cancel; `scipy.linalg.expm` is accurate
    relative to the largest entry only. One tau: K ~ Poisson(t / tau).
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
