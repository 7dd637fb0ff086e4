"""GMRES for a batch of linear systems, each sample with coefficients of its own (Saad and Schultz 1986)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Solution:
    """The solution of x = A x + b for each sample.

    x         (batch, n)
    residual  (batch,), the true |b + A x - x|, relative to |b|
    abscissa  (batch,), the largest real part of A's Ritz values: an estimate of its rightmost eigenvalue
    products  number of products with A
    """

    x: Tensor
    residual: Tensor
    abscissa: Tensor
    products: int


def gmres(apply: Callable[[Tensor], Tensor], b: Tensor, *, tolerance: float, most: int = 100) -> Solution:
    """Solve x = A x + b from x = 0, until each sample's residual is within the tolerance, relative to |b|.

    Arnoldi's basis of all products is kept: (products + 1, batch, n), `basis_bytes` at most. A sample that is done adds
    nothing to its basis.

    Parameters
    ----------
    apply : callable
        x -> A x, both (batch, n).
    b : torch.Tensor
        (batch, n).
    tolerance : float
    most : int, default 100
        Largest number of products, at least 2; the last one measures the residual.
    """
    size = b.norm(dim=1)
    system = _Arnoldi(b, size, tolerance)
    while system.active.any() and len(system.columns) < most - 1:
        system.extend(apply)
    x = system.solution()
    error = (b + apply(x) - x).norm(dim=1)
    residual = torch.where(size > 0, error / torch.where(size > 0, size, 1.0), error)
    return Solution(x, residual, system.abscissa(), len(system.columns) + 1)


def basis_bytes(size: int, element_size: int, most: int = 100) -> int:
    """Return the memory of a sample's largest basis: `most` vectors of `size` elements."""
    return most * size * element_size


def rightmost(apply: Callable[[Tensor], Tensor], start: Tensor, most: int) -> tuple[Tensor, int]:
    """Return the largest real part of A's Ritz values, (batch,), an estimate of its abscissa, and the products used.

    `apply` maps x to A x, both (batch, n); `start`, (batch, n), must have a share of the rightmost eigenvector.
    """
    system = _Arnoldi(start, start.norm(dim=1), 1e-12)
    while system.active.any() and len(system.columns) < most:
        system.extend(apply)
    return system.abscissa(), len(system.columns)


_FAR = 1e6
"""Stands for eigenvalues of I - A that a basis doesn't have: far to the right, where A has none that matter."""


class _Arnoldi:
    """The Krylov basis of I - A for each sample, with its Hessenberg matrix and the QR factors of that (by rotations).

    basis      orthonormal vectors, (batch, n) each; zero once the sample is done
    columns    columns of the Hessenberg matrix of I - A, column k of shape (k + 2, batch)
    triangle   the same columns rotated, (k + 1, batch)
    rotated    right-hand sides of the triangular system, (batch,) each; the last is the sample's residual
    active     (batch,), whether the residual is above the tolerance
    """

    def __init__(self, b: Tensor, size: Tensor, tolerance: float) -> None:
        self.bound = tolerance * size
        self.active = size > self.bound
        self.basis = [b * _inverse(size)[:, None]]
        self.columns: list[Tensor] = []
        self.triangle: list[Tensor] = []
        self.rotations: list[tuple[Tensor, Tensor]] = []
        self.rotated = [size]

    def extend(self, apply: Callable[[Tensor], Tensor]) -> None:
        """Add the product with the last vector."""
        last = self.basis[-1]
        w = last - apply(last)
        column = []
        for v in self.basis:
            column.append((v * w).sum(1))
            w = w - column[-1][:, None] * v
        length = w.norm(dim=1)
        self.columns.append(torch.stack([*column, length]))
        for i, (c, s) in enumerate(self.rotations):
            column[i : i + 2] = [c * column[i] + s * column[i + 1], c * column[i + 1] - s * column[i]]
        c, s, corner = _rotation(column[-1], length)
        self.rotations.append((c, s))
        self.triangle.append(torch.stack([*column[:-1], corner]))
        remaining = self.rotated.pop()
        self.rotated += [c * remaining, -s * remaining]
        self.active = self.active & (self.rotated[-1].abs() > self.bound)
        self.rotated[-1] = torch.where(self.active, self.rotated[-1], 0.0)
        self.basis.append(torch.where(self.active, _inverse(length), 0.0)[:, None] * w)

    def solution(self) -> Tensor:
        """Return x, (batch, n): the combination of the basis with the smallest residual."""
        x = torch.zeros_like(self.basis[0])
        if not self.triangle:
            return x
        R = _matrix(self.triangle, len(self.triangle))
        R = R + torch.diag_embed((R.diagonal(dim1=1, dim2=2) == 0).to(R))  # of vectors that are zero
        rotated = torch.stack(self.rotated[:-1], 1)[:, :, None]
        weights = torch.linalg.solve_triangular(R, rotated, upper=True)[:, :, 0]
        for weight, v in zip(weights.T, self.basis, strict=False):
            x = x + weight[:, None] * v
        return x

    def abscissa(self) -> Tensor:
        """Return the largest real part of the Ritz values of A, (batch,)."""
        steps = len(self.columns)
        if steps == 0:
            return torch.full_like(self.bound, -torch.inf)
        H = _matrix(self.columns, steps)
        used = torch.stack([v.abs().amax(1) > 0 for v in self.basis[:steps]], 1)
        H = torch.where(used[:, :, None] & used[:, None, :], H.nan_to_num(), 0.0)
        H = H + torch.diag_embed(torch.where(used, 0.0, _FAR).to(H))
        ritz: Tensor = 1 - torch.linalg.eigvals(H.cpu()).real
        return ritz.amax(1).to(self.bound)


def _matrix(columns: list[Tensor], rows: int) -> Tensor:
    """Return upper Hessenberg or triangular matrices, (batch, rows, columns), from columns (length, batch)."""
    padded = [nn.functional.pad(column[:rows].T, (0, rows - len(column[:rows]))) for column in columns]
    return torch.stack(padded, 2)


def _rotation(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return c, s and r of the rotation that takes (a, b) to (r, 0)."""
    r = torch.hypot(a, b)
    inverse = _inverse(r)
    return torch.where(r > 0, a * inverse, 1.0), b * inverse, r


def _inverse(x: Tensor) -> Tensor:
    """Return 1 / x, and 0 for 0."""
    return torch.where(x == 0, 0.0, 1 / torch.where(x == 0, 1.0, x))
