"""Comparisons of agents: numbers worked out by hand, and intervals that repeat with their seed."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import AnalysisError, agent_means, paired_differences
from analysis.intervals import (
    bootstrap_interval,
    improvement_interval,
    interquartile_mean,
    num_seeds_for,
    power_of_paired_test,
    probability_of_improvement,
)


def outcomes_of(**agents: list[float]) -> pd.DataFrame:
    """Outcomes; the k-th number of an agent is that of seed k, NaN stands for no run."""
    lines = [
        {"agent": agent, "seed": seed, "score": value}
        for agent, values in agents.items()
        for seed, value in enumerate(values)
        if not math.isnan(value)
    ]
    return pd.DataFrame(lines).sample(frac=1.0, random_state=1)  # the order of the lines must not matter


def test_the_interquartile_mean_by_hand() -> None:
    assert interquartile_mean([5.0, -100.0, 1.0, 2.0, 3.0, 4.0, 100.0, 0.0]) == (1 + 2 + 3 + 4) / 4
    assert interquartile_mean([1.0, 2.0, 6.0]) == 3.0, "a quarter of three is none"
    np.testing.assert_allclose(interquartile_mean([[0, 1], [1, 1], [2, 1], [9, 5]]), [1.5, 1.0])


def test_probability_of_improvement_by_hand() -> None:
    # Pairs (ours, theirs): 2>1, 2=2, 4>1, 4>2.
    assert probability_of_improvement([2.0, 4.0], [1.0, 2.0]) == 3.5 / 4
    assert probability_of_improvement([2.0, 4.0], [1.0, 2.0], higher_is_better=False) == 0.5 / 4
    assert probability_of_improvement([1.0], [1.0]) == 0.5
    assert math.isnan(probability_of_improvement([], [1.0]))


def test_probability_of_improvement_is_mann_whitneys_u() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.integers(0, 5, 9).astype(float), rng.integers(0, 5, 7).astype(float)
    statistic = stats.mannwhitneyu(ours, theirs).statistic
    assert probability_of_improvement(ours, theirs) == pytest.approx(statistic / 63)


def test_intervals_repeat_with_the_seed_and_leave_the_global_generator_alone() -> None:
    sample = np.random.default_rng(1).normal(size=12)
    state = np.random.get_state()[1].copy()  # noqa: NPY002 (that it is not touched is what is tested)
    first, again, other = (bootstrap_interval(sample, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    assert improvement_interval(sample, sample + 1, seed=3) == improvement_interval(sample, sample + 1, seed=3)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_an_interval_of_the_mean_is_about_two_standard_errors_wide() -> None:
    """Seed 0, 400 normal numbers: the bootstrap's 95% interval is mean +- 1.96 / 20, to a tenth (5 times its own error)."""
    sample = stats.norm.ppf((np.arange(400) + 0.5) / 400)
    low, high = bootstrap_interval(sample, num_resamples=4000)
    assert high - low == pytest.approx(2 * 1.96 * sample.std() / 20, rel=0.1)
    assert low < 0 < high
    narrow = bootstrap_interval(sample, num_resamples=4000, confidence=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_an_interval_of_vectors_resamples_whole_rows() -> None:
    rows = np.array([[0.0, 10.0], [1.0, 11.0], [5.0, 15.0]])
    low, high = bootstrap_interval(rows)
    np.testing.assert_allclose(low[0] + 10, low[1])
    np.testing.assert_allclose(high[1] - high[0], 10)
    nothing, _ = bootstrap_interval(rows[:1])
    assert np.isnan(nothing).all()
    assert nothing.shape == (2,)


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


def test_differences_are_taken_seed_by_seed() -> None:
    outcomes = outcomes_of(beta=[1.0, 5.0, 12.0], fixed=[0.0, 3.0, 9.0], low=[-1.0, 2.0, math.nan])
    before = outcomes.copy()
    frame = paired_differences(outcomes, "score", "fixed").set_index("agent")
    pd.testing.assert_frame_equal(outcomes, before)
    assert frame.index.tolist() == ["beta", "low"], "the best first"
    assert frame.loc["beta", ["num_pairs", "mean", "deviation"]].tolist() == [3, 2.0, 1.0]
    assert frame.loc["low", ["num_pairs", "mean", "deviation"]].tolist() == [2, -1.0, 0.0]
    assert 1.0 <= frame.loc["beta", "low"] < 2.0 < frame.loc["beta", "high"] <= 3.0
    assert (frame.loc["low", "low"], frame.loc["low", "high"]) == (-1.0, -1.0)
    # beta beats fixed in 1>0, 5>0, 5>3, 12>0, 12>3, 12>9: 6 of 9.
    assert frame.loc["beta", "improvement"] == pytest.approx(6 / 9)
    assert frame.loc["beta", "num_seeds_needed"] == num_seeds_for(2.0, 1.0)
    with_effect = paired_differences(outcomes, "score", "fixed", effect=0.5).set_index("agent")
    assert with_effect.loc["beta", "num_seeds_needed"] == 34


def test_where_less_is_better_the_lowest_difference_comes_first() -> None:
    outcomes = outcomes_of(beta=[1.0, 2.0], fixed=[2.0, 3.0], worse=[3.0, 3.0])
    frame = paired_differences(outcomes, "score", "fixed", higher_is_better=False)
    assert frame["agent"].tolist() == ["beta", "worse"]
    assert frame["improvement"].tolist() == [0.875, 0.25]


def test_one_pair_has_no_interval_and_says_nothing_of_seeds() -> None:
    line = paired_differences(outcomes_of(beta=[1.0], fixed=[0.0]), "score", "fixed").iloc[0]
    assert line["mean"] == 1.0
    assert line[["low", "high", "iqm_low", "deviation", "improvement_low"]].isna().all()
    assert line["num_seeds_needed"] is pd.NA


def test_means_of_agents_by_hand() -> None:
    frame = agent_means(outcomes_of(b=[0.0, 1.0, 2.0, 9.0], a=[5.0]), "score")
    assert frame["agent"].tolist() == ["a", "b"]
    assert frame["mean"].tolist() == [5.0, 3.0]
    assert frame["iqm"].tolist() == [5.0, 1.5]
    assert frame["num_seeds"].tolist() == [1, 4]
    assert frame["low"].isna().tolist() == [True, False]


def test_frames_that_cannot_be_compared_are_refused() -> None:
    outcomes = outcomes_of(beta=[1.0, 2.0], fixed=[0.0, 1.0])
    with pytest.raises(AnalysisError, match="reference: expected one of beta, fixed, got 'fixed:1'"):
        paired_differences(outcomes, "score", "fixed:1")
    with pytest.raises(AnalysisError, match="got two of beta with seed 1"):
        paired_differences(pd.concat([outcomes, outcomes_of(beta=[math.nan, 2.0])]), "score", "fixed")
    with pytest.raises(AnalysisError, match="got none of nll"):
        paired_differences(outcomes, "nll", "fixed")
    with pytest.raises(AnalysisError, match="expected another agent beside 'fixed'"):
        paired_differences(outcomes[outcomes["agent"] == "fixed"], "score", "fixed")
    with pytest.raises(AnalysisError, match="expected runs of one environment"):
        agent_means(outcomes.assign(env_id=["a", "b", "a", "b"]), "score")
