"""Mean and covariance of a noisy relaxation, and deviations of samples from them (docs/theory.md).

With frozen gains a step of Euler's method is x' = T x + c + q xi. The mean follows m' = T m + c, the covariance
S' = T S T^T + Q, and samples are normal with these moments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse, stats
from scipy.linalg import solve_triangular

from actrelax.models.engines import SparseProblem, Vector, vector
from actrelax.models.errors import ActrelaxError
from actrelax.models.problem import RelaxationProblem

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Expected moments of selected units of one sample.

    populations  population of each unit
    units        index of each unit in its flattened population
    mean         (units,)
    covariance   (units, units)
    """

    populations: tuple[str, ...]
    units: tuple[int, ...]
    mean: Vector
    covariance: Matrix

    @property
    def entries(self) -> int:
        """Number of values that `deviations` tests: means, sums and differences of pairs, and whole populations."""
        return len(self.mean) + len(self.mean) ** 2 + len(set(self.populations))

    def picked(self, state: Mapping[str, torch.Tensor]) -> Matrix:
        """Return the selected units of a state, (samples, units)."""
        flat = {name: x.detach().cpu().double().flatten(1).numpy() for name, x in state.items()}
        return np.stack([flat[v][:, i] for v, i in zip(self.populations, self.units, strict=True)], axis=1)


def scheme_moments(problem: RelaxationProblem, dt: float, steps: int, most: int = 50) -> Moments:
    """Return the moments of one sample after `steps` steps of Euler's method.

    Gains must be constant, and the problem must have no clip and no delays. At most `most` evenly spaced units of
    each population are selected.
    """
    if problem.dynamics:
        raise ActrelaxError("exact moments need leaky units, got dynamics: sample the relaxations instead.")
    flat = SparseProblem(problem)
    y = flat.initial_state
    sizes = {name: flat.sizes[name] for name in problem.units}
    picked = [
        (name, int(i))
        for name, size in sizes.items()
        for i in np.unique(np.linspace(0, size - 1, min(size, most)).round())
    ]
    offsets = dict(zip(sizes, np.cumsum([0, *sizes.values()]), strict=False))
    rows = [offsets[name] + i for name, i in picked]
    one_step = (sparse.eye_array(sum(sizes.values())) + dt * flat.jacobian(y)).T.tocsr()
    kick = np.concatenate([_kick(problem, name, dt) for name in problem.units])
    reach = np.zeros((len(rows), len(kick)))  # e^T T^k of each unit
    reach[np.arange(len(rows)), rows] = 1
    covariance = np.zeros((len(rows), len(rows)))
    for _ in range(steps):
        covariance += (reach * kick) @ reach.T
        reach = (one_step @ reach.T).T
        y = y + dt * flat.vector_field(y)
    names, units = zip(*picked, strict=True)
    return Moments(names, units, y[rows], covariance)


def _kick(problem: RelaxationProblem, name: str, dt: float) -> Vector:
    """Return the diagonal of Q, 2 sigma^2 dt / tau for each unit."""
    shape = problem.network.populations[name].shape
    sigma, tau = (torch.as_tensor(q.of(name), dtype=torch.float64) for q in (problem.sigmas, problem.taus))
    return vector((2 * sigma**2 * dt / tau).expand(shape))


def deviations(samples: Matrix, moments: Moments) -> Iterator[tuple[str, str, float]]:
    """Yield moment, population and the largest deviation of the samples, in standard deviations.

    Samples, (samples, units), must be independent; the moment is "mean" or "covariance". Means are normal. The summed
    squares of the sum and of the difference of two units, scaled to unit variance, have a chi-squared distribution
    with one degree of freedom per sample. The summed squares of a whole decorrelated population are also chi-squared,
    and detect a small defect common to all units from few samples. A pair of units counts for its lower population.
    """
    count, scale = len(samples), np.sqrt(moments.covariance.diagonal())
    standard = (samples - moments.mean) / scale
    mean = np.abs(standard.mean(0)) * np.sqrt(count)
    found, rho = standard.T @ standard, moments.covariance / np.outer(scale, scale)
    squares = found.diagonal()[:, None] + found.diagonal()
    pairs = np.maximum(_chi2(squares + 2 * found, 2 + 2 * rho, count), _chi2(squares - 2 * found, 2 - 2 * rho, count))
    blocks = {name: np.flatnonzero(np.asarray(moments.populations) == name) for name in moments.populations}
    bottom_up = list(blocks.items())[::-1]
    for name, own in bottom_up:
        yield "mean", name, float(mean[own].max())
    for name, own in bottom_up:
        root = np.linalg.cholesky(rho[np.ix_(own, own)])
        together = (solve_triangular(root, standard[:, own].T, lower=True) ** 2).sum()
        joint = float(_chi2(np.asarray(together), np.asarray(1.0), count * len(own)))
        # populations are ordered from the top down, so higher units have smaller indices
        yield "covariance", name, max(joint, float(pairs[own, : own[-1] + 1].max()))


def _chi2(squares: Matrix, variance: Matrix, degrees: int) -> Matrix:
    """Return the number of standard deviations with the same tail probability for a normal variable."""
    there = variance > 1e-12  # not the difference of a unit from itself
    ratio = np.divide(squares, variance, out=np.full_like(squares, degrees), where=there)
    law = stats.chi2(degrees)
    tail = np.minimum(law.sf(ratio), law.cdf(ratio)).clip(1e-300, 0.5)
    return np.where(there, stats.norm.isf(tail), 0.0)
