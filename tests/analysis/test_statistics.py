"""Intervals have their coverage, tests their level, and the stated power is correct."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from actrelax.analysis.statistics import (
    MOST_SEEDS,
    compare,
    equivalence_power,
    holm,
    holm_levels,
    interval,
    power,
    seeds_for,
)
from actrelax.models.errors import ActrelaxError


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_of_few_values_cover_what_they_say(seeds):
    drawn = np.random.default_rng(0).normal(2.0, 3.0, (1000, seeds))
    covered = [low <= 2.0 <= high for low, high in map(interval, drawn)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_values_that_leave_nothing_to_chance():
    assert all(map(math.isnan, interval([1.0])))
    assert interval([2.0, 2.0, 2.0]) == (2.0, 2.0)
    same, apart = compare([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]), compare([3.0, 4.0], [1.0, 2.0])
    one, tied = compare([1.0], [0.5]), compare([97.5, 97.78, 98.06], [97.22, 97.5, 97.78])  # of 360 images
    assert (same.difference, apart.difference, one.difference, tied.difference) == pytest.approx((0, 2, 0.5, 0.28))
    for found in (same, apart, one, tied):
        assert math.isnan(found.p_difference), "a chance was told where there is nothing to tell it from"
        assert math.isnan(found.p_equivalence())
    assert [found.is_identical for found in (same, apart, one, tied)] == [True, False, False, False]


def test_comparisons_are_paired():
    """Differences of ten points between seeds hide an effect of one point, unless seeds are paired."""
    generator = np.random.default_rng(1)
    seed = generator.normal(50, 10, 8)
    x, y = seed + generator.normal(1, 0.2, 8), seed
    found = compare(x, y)
    assert found.p_difference == pytest.approx(stats.ttest_rel(x, y).pvalue)
    assert found.p_difference < 1e-3 < stats.ttest_ind(x, y).pvalue
    for level in (0.05, 0.05 / 11):
        expected = stats.ttest_rel(x, y).confidence_interval(1 - level)
        assert found.interval(level) == pytest.approx((expected.low, expected.high))
    assert found.deviation == pytest.approx((x - y).std(ddof=1))


def test_equivalence_by_two_one_sided_tests():
    d = np.array([0.3, -0.2, 0.1, 0.4, 0.0])
    expected = max(
        stats.ttest_1samp(d, -1, alternative="greater").pvalue, stats.ttest_1samp(d, 1, alternative="less").pvalue
    )
    assert compare(d, 0 * d).p_equivalence() == pytest.approx(expected)
    assert compare(d + 0.9, 0 * d).p_equivalence() > 0.4
    assert compare(d + 5, 0 * d).p_equivalence() > 0.999
    assert compare(d, 0 * d).p_equivalence(0.2) > compare(d, 0 * d).p_equivalence()


def test_holm():
    """Holm's procedure multiplies the smallest p by the number of tests, the next by one less, and never decreases."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, math.nan, 0.6])[0] == 1.0
    assert math.isnan(holm([0.9, math.nan, 0.6])[1])
    assert holm([0.02, math.nan]) == [0.02, pytest.approx(math.nan, nan_ok=True)]


def test_the_interval_at_holms_level_excludes_zero_where_the_corrected_test_finds_a_difference():
    """Holds even if a p value below 0.05 follows one that Holm's procedure retains."""
    generator = np.random.default_rng(3)
    tables = [
        [compare(d, 0 * d) for d in generator.normal(0.3 * np.arange(12)[:, None], 1.0, (12, 6))] for _ in range(4)
    ]
    late, found = 0, 0
    for table in tables:
        p = [paired.p_difference for paired in table]
        for paired, adjusted, level in zip(table, holm(p), holm_levels(p), strict=True):
            low, high = paired.interval(level)
            assert (low > 0 or high < 0) == (adjusted < 0.05)
            found += adjusted < 0.05
            late += paired.p_difference < 0.05 <= adjusted
    assert min(late, found) >= 3
    assert holm_levels([0.02, math.nan]) == [0.05, pytest.approx(math.nan, nan_ok=True)]


@pytest.mark.parametrize("seeds", [3, 6])
def test_power_is_how_often_it_is_found(seeds):
    generator = np.random.default_rng(2)
    apart, same = (generator.normal(mean, 0.8, (20_000, seeds)) for mean in (1.0, 0.0))
    found = stats.ttest_1samp(apart, 0, axis=1).pvalue < 0.05
    assert np.mean(found) == pytest.approx(power(seeds, 0.8), abs=0.01)
    above, below = (
        stats.ttest_1samp(same, bound, axis=1, alternative=side).pvalue
        for bound, side in ((-1, "greater"), (1, "less"))
    )
    assert np.mean(np.maximum(above, below) < 0.05) == pytest.approx(equivalence_power(seeds, 0.8), abs=0.01)


def test_power_at_the_ends():
    assert math.isnan(power(1, 0.8))
    assert math.isnan(equivalence_power(1, 0.8))
    assert power(3, 0.0) == equivalence_power(3, 0.0) == 1.0
    assert power(5, 0.8) > power(5, 0.8, level=0.01)
    assert equivalence_power(5, 0.8) > equivalence_power(5, 0.8, level=0.01)
    needed = seeds_for(1.5, level=0.01)
    assert power(needed - 1, 1.5, level=0.01) < 0.8 <= power(needed, 1.5, level=0.01)
    assert 0.5 < power(2, 0.14) < 0.65  # nan in statsmodels
    assert power(4, 0.8) == pytest.approx(TTestPower().power(1 / 0.8, 4, 0.05), rel=1e-9)


@pytest.mark.parametrize(("deviation", "level", "needed"), [(0.0, 0.05, 2), (35.0, 0.05, 9617), (40.0, 0.05, None)])
def test_the_number_of_seeds_ends_where_the_search_does(deviation, level, needed):
    assert seeds_for(deviation, level) == needed
    if needed is None:
        assert power(MOST_SEEDS, deviation, level=level) < 0.8
    assert seeds_for(math.inf) is None


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"deviation": math.nan}, "deviation must be a number, 0 or more, got nan."),
        ({"deviation": -1.0}, "deviation must be a number, 0 or more, got -1.0."),
        ({"deviation": 1.0, "wanted": math.nan}, "wanted must lie between 0 and 1, got nan."),
        ({"deviation": 1.0, "level": 0.0}, "level must lie between 0 and 1, got 0.0."),
    ],
)
def test_numbers_for_which_no_number_of_seeds_is_right(given, sentence):
    with pytest.raises(ActrelaxError) as refused:
        seeds_for(**given)
    assert str(refused.value) == sentence


def test_what_is_no_pair():
    with pytest.raises(
        ActrelaxError, match=r"^a paired comparison needs as many first as second values, got 2 and 1\.$"
    ):
        compare([1.0, 2.0], [1.0])
    with pytest.raises(ActrelaxError, match=r"^values must be \(n,\), got \(1, 2\)\.$"):
        interval([[1.0, 2.0]])
