"""Statistics of a few paired seeds: intervals, differences, equivalence, and the power of their tests."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from actrelax.models.errors import ActrelaxError

LEVEL = 0.05
"""Of a test, or of all tests of a family together."""
MARGIN = 1.0
"""Largest difference in points of accuracy that counts as equivalent."""
RELATIVE_MARGIN = 0.1
"""The same as a share of the errors that the reference makes."""


def interval(values: ArrayLike, level: float = LEVEL) -> tuple[float, float]:
    """Return the confidence interval of the mean, by Student's t.

    Bootstraps are too narrow for a few seeds: SciPy's BCa intervals cover the mean of 10 normal values in 90 %.

    Parameters
    ----------
    values : array_like
        (n,), one per seed; the interval of a single value is nan.
    level : float, default LEVEL
        The interval is the one of 1 - level, 95 %.
    """
    x = _values(values)
    if len(x) < 2:
        return math.nan, math.nan
    return compare(x, np.zeros_like(x)).interval(level)


@dataclass(frozen=True)
class Paired:
    """Two conditions compared over the same seeds.

    seeds       the number of pairs
    difference  mean of the first minus the second
    deviation   standard deviation of the differences; nan for fewer than two pairs
    """

    seeds: int
    difference: float
    deviation: float

    @property
    def is_identical(self) -> bool:
        """Whether the two have the same value in every pair: they are one computation, and there is nothing to test."""
        return self.difference == self.deviation == 0

    @property
    def is_testable(self) -> bool:
        """Whether there are differences between pairs: equal ones, as of few images, say nothing about chance."""
        return self.deviation > 0

    @property
    def error(self) -> float:
        """Standard error of the difference."""
        return self.deviation / math.sqrt(self.seeds) if self.seeds else math.nan

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the interval of the difference that excludes 0 where the paired t test's p is below the level."""
        if not self.is_testable:
            end = self.difference if self.deviation == 0 else math.nan
            return end, end
        low, high = stats.t.interval(1 - level, self.seeds - 1, self.difference, self.error)
        return float(low), float(high)

    @property
    def p_difference(self) -> float:
        """Level of the paired t test: small means different. nan where nothing can be tested, likewise below."""
        if not self.is_testable:
            return math.nan
        return float(2 * stats.t.sf(abs(self.difference) / self.error, self.seeds - 1))

    def p_equivalence(self, margin: float = MARGIN) -> float:
        """Level of two one-sided t tests (TOST): small means equivalent within the margin."""
        if not self.is_testable:
            return math.nan
        return float(stats.t.sf((margin - abs(self.difference)) / self.error, self.seeds - 1))


def compare(first: ArrayLike, second: ArrayLike) -> Paired:
    """Compare two conditions, seed by seed.

    Parameters
    ----------
    first, second : array_like
        (n,), each pair of one seed.

    Raises
    ------
    ActrelaxError
        If the values are not pairs.
    """
    x, y = _values(first), _values(second)
    if len(x) != len(y):
        raise ActrelaxError(f"pairs need the same number of values on both sides, got {len(x)} and {len(y)}.")
    d = x - y
    mean = float(d.mean()) if len(d) else math.nan
    if len(d) < 2:
        return Paired(len(d), mean, math.nan)
    tied = np.ptp(d) <= 1e-9 * np.abs(x).max()
    return Paired(len(d), mean, 0.0 if tied else float(d.std(ddof=1)))


def require_statsmodels() -> None:
    """Raise an error unless statsmodels is installed, which corrects p values for their number."""
    if find_spec("statsmodels") is None:
        raise ActrelaxError('comparing conditions needs statsmodels: pip install "actrelax[analysis]".')


def holm(p: Sequence[float]) -> list[float]:
    """Adjust the p values of one table for their number (Holm 1979); nan stay, and don't count.

    Raises
    ------
    ActrelaxError
        If statsmodels is not installed.
    """
    adjusted = np.array(p, dtype=np.float64)
    known = ~np.isnan(adjusted)
    if known.sum() > 1:
        require_statsmodels()
        from statsmodels.stats.multitest import multipletests

        adjusted[known] = multipletests(adjusted[known], method="holm")[1]
    return [float(value) for value in adjusted]


def holm_levels(p: Sequence[float], level: float = LEVEL) -> list[float]:
    """Return the level at which Holm's procedure tests each p value of one table.

    level / k for the k-th from the largest; those that it keeps, at that of the first which it keeps. So an interval at
    this level excludes 0 where the adjusted p is below `level`. nan stay.

    Examples
    --------
    >>> holm_levels([0.001, 0.04, 0.02], level=0.06)
    [0.02, 0.06, 0.03]
    >>> holm_levels([0.001, 0.9, 0.04], level=0.06)
    [0.02, 0.03, 0.03]
    """
    known = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    levels, left = [math.nan] * len(p), len(known)
    for rank, (value, i) in enumerate(known):
        levels[i] = level / left
        if left == len(known) - rank and value < levels[i]:  # all so far are rejected
            left -= 1
    return levels


def power(seeds: int, deviation: float, difference: float = MARGIN, level: float = LEVEL) -> float:
    """Return the probability that a paired t test finds a difference.

    The square of its statistic has a noncentral F distribution. (SciPy's noncentral t, and with it statsmodels'
    TTestPower, is nan far from its centre, where most stored tables are.)

    Parameters
    ----------
    seeds : int
        The number of pairs.
    deviation : float
        Standard deviation of the paired differences.
    difference : float, default MARGIN
        The true one.
    level : float, default LEVEL
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
    critical = stats.t.ppf(1 - level / 2, seeds - 1) ** 2
    return float(stats.ncf.sf(critical, 1, seeds - 1, seeds * (difference / deviation) ** 2))


def equivalence_power(seeds: int, deviation: float, margin: float = MARGIN, level: float = LEVEL) -> float:
    """Return the probability that two one-sided tests find two conditions equivalent whose means are equal.

    The normal distribution of the mean over the chi-square one of its standard deviation, integrated.

    Parameters as for `power`; `level` is that of each test.

    Examples
    --------
    >>> [round(equivalence_power(n, 0.8), 2) for n in (3, 10)]
    [0.22, 0.95]
    """
    if seeds < 2 or math.isnan(deviation):
        return math.nan
    if deviation == 0:
        return 1.0
    # |mean| must be below margin - critical s / sqrt(n)
    room = margin / deviation * math.sqrt(seeds) - special.stdtrit(seeds - 1, 1 - level) * _estimated_errors(seeds)
    return float((2 * special.ndtr(np.maximum(room, 0)) - 1).mean())


@cache
def _estimated_errors(seeds: int) -> NDArray[np.float64]:
    """Return quantiles of a standard error as it is estimated, over the true one."""
    quantiles = (np.arange(20_000) + 0.5) / 20_000
    return np.asarray(np.sqrt(stats.chi2.ppf(quantiles, seeds - 1) / (seeds - 1)))


def seeds_for(deviation: float, level: float = LEVEL, wanted: float = 0.8) -> int:
    """Return the number of seeds with which a paired t test finds a difference of `MARGIN` with the wanted power.

    Examples
    --------
    >>> seeds_for(0.8), seeds_for(0.8, level=0.05 / 11)
    (8, 13)
    """
    return bisect_left(range(10_000), wanted, lo=2, key=lambda n: power(n, deviation, level=level))


def _values(values: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise ActrelaxError(f"values must be (n,), got {x.shape}.")
    return x
