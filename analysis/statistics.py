"""Statistics of a few paired seeds: intervals, differences, equivalence, and the power of their tests."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from actrelax.models.errors import ActrelaxError

MARGIN = 1.0
"""Largest difference in points of accuracy that counts as equivalent."""


def interval(values: ArrayLike) -> tuple[float, float]:
    """Return the 95 % confidence interval of the mean, by Student's t.

    Bootstraps are too narrow for a few seeds: SciPy's BCa intervals cover the mean of 10 normal values in 90 %.

    Parameters
    ----------
    values : array_like
        (n,), one per seed; the interval of a single value is nan.
    """
    x = _values(values)
    if len(x) < 2:
        return math.nan, math.nan
    if np.ptp(x) == 0:
        return float(x[0]), float(x[0])
    low, high = stats.ttest_1samp(x, 0).confidence_interval()
    return float(low), float(high)


@dataclass(frozen=True)
class Paired:
    """Two conditions compared over the same seeds.

    seeds          the number of pairs
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
        (n,), each pair of one seed.
    margin : float, default MARGIN
        Largest difference that counts as equivalent, in the values' unit.

    The p are nan for fewer than two pairs, and for equal differences, which say nothing about chance: accuracies on
    few images are often tied.

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
        return Paired(len(d), mean, math.nan, math.nan, math.nan, math.nan, math.nan)
    if np.ptp(d) <= 1e-9 * np.abs(x).max():
        return Paired(len(d), mean, mean, mean, 0.0, math.nan, math.nan)
    low, high = interval(d)
    different = stats.ttest_1samp(d, 0).pvalue
    above = stats.ttest_1samp(d, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(d, margin, alternative="less").pvalue
    return Paired(len(d), mean, low, high, float(d.std(ddof=1)), float(different), float(max(above, below)))


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
    if known.any():
        require_statsmodels()
        from statsmodels.stats.multitest import multipletests

        adjusted[known] = multipletests(adjusted[known], method="holm")[1]
    return [float(value) for value in adjusted]


def power(seeds: int, deviation: float, difference: float = MARGIN, level: float = 0.05) -> float:
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
    critical = stats.t.ppf(1 - level / 2, seeds - 1) ** 2
    return float(stats.ncf.sf(critical, 1, seeds - 1, seeds * (difference / deviation) ** 2))


def equivalence_power(seeds: int, deviation: float, margin: float = MARGIN, level: float = 0.05) -> float:
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
    quantiles = (np.arange(20_000) + 0.5) / 20_000
    error = np.sqrt(stats.chi2.ppf(quantiles, seeds - 1) / (seeds - 1))  # estimated over true standard error
    # |mean| must be below margin - critical s / sqrt(n)
    room = margin / deviation * math.sqrt(seeds) - stats.t.ppf(1 - level, seeds - 1) * error
    return float((2 * stats.norm.cdf(np.maximum(room, 0)) - 1).mean())


def seeds_for(deviation: float, level: float = 0.05, wanted: float = 0.8) -> int:
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
