"""What the eigenvalues of a frozen relaxation don't say: numerical range, pseudospectra, Kreiss constant, growth.

With frozen gains a relaxation is dx/dt = A x + b, A = -1/tau + N with feedback N among the hidden populations. Sorted
from the top down A is triangular, so its eigenvalues are -1/tau and nothing else, whatever the weights. A is far from
normal, though: what it does to a state on the way, and what a small error does to its eigenvalues, is told by its
numerical range and its pseudospectra (Trefethen & Embree 2005, "Spectra and Pseudospectra").

Everything here takes A as a sparse matrix. (z - A)^-1 v is then one sweep of feedback from the top down, its adjoint
one from the bottom up: SciPy's sparse LU of a triangular matrix has no more entries than the matrix itself. So a
smallest singular value is exact relative to itself, also where it is 1e-40; a dense SVD ends at 1e-16. A Jacobian of an
unfrozen relaxation will do as well (`fixed_points`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.sparse.linalg import LinearOperator, eigsh, expm_multiply, splu
from scipy.stats import poisson

from actrelax.models.errors import ActrelaxError
from actrelax.models.flat import FlatProblem, Vector
from actrelax.models.problem import RelaxationProblem

Product = Callable[[Vector], Vector]

_TOLERANCE = 1e-9
"""Of eigenvalues by Lanczos iteration, relative."""
_DENSE = 12
"""Unknowns up to which ARPACK has no room, and a matrix is written out."""


def linear_part(problem: RelaxationProblem) -> sparse.csr_array:
    """Return A of a frozen relaxation dx/dt = A x + b of one sample.

    Parameters
    ----------
    problem : RelaxationProblem
        Of a batch of one; without clip, noise and delays.

    Returns
    -------
    scipy.sparse.csr_array
        (units, units), in the order of `FlatProblem.joined`, from the top down; in 1 / unit of time. Lower triangular
        unless units have dynamics of their own.

    Raises
    ------
    ActrelaxError
        Where the relaxation is not linear, or for another batch.
    """
    if not problem.is_frozen or problem.clip is not None or problem.is_continuous:
        raise ActrelaxError("a relaxation is linear where gains and weights are held and nothing is clipped.")
    if problem.is_noisy or problem.delay.times:
        raise ActrelaxError("spectra are those of an equation without noise and delays: leave them out.")
    if len(problem.clamped) != 1:
        raise ActrelaxError(f"each sample has an A of its own: give a batch of one, not of {len(problem.clamped)}.")
    flat = FlatProblem(problem)
    return flat.jacobian(flat.initial_state())


def smallest_singular_value(matrix: sparse.csr_array, z: complex) -> float:
    """Return sigma_min(z - A) = 1 / |(z - A)^-1|, the size of the least change of A that makes z an eigenvalue.

    By Lanczos iteration on the inverse; zero at an eigenvalue.

    Parameters
    ----------
    matrix : scipy.sparse.csr_array
        (n, n)
    z : complex
    """
    shifted = (z * sparse.eye_array(matrix.shape[0]) - matrix).astype(complex).tocsc()
    if _is_triangular(matrix):
        if not np.all(shifted.diagonal()):
            return 0.0
        factors = splu(shifted, permc_spec="NATURAL", diag_pivot_thresh=0.0)  # no fill-in
    else:
        factors = splu(shifted)
    # about the inverse's size: what is iterated is of order one, also where the square would overflow
    scale = float(np.abs(factors.solve(_start(matrix.shape[0]))).max())
    if not math.isfinite(scale):
        return 0.0
    squared = _largest(lambda v: factors.solve(factors.solve(v, trans="H") / scale) / scale, matrix.shape[0])
    return 1 / (scale * math.sqrt(squared))


def pseudospectrum(matrix: sparse.csr_array, real: ArrayLike, imaginary: ArrayLike) -> NDArray[np.float64]:
    """Return sigma_min(z - A) over a grid of z; its level epsilon bounds the epsilon-pseudospectrum.

    Parameters
    ----------
    matrix : scipy.sparse.csr_array
        Real, so that z and its conjugate have the same value, which is computed once.
    real, imaginary : array_like
        (columns,), (rows,)

    Returns
    -------
    numpy.ndarray
        (rows, columns)
    """
    heights, places = np.unique(np.abs(np.asarray(imaginary)), return_inverse=True)
    rows = np.array([[smallest_singular_value(matrix, x + 1j * y) for x in np.asarray(real)] for y in heights])
    return np.asarray(rows[places])


def reach(matrix: sparse.csr_array, epsilon: float) -> float:
    """Return the largest real z that a change of A of size epsilon can make an eigenvalue.

    For a chain with one tau pseudospectra are discs around -1/tau: then no such change moves an eigenvalue further.
    Elsewhere it is the first such z that halving a bracket comes to, and a lower bound.

    Parameters
    ----------
    matrix : scipy.sparse.csr_array
        With its eigenvalues on the diagonal (`linear_part`).
    epsilon : float
        > 0

    Raises
    ------
    ActrelaxError
        For another epsilon.
    """
    if not epsilon > 0:
        raise ActrelaxError(f"epsilon must be above 0, got {epsilon:g}: it is the size of a change.")
    top = float(matrix.diagonal().max())

    def excess(distance: float) -> float:
        return smallest_singular_value(matrix, top + distance) / epsilon - 1

    # beyond this no z is reached; from there towards the eigenvalue, at which sigma_min is zero
    far = epsilon + 2 * float(abs(matrix).sum(axis=1).max() * abs(matrix).sum(axis=0).max()) ** 0.5
    near = far / 2
    while excess(near) > 0:
        far, near = near, near / 2
    return top + float(brentq(excess, near, far, xtol=1e-12, rtol=1e-9))


def numerical_range(matrix: sparse.csr_array, angles: int = 64) -> NDArray[np.complex128]:
    """Return points on the boundary of {v* A v: |v| = 1}, the numerical range or field of values.

    Johnson's (1978) method: the furthest point in a direction is that of the largest eigenvector of the Hermitian part
    of A, turned. For a chain with one tau it is a disc around -1/tau.

    Parameters
    ----------
    matrix : scipy.sparse.csr_array
        Real.
    angles : int, default 64
        Directions, an even number; those below the real axis are mirrored.

    Returns
    -------
    numpy.ndarray
        (angles,), counterclockwise from the point furthest to the right.

    Raises
    ------
    ActrelaxError
        For an odd number of angles.
    """
    if angles < 2 or angles % 2:
        raise ActrelaxError(f"angles must be an even number of directions, got {angles}.")
    half = [_boundary(matrix, theta) for theta in np.linspace(0, np.pi, angles // 2 + 1)]
    return np.array([*half, *np.conj(half[-2:0:-1])])


def numerical_abscissa(matrix: sparse.csr_array) -> float:
    """Return omega(A), the largest real part in the numerical range: the largest rate at which any |x| can grow.

    |exp(tA)| <= exp(omega t), and it starts to rise that fast.
    """
    return _largest(lambda v: _hermitian(matrix, 0.0, v), matrix.shape[0])


def kreiss_constant(matrix: sparse.csr_array) -> float:
    """Return K = sup Re z |(z - A)^-1| over Re z > 0, which bounds growth from both sides.

    K <= max over t of |exp(tA)| <= e m K (Kreiss's matrix theorem with Spijker's lemma), m the degree of the minimal
    polynomial of A: of a relaxation with one tau a population not the units but the hidden populations, at most.

    Parameters
    ----------
    matrix : scipy.sparse.csr_array
        Stable.

    Returns
    -------
    float
        1 at least, which z far away gives. Searched for on the real axis, where it is for a chain with one tau; from
        there on, in the plane: a local maximum, which is still a lower bound of growth.

    Raises
    ------
    ActrelaxError
        If A is not stable, by its diagonal: of a Jacobian that is not triangular ask its eigenvalues first.
    """
    if not matrix.diagonal().max() < 0:
        raise ActrelaxError("Kreiss's constant is that of a stable A: this one has entries on its diagonal above 0.")

    def negative(place: NDArray[np.float64]) -> float:
        x = math.exp(place[0])
        return -x / smallest_singular_value(matrix, complex(x, place[1]))

    grid = np.linspace(math.log(1e-3), math.log(1e2), 24)
    best = int(np.argmin([negative(np.array([x, 0.0])) for x in grid]))
    ends = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    on_axis = minimize_scalar(lambda x: negative(np.array([x, 0.0])), bounds=ends, method="bounded")
    start = np.array([on_axis.x, 0.3])
    in_plane = minimize(negative, start, method="Nelder-Mead", options={"maxfev": 60, "xatol": 1e-4, "fatol": 1e-6})
    return max(1.0, -float(on_axis.fun), -float(in_plane.fun))


def propagator_norms(matrix: sparse.csr_array, times: Sequence[float]) -> list[float]:
    """Return |exp(tA)|_2, the most that an error can have grown after each of these times.

    Parameters
    ----------
    matrix : scipy.sparse.csr_array
        (n, n); exp(tA) is never formed.
    times : sequence of float
        In the unit of time of A, >= 0.
    """
    transposed = matrix.T.tocsr()

    def squared(t: float) -> float:
        forward, adjoint = propagator(matrix, t), propagator(transposed, t)
        return _largest(lambda v: adjoint(forward(v)), matrix.shape[0])

    return [math.sqrt(squared(t)) for t in times]


def propagator(matrix: sparse.csr_array, t: float) -> Product:
    """Return x -> exp(tA) x: what becomes of an error.

    With one tau, A = -1/tau + N, by the law: sum_k P(K = k) (tau N)^k x, K ~ Poisson(t/tau), which ends with the
    powers of N (THEORY.md section 4). Elsewhere by SciPy's `expm_multiply`.

    Parameters
    ----------
    matrix : scipy.sparse.csr_array
        (n, n)
    t : float
        >= 0
    """
    rates = -matrix.diagonal()
    if not (_is_triangular(matrix) or _is_triangular(matrix.T)) or np.ptp(rates) > 0:
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
    """Return m with N^m = 0, N the part of a triangular A beside its diagonal: the longest path of feedback, in units.

    Of a chain: its hidden populations.
    """
    N = abs(_feedback(matrix))
    reached, count = np.ones(matrix.shape[0]), 0
    while np.any(reached):
        reached, count = np.sign(N @ reached), count + 1
    return count


def _feedback(matrix: sparse.csr_array) -> sparse.csr_array:
    """A without its diagonal."""
    return (sparse.tril(matrix, -1) + sparse.triu(matrix, 1)).tocsr()


def _is_triangular(matrix: sparse.csr_array) -> bool:
    return bool(sparse.tril(matrix).nnz == matrix.nnz)


def _hermitian(matrix: sparse.csr_array, theta: float, v: Vector) -> Vector:
    """(e^{i theta} A + its adjoint) v / 2."""
    if theta == 0:
        return np.asarray(matrix @ v + matrix.T @ v) / 2
    turn = np.exp(1j * theta)
    return np.asarray(turn * (matrix @ v) + np.conj(turn) * (matrix.T @ v)) / 2


def _boundary(matrix: sparse.csr_array, theta: float) -> complex:
    """Return the point of the numerical range that is furthest in the direction of e^{i theta}."""
    size = matrix.shape[0]
    operator = LinearOperator((size, size), lambda v: _hermitian(matrix, -theta, np.ravel(v)), dtype=complex)
    if size <= _DENSE:
        v = np.linalg.eigh(operator @ np.eye(size))[1][:, -1]
    else:
        v = eigsh(operator, k=1, which="LA", v0=_start(size), tol=_TOLERANCE)[1][:, 0]
    return complex(np.vdot(v, matrix @ v))


def _largest(product: Product, size: int) -> float:
    """Return the largest eigenvalue of a Hermitian matrix of which only products are known."""
    operator = LinearOperator((size, size), lambda v: product(np.ravel(v)), dtype=complex)
    if size <= _DENSE:
        return float(np.linalg.eigvalsh(operator @ np.eye(size))[-1])
    found = eigsh(operator, k=1, which="LA", v0=_start(size), tol=_TOLERANCE, return_eigenvectors=False)
    return float(found[0])


def _start(size: int) -> NDArray[np.complex128]:
    """Where Lanczos iteration begins: always the same, so that a number does not change from call to call."""
    return np.random.default_rng(0).standard_normal(size).astype(np.complex128)
