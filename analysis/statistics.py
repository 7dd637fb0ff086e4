"""What a few paired seeds can say: intervals, differences, equivalence, and the power that they had."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from actrelax.models.errors import ActrelaxError

MARGIN = 1.0
"""Points of accuracy up to which means count as equivalent."""


def interval(values: ArrayLike) -> tuple[float, float]:
    """Return the 95 % confidence interval of the mean, by Student's t.

    Bootstraps are too narrow for a few seeds: SciPy's BCa intervals hold the mean of 10 normal values in 90 % of cases
    (scipy.stats.bootstrap, 2,000 samples).

    Parameters
    ----------
    values : array_like
        (n,), one per seed.

    Returns
    -------
    low, high : float
        nan for a single value.
    """
    x = _values(values)
    if len(x) < 2:
        return math.nan, math.nan
    if np.ptp(x) == 0:
        return float(x[0]), float(x[0])
    half = stats.t.ppf(0.975, len(x) - 1) * stats.sem(x)
    return float(x.mean() - half), float(x.mean() + half)


@dataclass(frozen=True)
class Paired:
    """Two conditions compared over the same seeds.

    seeds          how many pairs
    difference     mean of the first minus the second
    low, high      its 95 % interval (`interval`)
    deviation      standard deviation of the differences
    p_difference   of the paired t test: small means different
    p_equivalence  of two one-sided t tests (TOST): small means equivalent within the margin
    """

    seeds: int
    difference: float
    low: float
    high: float
    deviation: float
    p_difference: float
    p_equivalence: float

    @property
    def is_identical(self) -> bool:
        """Whether the two have the same value in every pair: they are one computation, and there is nothing to test."""
        return self.difference == self.deviation == 0


def compare(first: ArrayLike, second: ArrayLike, margin: float = MARGIN) -> Paired:
    """Compare two conditions, seed by seed.

    Parameters
    ----------
    first, second : array_like
        (n,), value by value of the same seed.
    margin : float, default MARGIN
        Up to which means count as equivalent, in the values' unit.

    Returns
    -------
    Paired
        Whose p are nan for fewer than two pairs, and for differences that are all the same, which say nothing about
        chance: accuracies of few images are often tied.

    Raises
    ------
    ActrelaxError
        If the values are not pairs.
    """
    x, y = _values(first), _values(second)
    if len(x) != len(y):
        raise ActrelaxError(f"pairs take as many values on both sides, got {len(x)} and {len(y)}.")
    d = x - y
    mean = float(d.mean()) if len(d) else math.nan
    if len(d) < 2:
        return Paired(len(d), mean, math.nan, math.nan, math.nan, math.nan, math.nan)
    if np.ptp(d) <= 1e-9 * np.abs(x).max():
        return Paired(len(d), mean, mean, mean, 0.0, math.nan, math.nan)
    low, high = interval(d)
    different = stats.ttest_1samp(d, 0).pvalue
    below, above = (
        stats.ttest_1samp(d, bound, alternative=side).pvalue for bound, side in ((-margin, "greater"), (margin, "less"))
    )
    return Paired(len(d), mean, low, high, float(d.std(ddof=1)), float(different), float(max(below, above)))


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p values of one table for their number (Holm 1979); nan stay, and don't count."""
    known = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    adjusted, largest = list(p), 0.0
    for rank, (value, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        adjusted[i] = largest
    return adjusted


def power(seeds: int, deviation: float, difference: float = MARGIN, level: float = 0.05) -> float:
    """Return how likely a paired t test of so many seeds finds a difference.

    Parameters
    ----------
    seeds : int
    deviation : float
        Standard deviation of the paired differences.
    difference : float, default MARGIN
        The true one.
    level : float, default 0.05
        Of the test, two-sided.

    Examples
    --------
    >>> [round(power(n, 0.8), 2) for n in (3, 10)]
    [0.24, 0.94]
    """
    if seeds < 2 or math.isnan(deviation):
        return math.nan
    if deviation == 0:
        return 1.0
    # integrated here: SciPy's noncentral t is nan far from its centre
    centre, critical = difference / deviation * math.sqrt(seeds), stats.t.ppf(1 - level / 2, seeds - 1)
    beyond = critical * _relative_deviations(seeds)
    return float((stats.norm.cdf(centre - beyond) + stats.norm.cdf(-centre - beyond)).mean())


def equivalence_power(seeds: int, deviation: float, margin: float = MARGIN, level: float = 0.05) -> float:
    """Return how likely the two one-sided tests find conditions equivalent that are.

    The normal distribution of the mean over the chi-square one of its standard deviation, integrated.

    Parameters
    ----------
    seeds, deviation
        As for `power`.
    margin : float, default MARGIN
    level : float, default 0.05
        Of each of the tests.

    Examples
    --------
    >>> [round(equivalence_power(n, 0.8), 2) for n in (3, 10)]
    [0.22, 0.95]
    """
    if seeds < 2 or math.isnan(deviation):
        return math.nan
    if deviation == 0:
        return 1.0
    critical = stats.t.ppf(1 - level, seeds - 1)
    # |mean| must be below margin - critical s / sqrt(n)
    room = np.maximum(margin / deviation * math.sqrt(seeds) - critical * _relative_deviations(seeds), 0)
    return float((2 * stats.norm.cdf(room) - 1).mean())


def seeds_for(deviation: float, level: float = 0.05, wanted: float = 0.8) -> int:
    """Return how many seeds a paired t test needs to find a difference of `MARGIN` with the power that is wanted.

    Examples
    --------
    >>> seeds_for(0.8), seeds_for(0.8, level=0.05 / 11)
    (8, 13)
    """
    return bisect_left(range(10_000), wanted, lo=2, key=lambda n: power(n, deviation, level=level))


def _relative_deviations(seeds: int) -> NDArray[np.float64]:
    """Return what the standard deviation of so many values is over the true one: equally likely quantiles."""
    quantiles, freedom = (np.arange(20_000) + 0.5) / 20_000, seeds - 1
    relative: NDArray[np.float64] = np.sqrt(stats.chi2.ppf(quantiles, freedom) / freedom)
    return relative


def _values(values: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise ActrelaxError(f"values must be (n,), got {x.shape}.")
    return x
