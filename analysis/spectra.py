"""Eigenvalues, numerical range and pseudospectra of a frozen relaxation.

With frozen gains a relaxation is dx/dt = A x + b, A = -1/tau + N with feedback N among the hidden populations.
Without cycles A is triangular, sorted from the top down, so its eigenvalues are -1/tau, for any weights. But A is far
from normal: its numerical range and its pseudospectra bound transient growth and the effect of small errors on its
eigenvalues (Trefethen & Embree 2005, "Spectra and Pseudospectra").

All functions take A as a sparse matrix, also a Jacobian of an unfrozen relaxation (`fixed_points`) or one of a network
with cycles (`stability`). The sparse LU of a triangular matrix has no more entries than the matrix, and a smallest
singular value is accurate relative to itself, even at 1e-40; a dense SVD ends at 1e-16.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.optimize import brentq
from scipy.sparse import csgraph
from scipy.sparse.linalg import ArpackError, LinearOperator, eigs, eigsh, splu

from actrelax.analysis.requirements import require_relaxation
from actrelax.models.engines import SparseProblem, Vector
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem

T = TypeVar("T")
Product = Callable[[Vector], Vector]

_TOLERANCE = 1e-9
"""Relative tolerance of eigenvalues by Lanczos iteration."""
_DENSE = 12
"""Number of unknowns up to which matrices are dense: ARPACK needs more."""
LARGE = 500
"""Number of units in a cycle from which eigenvalues are found by ARPACK, not by LAPACK."""
AFFORDABLE = 5_000
"""Number of unknowns up to which LAPACK is asked where ARPACK does not converge; it then takes about a minute."""
_RESTARTS = 1_000
"""Number of restarts after which ARPACK gives up."""


def linear_part(problem: RelaxationProblem) -> sparse.csr_array:
    """Return A of a frozen relaxation dx/dt = A x + b of one sample.

    Parameters
    ----------
    problem : RelaxationProblem
        A batch of one, without clip, noise and delays; other problems are refused.

    Returns
    -------
    scipy.sparse.csr_array
        (units, units), in 1 / unit of time, in the order of `SparseProblem.join`: from the top down. Lower triangular
        for leaky units in a network without cycles.
    """
    require_relaxation(problem, "the matrix of a relaxation")
    if not problem.is_frozen or problem.clip is not None or problem.assumptions.is_continuous:
        raise ActrelaxError("the matrix of a relaxation needs frozen gains, fixed weights and no clip.")
    if problem.is_noisy or problem.delay.times:
        raise ActrelaxError("the matrix of a relaxation needs a problem without noise and delays: leave them out.")
    if len(problem.clamped) != 1:
        raise ActrelaxError(
            f"the matrix of a relaxation belongs to one sample, got a batch of {len(problem.clamped)}: "
            "give a batch of one."
        )
    flat = SparseProblem(problem)
    return flat.jacobian(flat.initial_state)


def smallest_singular_value(matrix: sparse.csr_array, z: complex) -> float:
    """Return sigma_min(z - A) = 1 / |(z - A)^-1|, the size of the smallest change of A that makes z an eigenvalue.

    By Lanczos iteration on the inverse; zero at an eigenvalue.
    """
    shifted = (z * sparse.eye_array(matrix.shape[0]) - matrix).astype(complex).tocsc()
    if is_triangular(matrix):
        if not np.all(shifted.diagonal()):
            return 0.0
        factors = splu(shifted, permc_spec="NATURAL", diag_pivot_thresh=0.0)  # no fill-in
    else:
        try:
            factors = splu(shifted)
        except RuntimeError:  # exactly singular
            return 0.0
    # scale the inverse to order one, so that its square cannot overflow
    scale = float(np.abs(factors.solve(_start(matrix.shape[0]))).max())
    if not math.isfinite(scale):
        return 0.0
    squared = largest_eigenvalue(lambda v: factors.solve(factors.solve(v, trans="H") / scale) / scale, matrix.shape[0])
    return 1 / (scale * math.sqrt(squared))


def pseudospectrum(matrix: sparse.csr_array, real: ArrayLike, imaginary: ArrayLike) -> NDArray[np.float64]:
    """Return sigma_min(z - A) over a grid of z, (rows, columns); its level epsilon bounds the epsilon-pseudospectrum.

    `real` is (columns,), `imaginary` (rows,). A is real: z and its conjugate have the same value, computed once.
    """
    heights, places = np.unique(np.abs(np.asarray(imaginary)), return_inverse=True)
    rows = np.array([[smallest_singular_value(matrix, x + 1j * y) for x in np.asarray(real)] for y in heights])
    return np.asarray(rows[places])


def reach(matrix: sparse.csr_array, epsilon: float) -> float:
    """Return the largest real part that a change of A of size epsilon > 0 can give to an eigenvalue.

    Exact for a chain with one tau, whose pseudospectra are discs around -1/tau. For other problems the result is a
    lower bound: the search goes to the right of the rightmost eigenvalue, at its imaginary part.
    """
    if not epsilon > 0:
        raise ActrelaxError(f"epsilon, the size of a perturbation, must be above 0, got {epsilon:g}.")
    eigenvalue = rightmost_eigenvalue(matrix)

    def excess(distance: float) -> float:
        return smallest_singular_value(matrix, eigenvalue + distance) / epsilon - 1

    # no z beyond `far` is reached; search from there towards the eigenvalue, where sigma_min is zero
    far = epsilon + 2 * float(abs(matrix).sum(axis=1).max() * abs(matrix).sum(axis=0).max()) ** 0.5
    near = far / 2
    while excess(near) > 0:
        far, near = near, near / 2
    return eigenvalue.real + float(brentq(excess, near, far, xtol=1e-12, rtol=1e-9))


def numerical_range(matrix: sparse.csr_array, angles: int = 64) -> NDArray[np.complex128]:
    """Return points on the boundary of {v* A v: |v| = 1}, the numerical range or field of values.

    Johnson's method (1978): the furthest point in a direction theta belongs to the leading eigenvector of the
    Hermitian part of exp(-i theta) A. For a chain with one tau the range is a disc around -1/tau.

    Parameters
    ----------
    matrix : scipy.sparse.csr_array
        Real.
    angles : int, default 64
        Number of directions, even; directions below the real axis are mirrored.

    Returns
    -------
    numpy.ndarray
        (angles,), counterclockwise from the point furthest to the right.
    """
    if angles < 2 or angles % 2:
        raise ActrelaxError(f"angles must be an even number of directions, got {angles}.")
    half = [_boundary(matrix, theta) for theta in np.linspace(0, np.pi, angles // 2 + 1)]
    return np.array([*half, *np.conj(half[-2:0:-1])])


def numerical_abscissa(matrix: sparse.csr_array) -> float:
    """Return omega(A), the largest real part in the numerical range: the largest rate at which any |x| can grow.

    |exp(tA)| <= exp(omega t), with equality to first order at t = 0.
    """
    return largest_eigenvalue(lambda v: _hermitian(matrix, 0.0, v), matrix.shape[0])


def rightmost_eigenvalue(matrix: sparse.csr_array) -> complex:
    """Return the eigenvalue with the largest real part; of a conjugate pair the one above the real axis."""
    found = [eigenvalues_of_block(block, "LR") for block in blocks(matrix)]
    best = max((complex(values[values.real.argmax()]) for values in found), key=lambda value: value.real)
    return complex(best.real, abs(best.imag))


def blocks(matrix: sparse.csr_array) -> list[sparse.csr_array]:
    """Return the diagonal blocks of the units' strongly connected components; their eigenvalues are those of A.

    A unit that lies in no cycle is a block by itself: its eigenvalue is its diagonal entry, however far A is from
    normal.
    """
    count, labels = csgraph.connected_components(matrix != 0, connection="strong")  # stored zeros are no connections
    if count == matrix.shape[0]:
        return [sparse.csr_array([[entry]]) for entry in matrix.diagonal()]
    order = np.argsort(labels, kind="stable")
    edges = np.cumsum([0, *np.bincount(labels)])
    sorted_matrix = matrix[order][:, order].tocsr()
    return [sorted_matrix[first:end, first:end] for first, end in itertools.pairwise(edges)]


def eigenvalues_of_block(block: sparse.csr_array, which: str, count: int = 6) -> NDArray[np.complex128]:
    """Return all eigenvalues of a matrix below `LARGE` units, else `count` of them, by ARPACK.

    `which` says where: "LR" with the largest real part, "LM" with the largest magnitude.
    """
    size = block.shape[0]

    def dense() -> NDArray[np.complex128]:
        return np.asarray(np.linalg.eigvals(block.toarray()), dtype=complex)

    if size < LARGE or count > size - 2:
        return dense()
    options = {"which": which, "v0": _start(size).real, "ncv": min(size - 1, max(80, 2 * count + 1)), "tol": 1e-10}
    return _iterated(
        lambda: np.asarray(eigs(block, count, **options, maxiter=_RESTARTS, return_eigenvectors=False)), dense, size
    )


def eigenvectors(matrix: sparse.csr_array) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Return eigenvalues and right eigenvectors, in columns: all below `LARGE` units, else the six largest."""
    size = matrix.shape[0]

    def dense() -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
        values, vectors = np.linalg.eig(matrix.toarray())
        return values, vectors

    def iterative() -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
        values, vectors = eigs(matrix, 6, which="LM", v0=_start(size).real, ncv=80, maxiter=_RESTARTS)
        return values, vectors

    return dense() if size < LARGE else _iterated(iterative, dense, size)


def _iterated(iterative: Callable[[], T], dense: Callable[[], T], size: int) -> T:
    """Return what ARPACK finds; where it does not converge, what LAPACK finds."""
    try:
        return iterative()
    except ArpackError as stopped:
        if size > AFFORDABLE:
            raise ActrelaxError(
                f"ARPACK finds no eigenvalues of {size:,} unknowns, and LAPACK is used up to {AFFORDABLE:,}: "
                'watch the relaxation instead, by solve(problem, "euler", steps, record=True).'
            ) from stopped
        return dense()


def is_triangular(matrix: sparse.csr_array) -> bool:
    """Return whether all entries are on the diagonal or below, as in a frozen relaxation of leaky units."""
    return bool(sparse.tril(matrix).nnz == matrix.nnz)


def _hermitian(matrix: sparse.csr_array, theta: float, v: Vector) -> Vector:
    """Return (e^{i theta} A + its adjoint) v / 2."""
    if theta == 0:
        return np.asarray(matrix @ v + matrix.T @ v) / 2
    turn = np.exp(1j * theta)
    return np.asarray(turn * (matrix @ v) + np.conj(turn) * (matrix.T @ v)) / 2


def _boundary(matrix: sparse.csr_array, theta: float) -> complex:
    """Return the point of the numerical range that is furthest in the direction of e^{i theta}."""
    size = matrix.shape[0]
    operator = LinearOperator((size, size), lambda v: _hermitian(matrix, -theta, np.ravel(v)), dtype=complex)
    v = _leading_eigenvector(operator)
    return complex(np.vdot(v, matrix @ v))


def _leading_eigenvector(operator: LinearOperator) -> NDArray[np.complex128]:
    """Return the eigenvector of a Hermitian operator's largest eigenvalue."""
    size = operator.shape[0]

    def dense() -> NDArray[np.complex128]:
        return np.asarray(np.linalg.eigh(operator @ np.eye(size))[1][:, -1])

    if size <= _DENSE:
        return dense()
    options = {"which": "LA", "v0": _start(size), "tol": _TOLERANCE, "maxiter": _RESTARTS}
    return _iterated(lambda: np.asarray(eigsh(operator, k=1, **options)[1][:, 0]), dense, size)


def largest_eigenvalue(product: Product, size: int) -> float:
    """Return the largest eigenvalue of a Hermitian matrix, given by its products with vectors."""
    operator = LinearOperator((size, size), lambda v: product(np.ravel(v)), dtype=complex)
    v = _leading_eigenvector(operator)
    return float(np.vdot(v, operator @ v).real)


def _start(size: int) -> NDArray[np.complex128]:
    """Return a fixed start vector for Lanczos iteration, so that results are reproducible."""
    return np.random.default_rng(0).standard_normal(size).astype(np.complex128)
