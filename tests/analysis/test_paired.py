"""Comparisons of agents: numbers worked out by hand."""

import math

import pandas as pd
import pytest
from scipy import stats

from analysis import AnalysisError, agent_means, paired_differences, performance_profiles
from analysis.intervals import mean_interval, num_seeds_for
from analysis.paired import shared_seeds


def outcomes_of(**agents: list[float]) -> pd.DataFrame:
    """Outcomes; the k-th number of an agent is that of seed k, NaN stands for no run."""
    lines = [
        {"agent": agent, "seed": seed, "score": value}
        for agent, values in agents.items()
        for seed, value in enumerate(values)
        if not math.isnan(value)
    ]
    return pd.DataFrame(lines).sample(frac=1.0, random_state=1)  # the order of the lines must not matter


def test_differences_are_taken_seed_by_seed() -> None:
    outcomes = outcomes_of(beta=[1.0, 5.0, 12.0], fixed=[0.0, 3.0, 9.0], low=[-1.0, 2.0, math.nan])
    before = outcomes.copy()
    frame = paired_differences(outcomes, "score", "fixed", higher_is_better=True).set_index("agent")
    pd.testing.assert_frame_equal(outcomes, before)
    assert frame.index.tolist() == ["beta", "low"], "the best first"
    # Seed 2, which "low" lacks, is left out of all comparisons.
    assert frame.loc["beta", ["num_pairs", "mean", "left_out"]].tolist() == [2, 1.5, "2"]
    assert frame.loc["low", ["num_pairs", "mean", "deviation"]].tolist() == [2, -1.0, 0.0]
    both = outcomes[outcomes["agent"] != "low"]
    line = paired_differences(both, "score", "fixed", higher_is_better=True).iloc[0]
    assert line[["num_pairs", "mean", "deviation", "left_out"]].tolist() == [3, 2.0, 1.0, ""]
    assert (line["low"], line["high"]) == pytest.approx(mean_interval([1.0, 2.0, 3.0])[1:])
    assert line["p_value"] == pytest.approx(stats.ttest_rel([1.0, 5.0, 12.0], [0.0, 3.0, 9.0]).pvalue)
    # beta beats fixed in 1>0, 5>0, 5>3, 12>0, 12>3, 12>9: 6 of 9.
    assert line["improvement"] == pytest.approx(6 / 9)
    assert line["num_seeds_needed"] == num_seeds_for(2.0, 1.0)
    with_effect = paired_differences(both, "score", "fixed", higher_is_better=True, effect=0.5).set_index("agent")
    assert with_effect.loc["beta", "num_seeds_needed"] == 34


def test_where_less_is_better_the_lowest_difference_comes_first() -> None:
    outcomes = outcomes_of(beta=[1.0, 2.0], fixed=[2.0, 3.0], worse=[3.0, 3.0])
    frame = paired_differences(outcomes, "score", "fixed", higher_is_better=False)
    assert frame["agent"].tolist() == ["beta", "worse"]
    assert frame["improvement"].tolist() == [0.875, 0.25]


def test_one_pair_has_no_interval_and_says_nothing_of_seeds() -> None:
    line = paired_differences(outcomes_of(beta=[1.0], fixed=[0.0]), "score", "fixed", higher_is_better=True).iloc[0]
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


def test_the_seeds_that_an_agent_lacks_are_left_out_and_named() -> None:
    shared = shared_seeds(outcomes_of(a=[1.0, 2.0, 3.0], b=[4.0, math.nan, 6.0], c=[7.0, 8.0, 9.0, 1.0]), "score")
    assert shared.table.index.tolist() == [0, 2]
    assert shared.table["b"].tolist() == [4.0, 6.0]
    assert shared.left_out == {1: ("b",), 3: ("a", "b")}
    assert shared.remarks() == [
        "Compared on the 2 seeds that all agents have; left out: seeds 1, 3 (not there for a, b)."
    ]


def test_the_direction_comes_from_one_table_and_cannot_be_turned_round() -> None:
    """An area under the NLL of less is better: with the wrong direction the worst agent would come first, "improvement" 1."""
    outcomes = outcomes_of(good=[0.1, 0.2], bad=[0.8, 0.9]).rename(columns={"score": "area"}).assign(column="probe/nll")
    line = paired_differences(outcomes, "area", "bad").iloc[0]
    assert (line["agent"], line["improvement"], line["higher_is_better"]) == ("good", 1.0, False)
    with pytest.raises(AnalysisError, match="expected False for area, of which less is better, got True"):
        paired_differences(outcomes, "area", "bad", higher_is_better=True)
    with pytest.raises(AnalysisError, match="measure: expected one with a known direction, got 'score'"):
        paired_differences(outcomes_of(a=[1.0], b=[2.0]), "score", "a")


def test_areas_over_different_windows_are_refused() -> None:
    outcomes = outcomes_of(a=[0.1, 0.2], b=[0.8, 0.9]).rename(columns={"score": "area"})
    outcomes = outcomes.assign(column="probe/nll", first_window=1, last_window=[10, 5, 10, 10])
    with pytest.raises(AnalysisError, match="expected areas over the same windows, got last windows 5, 10"):
        paired_differences(outcomes, "area", "a")


def test_profiles_and_gaps_of_agents() -> None:
    frame = performance_profiles(
        outcomes_of(a=[0.2, 0.6], b=[0.9, 0.5]), "score", [0.5, 0.8], higher_is_better=True
    ).set_index(["agent", "threshold"])
    assert frame["share"].tolist() == [0.5, 0.0, 0.5, 0.5]
    assert frame["gap"].tolist() == pytest.approx([0.15, 0.4, 0.0, 0.15])
    assert frame["num_seeds"].tolist() == [2] * 4


def test_frames_that_cannot_be_compared_are_refused() -> None:
    outcomes = outcomes_of(beta=[1.0, 2.0], fixed=[0.0, 1.0])
    outcomes["return"] = outcomes["score"]
    with pytest.raises(AnalysisError, match="reference: expected one of beta, fixed, got 'fixed:1'"):
        paired_differences(outcomes, "return", "fixed:1")
    with pytest.raises(AnalysisError, match="got two of beta with seed 1"):
        paired_differences(pd.concat([outcomes, outcomes.query("seed == 1 and agent == 'beta'")]), "return", "fixed")
    with pytest.raises(AnalysisError, match=r"got none of retrun \(did you mean return\?\)"):
        paired_differences(outcomes, "retrun", "fixed")
    with pytest.raises(AnalysisError, match="expected another agent beside 'fixed'"):
        paired_differences(outcomes[outcomes["agent"] == "fixed"], "return", "fixed")
    apart = outcomes.assign(seed=outcomes["seed"] + 10 * (outcomes["agent"] == "beta"))
    with pytest.raises(AnalysisError, match="expected a seed that all of beta, fixed have, got none"):
        paired_differences(apart, "return", "fixed")
    with pytest.raises(AnalysisError, match="expected runs of one environment"):
        agent_means(outcomes.assign(env_id=["a", "b", "a", "b"]), "score")
    mixed = outcomes.assign(configuration=["x", "y", "x", "y"], configuration_differs=["lora_r=8", "lora_r=4"] * 2)
    with pytest.raises(AnalysisError, match=r"one configuration, got 2: lora_r=8 \(x\); lora_r=4 \(y\)"):
        agent_means(mixed, "score")
