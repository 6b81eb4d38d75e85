"""Intervals and planning: closed forms, scipy's own, and simulated odds."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis import AnalysisError
from analysis.intervals import (
    improvement_interval,
    interquartile_interval,
    interquartile_limit,
    interquartile_mean,
    mean_interval,
    num_seeds_for,
    optimality_gap,
    performance_profile,
    power_of_paired_test,
    probability_of_improvement,
)


def test_the_interquartile_mean_by_hand() -> None:
    assert interquartile_mean([5.0, -100.0, 1.0, 2.0, 3.0, 4.0, 100.0, 0.0]) == (1 + 2 + 3 + 4) / 4
    assert interquartile_mean([1.0, 2.0, 6.0]) == 3.0, "a quarter of three is none"
    np.testing.assert_allclose(interquartile_mean([[0, 1], [1, 1], [2, 1], [9, 5]]), [1.5, 1.0])


def test_probability_of_improvement_by_hand() -> None:
    # Pairs (ours, theirs): 2>1, 2=2, 4>1, 4>2.
    assert probability_of_improvement([2.0, 4.0], [1.0, 2.0], higher_is_better=True) == 3.5 / 4
    assert probability_of_improvement([2.0, 4.0], [1.0, 2.0], higher_is_better=False) == 0.5 / 4
    assert probability_of_improvement([1.0], [1.0], higher_is_better=True) == 0.5
    assert math.isnan(probability_of_improvement([], [1.0], higher_is_better=True))


def test_probability_of_improvement_is_mann_whitneys_u() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.integers(0, 5, 9).astype(float), rng.integers(0, 5, 7).astype(float)
    statistic = stats.mannwhitneyu(ours, theirs).statistic
    assert probability_of_improvement(ours, theirs, higher_is_better=True) == pytest.approx(statistic / 63)


def test_the_interval_of_a_mean_is_students() -> None:
    sample = np.random.default_rng(1).normal(size=7)
    known = stats.ttest_1samp(sample, 0.0).confidence_interval(0.9)
    mean, low, high = mean_interval([*sample, math.nan], confidence=0.9)
    assert (mean, low, high) == pytest.approx((sample.mean(), known.low, known.high))
    columns = mean_interval(np.stack([sample, 10 * sample], axis=1), confidence=0.9)
    assert columns[1] == pytest.approx([low, 10 * low])
    alone = mean_interval([3.0])
    assert alone[0] == 3.0
    assert np.isnan(alone[1:]).all()
    assert np.isnan(mean_interval([])).all()


def test_the_interval_of_an_interquartile_mean_is_yuens_with_the_limit_of_normal_samples() -> None:
    """scipy has Yuen's test of two samples: of a sample and its mirror image, the difference of trimmed means is twice the mean
    and the squared error twice that of one.
    """
    for size in (4, 5, 9, 16, 80):
        sample = np.random.default_rng(size).normal(1.0, size=size)
        statistic = stats.ttest_ind(sample, -sample, trim=0.25).statistic
        error = 2 * interquartile_mean(sample) / statistic / math.sqrt(2)
        low, high = interquartile_interval(sample, confidence=0.9)
        assert (high - low) / 2 == pytest.approx(interquartile_limit(size, 0.9) * error)
        assert (low + high) / 2 == pytest.approx(float(interquartile_mean(sample)))
    assert interquartile_limit(80, 0.9) == stats.t.ppf(0.95, 39)
    assert interquartile_interval([1.0, 2.0, 3.0]) == pytest.approx(mean_interval([1.0, 2.0, 3.0])[1:])
    assert np.isnan(interquartile_interval([1.0])).all()


@pytest.mark.parametrize("size", [4, 8])
def test_an_interval_of_an_interquartile_mean_holds_it(size: int) -> None:
    """Normal samples, of which Student's t covers 93.5% and 93.8%: 20,000, 4 standard errors, odds of an alarm 1 in 16,000."""
    low, high = interquartile_interval(np.random.default_rng(7).standard_normal((size, 20_000)))
    held = ((low <= 0) & (high >= 0)).mean()
    assert abs(held - 0.95) < 4 * math.sqrt(0.05 * 0.95 / 20_000)


def test_an_interval_of_improvement_holds_one_half_where_three_seeds_can_say_nothing() -> None:
    """Each of three runs above each of three others: one case in ten where agents are equal, so that 95% intervals must reach 0.5."""
    low, _ = improvement_interval([4.0, 5.0, 6.0], [1.0, 2.0, 3.0], higher_is_better=True)
    assert 0 < low < 0.5
    lower, _ = improvement_interval([4.0, 5.0, 6.0, 7.0, 8.0], [-1.0, 0.0, 1.0, 2.0, 3.0], higher_is_better=True)
    assert lower > 0.5, "five of five: one case in 252"


def test_an_interval_of_improvement_holds_what_it_must() -> None:
    """Odds 1/2, 1,000 pairs of samples: 95% of intervals or a little more hold it; 4 standard errors, odds of an alarm 1 in 32,000."""
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(1000):
        low, high = improvement_interval(rng.normal(size=6), rng.normal(size=6), higher_is_better=True)
        held += low <= 0.5 <= high
    assert held / 1000 > 0.95 - 4 * math.sqrt(0.05 * 0.95 / 1000)
    assert held / 1000 < 0.99
    low, high = improvement_interval([3.0, 4.0], [1.0, 2.0], higher_is_better=True)
    assert 0 < low < high == 1.0
    assert improvement_interval([3.0, 4.0], [1.0, 2.0], higher_is_better=False) == pytest.approx((0.0, 1 - low))
    assert np.isnan(improvement_interval([1.0], [1.0, 2.0], higher_is_better=True)).all()


def test_a_performance_profile_is_a_tail_and_its_area_the_gap() -> None:
    """The gap to a target is the area between the profile and 1 below the target (arXiv 2108.13264, section 4.3)."""
    scores = np.array([0.1, 0.4, 0.4, 0.9])
    assert performance_profile(scores, [0.0, 0.1, 0.4, 0.95], higher_is_better=True).tolist() == [1.0, 0.75, 0.25, 0.0]
    assert performance_profile(scores, [0.4], higher_is_better=False).tolist() == [0.25]
    edges = np.linspace(0.0, 0.8, 80001)
    area = float((1 - performance_profile(scores, edges, higher_is_better=True)).mean() * 0.8)
    assert optimality_gap(scores, 0.8, higher_is_better=True) == pytest.approx(area, abs=1e-4)
    assert optimality_gap(scores, 0.2, higher_is_better=False) == pytest.approx((0.2 + 0.2 + 0.7) / 4)
    assert math.isnan(optimality_gap([math.nan], 1.0, higher_is_better=True))


@pytest.mark.parametrize(("effect", "seeds"), [(1.0, 10), (-1.0, 10), (0.5, 34), (0.2, 199), (2.0, 5)])
def test_seeds_needed_are_those_of_the_textbook(effect: float, seeds: int) -> None:
    """Sample sizes of the two-sided paired t-test at 5% and a power of 80%, as tables and G*Power give them."""
    assert num_seeds_for(effect, 1.0) == seeds
    assert num_seeds_for(10 * effect, 10.0) == seeds


def test_the_needed_seeds_have_the_power_and_one_fewer_has_not() -> None:
    number = num_seeds_for(0.7, 1.3, power=0.9)
    assert power_of_paired_test(number, 0.7, 1.3) >= 0.9 > power_of_paired_test(number - 1, 0.7, 1.3)


def test_the_power_is_what_a_simulation_finds() -> None:
    """Seed 0, 4,000 t-tests of 8 pairs: their share of findings is binomial; 4 standard errors, odds of an alarm 1 in 16,000."""
    samples = np.random.default_rng(0).normal(0.9, 1.0, size=(4000, 8))
    found = (stats.ttest_1samp(samples, 0.0, axis=1).pvalue < 0.05).mean()
    power = power_of_paired_test(8, 0.9, 1.0)
    assert abs(found - power) < 4 * math.sqrt(power * (1 - power) / 4000)


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(AnalysisError, match="expected a difference other than 0"):
        num_seeds_for(0.0, 1.0)
    with pytest.raises(AnalysisError, match="expected one that 100 seeds can find"):
        num_seeds_for(0.01, 1.0, most=100)
    with pytest.raises(AnalysisError, match=r"got 1\.0, 1\.5 and 0\.95"):
        num_seeds_for(1.0, 1.0, power=1.5)
    assert num_seeds_for(1.0, 0.0) == 2
