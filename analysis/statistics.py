"""Statistics of a few paired seeds: intervals, differences, equivalence, and the power of their tests."""

from __future__ import annotations

import gc
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
"""Significance level of a test, or of a family of tests together."""
MARGIN = 1.0
"""Equivalence margin, in percentage points of accuracy."""
RELATIVE_MARGIN = 0.1
"""Equivalence margin, as a share of the reference's error rate."""


def interval(values: ArrayLike, level: float = LEVEL) -> tuple[float, float]:
    """Return the confidence interval of the mean, by Student's t.

    Bootstrap intervals are too narrow for a few seeds: SciPy's 95 % BCa intervals cover the mean of 10 normal values
    in 90 % of cases.

    Parameters
    ----------
    values : array_like
        (n,), one per seed; the interval of a single value is nan.
    level : float, default LEVEL
        The confidence is 1 - level.
    """
    x = _values(values)
    if len(x) < 2:
        return math.nan, math.nan
    return compare(x, np.zeros_like(x)).interval(level)


@dataclass(frozen=True)
class Paired:
    """Paired comparison of two conditions over the same seeds.

    seeds       number of pairs
    difference  mean of the first minus the second
    deviation   standard deviation of the differences; nan for fewer than two pairs
    """

    seeds: int
    difference: float
    deviation: float

    @property
    def is_identical(self) -> bool:
        """True if both values of every pair are equal, as for two runs of one computation."""
        return self.difference == self.deviation == 0

    @property
    def is_testable(self) -> bool:
        """True if the differences vary between pairs, as a t test needs."""
        return self.deviation > 0

    @property
    def error(self) -> float:
        """Standard error of the difference."""
        return self.deviation / math.sqrt(self.seeds) if self.seeds else math.nan

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the confidence interval of the difference; it excludes 0 if p_difference is below `level`."""
        if not self.is_testable:
            end = self.difference if self.deviation == 0 else math.nan
            return end, end
        low, high = stats.t.interval(1 - level, self.seeds - 1, self.difference, self.error)
        return float(low), float(high)

    @property
    def p_difference(self) -> float:
        """p value of the paired t test for a difference; nan if `is_testable` is False."""
        if not self.is_testable:
            return math.nan
        return float(2 * stats.t.sf(abs(self.difference) / self.error, self.seeds - 1))

    def p_equivalence(self, margin: float = MARGIN) -> float:
        """Return the p value of two one-sided t tests (TOST) for equivalence; nan if `is_testable` is False."""
        if not self.is_testable:
            return math.nan
        return float(stats.t.sf((margin - abs(self.difference)) / self.error, self.seeds - 1))


def compare(first: ArrayLike, second: ArrayLike) -> Paired:
    """Compare two conditions, seed by seed.

    Parameters
    ----------
    first, second : array_like
        (n,), in the same order of seeds.

    Raises
    ------
    ActrelaxError
        If the lengths differ.
    """
    x, y = _values(first), _values(second)
    if len(x) != len(y):
        raise ActrelaxError(f"a paired comparison needs as many first as second values, got {len(x)} and {len(y)}.")
    d = x - y
    mean = float(d.mean()) if len(d) else math.nan
    if len(d) < 2:
        return Paired(len(d), mean, math.nan)
    tied = np.ptp(d) <= 1e-9 * np.abs(x).max()
    return Paired(len(d), mean, 0.0 if tied else float(d.std(ddof=1)))


def require_statsmodels() -> None:
    """Raise an error if statsmodels, which corrects p values for multiple comparisons, is not installed."""
    if find_spec("statsmodels") is None:
        raise ActrelaxError('comparing conditions needs statsmodels: pip install "actrelax[analysis]".')


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p values for multiple comparisons (Holm 1979); nan values stay nan and are not counted.

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

        frozen = gc.get_freeze_count()  # by the caller, to whom what is frozen here is left
        gc.freeze()  # multipletests collects garbage, for seconds in a large process
        try:
            adjusted[known] = multipletests(adjusted[known], method="holm")[1]
        finally:
            if not frozen:
                gc.unfreeze()
    return [float(value) for value in adjusted]


def holm_levels(p: Sequence[float], level: float = LEVEL) -> list[float]:
    """Return the level at which Holm's procedure tests each p value.

    The k-th largest p value is tested at level / k. From the first hypothesis that is not rejected, all use that
    level. An interval at this level therefore excludes 0 exactly if the adjusted p value is below `level`. nan stays.

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
    """Return the power of a paired t test.

    Computed from the noncentral F distribution of the squared statistic, because SciPy's noncentral t, and
    statsmodels' TTestPower with it, is nan for the large effects of most stored tables.

    Parameters
    ----------
    seeds : int
        Number of pairs.
    deviation : float
        Standard deviation of the paired differences.
    difference : float, default MARGIN
        True mean difference.
    level : float, default LEVEL
        Two-sided level of the test.

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
    """Return the power of two one-sided tests for equivalence, if the true means are equal.

    The normal distribution of the mean is integrated over the chi distribution of its estimated standard error.

    Parameters are those of `power`; `level` is the level of each one-sided test.

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
    """Return quantiles of the ratio of estimated to true standard error."""
    quantiles = (np.arange(20_000) + 0.5) / 20_000
    return np.asarray(np.sqrt(stats.chi2.ppf(quantiles, seeds - 1) / (seeds - 1)))


MOST_SEEDS = 10_000
"""Largest number of seeds that `seeds_for` considers."""


def seeds_for(deviation: float, level: float = LEVEL, wanted: float = 0.8) -> int | None:
    """Return the number of seeds that a paired t test needs to find a difference of `MARGIN` with power `wanted`.

    Parameters
    ----------
    deviation : float
        Standard deviation of the paired differences, in percentage points.
    level : float, default LEVEL
        Two-sided level of the test.
    wanted : float, default 0.8
        Power, between 0 and 1.

    Returns
    -------
    int or None
        None if `MOST_SEEDS` seeds are not enough.

    Raises
    ------
    ActrelaxError
        For a deviation below 0, a level or a power that does not lie between 0 and 1, and nan.

    Examples
    --------
    >>> seeds_for(0.8), seeds_for(0.8, level=0.05 / 11)
    (8, 13)
    """
    if not deviation >= 0:  # also refuses nan, for which every comparison in the search is False
        raise ActrelaxError(f"deviation must be a number, 0 or more, got {deviation}.")
    for name, value in (("level", level), ("wanted", wanted)):
        if not 0 < value < 1:
            raise ActrelaxError(f"{name} must lie between 0 and 1, got {value}.")
    found = bisect_left(range(MOST_SEEDS + 1), wanted, lo=2, key=lambda n: power(n, deviation, level=level))
    return found if found <= MOST_SEEDS else None


def _values(values: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise ActrelaxError(f"values must be (n,), got {x.shape}.")
    return x
