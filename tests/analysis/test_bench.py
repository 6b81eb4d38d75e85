"""Scores of the bench: numbers worked out by hand, and intervals whose coverage is counted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import AnalysisError, compare_agents
from analysis.bench import (
    AREA,
    GAIN,
    at_equal_compute,
    bench_outcomes,
    by_instance,
    improvements,
    profiles,
    score_agents,
    with_gains,
)
from analysis.plots.bench import plot_bench


def rows_of(**accuracies: list[float]) -> pd.DataFrame:
    """Rows of two windows of runs of two instances; ``beta_x=[0.1, 0.3]`` are the last accuracies of beta on x."""
    lines = []
    for name, values in accuracies.items():
        agent, _, instance = name.rpartition("_")
        for seed, value in enumerate(values):
            for window in (1, 2):
                lines.append(
                    {
                        "run": f"{instance}/{agent}-{seed}",
                        "env_id": "ATESD-Bench-v0",
                        "agent": {"full": "fixed:1"}.get(agent, agent),
                        "seed": seed,
                        "window": window,
                        "configuration": instance,
                        "configuration_differs": f"instance={instance}",
                        "status": "running" if window == 1 else "truncated",
                        "update": 4 * window,
                        "rollout/num_tokens": 100,
                        "reward/total": 0.1,
                        "time/window_sec": 1.0,
                        "time/controller_sec": 0.5,
                        "probe/nll": 2.0 - value if window == 1 else 1.0 - value,
                        "probe/accuracy": math.nan if window == 1 else value,
                        "agent/branch_updates": 3.0 if agent == "beta" else math.nan,
                        "agent/scored_tokens": 70.0 if agent == "beta" else math.nan,
                        "instance": instance,
                    }
                )
    return pd.DataFrame(lines)


@pytest.fixture
def outcomes() -> pd.DataFrame:
    frame = rows_of(
        full_x=[0.2, 0.2],
        full_y=[0.5, 0.7],
        oracle_x=[0.6, 0.6],
        oracle_y=[0.6, 0.6],
        beta_x=[0.4, 0.8],
        beta_y=[0.1, 0.1],
    )
    before = frame.copy()
    found = with_gains(bench_outcomes(frame.sample(frac=1.0, random_state=0)))
    pd.testing.assert_frame_equal(frame, before)
    return found


def test_outcomes_are_those_of_the_last_window_with_their_costs(outcomes: pd.DataFrame) -> None:
    line: Any = outcomes.set_index(["instance", "agent", "seed"]).loc[("x", "beta", 1)]
    costs = ["num_updates", "num_tokens", "branch_updates", "branch_tokens", "scored_tokens"]
    assert line[["probe/accuracy", *costs]].tolist() == [0.8, 8, 200, 6.0, 0.0, 140.0]
    assert line[["probe/nll", AREA, "controller_sec"]].tolist() == pytest.approx([0.2, 0.7, 1.0])
    assert outcomes.loc[outcomes["agent"] == "oracle", "branch_updates"].eq(0.0).all()


def test_at_equal_compute_branches_count(outcomes: pd.DataFrame) -> None:
    """Beta spends 3 updates on branches before each of its windows of 4: within 8 updates it has made one, within 14 both."""
    frame = rows_of(full_x=[0.2, 0.2], beta_x=[0.4, 0.8])
    whole, equal = bench_outcomes(frame), at_equal_compute(frame)
    beta, full = (
        {**part.set_index("seed")["probe/nll"]}
        for part in (equal[equal["agent"] == "beta"], equal[equal["agent"] == "fixed:1"])
    )
    assert beta == pytest.approx({0: 1.6, 1: 1.2})
    assert full == pytest.approx({0: 0.8, 1: 0.8})
    assert equal.loc[equal["agent"] == "beta", "probe/accuracy"].tolist() == [0.2, 0.2], (
        "not measured yet: as the worst"
    )
    assert equal["branch_updates"].tolist() == whole["branch_updates"].tolist() == [6.0, 6.0, 0.0, 0.0]
    assert at_equal_compute(frame, 12 / 8)["probe/nll"].equals(equal["probe/nll"]), "what was spent before counts too"
    for budget in (14 / 8, math.inf):
        pd.testing.assert_frame_equal(at_equal_compute(frame, budget), whole)
    least = at_equal_compute(frame, 0.5)
    assert least["probe/nll"].tolist() == pytest.approx([1.8] * 4), "beta has made no window within 4 updates"
    for budget in (0.0, 0.1, math.nan):
        with pytest.raises(AnalysisError, match="budget: expected"):
            at_equal_compute(frame, budget)


def test_the_gain_lies_between_full_exposure_and_the_oracle(outcomes: pd.DataFrame) -> None:
    gains = outcomes.groupby(["instance", "agent"])[GAIN].apply(list)
    assert gains["x", "fixed:1"] == pytest.approx([0.0, 0.0])
    assert gains["x", "oracle"] == pytest.approx([1.0, 1.0])
    assert gains["x", "beta"] == pytest.approx([0.5, 1.5])
    assert np.isnan(gains["y", "beta"]).all(), "the oracle is no better there: there is nothing to win"
    known = pd.DataFrame(
        [("y", "oracle", "probe/accuracy", 1.0), ("y", "fixed:1", "probe/nll", 9.0)],
        columns=["instance", "agent", "metric", "mean"],
    )
    again = with_gains(outcomes, known).groupby(["instance", "agent"])[GAIN].apply(list)
    assert again["y", "beta"] == pytest.approx([-1.25, -1.25])
    nobody = with_gains(outcomes[outcomes["agent"] == "beta"])
    assert nobody[GAIN].isna().all()


def test_scores_of_the_gain(outcomes: pd.DataFrame) -> None:
    scores = score_agents(outcomes, GAIN).set_index("agent")
    assert scores.index.tolist()[2] == "fixed:1"
    assert scores.loc["beta", ["mean", "iqm", "num_instances", "num_runs"]].tolist() == pytest.approx([1.0, 1.0, 1, 2])
    assert scores.loc["beta", "optimality_gap"] == pytest.approx(0.25), "what is beyond the oracle makes up for nothing"
    half = 12.706 * 0.5  # t of one degree of freedom, standard error
    assert scores.loc["beta", ["low", "high"]].tolist() == pytest.approx([1 - half, 1 + half], abs=1e-3)
    assert scores.loc["beta", "branch_updates"] == 6.0


def test_an_instance_counts_as_much_as_another_and_less_is_better_where_it_is() -> None:
    frame = rows_of(a_x=[0.0, 0.0, 0.0], a_y=[0.9], b_x=[0.5, 0.5, 0.5], b_y=[0.5])
    scores = score_agents(bench_outcomes(frame), "probe/accuracy").set_index("agent")
    assert scores["mean"].to_dict() == pytest.approx({"a": 0.45, "b": 0.5})
    assert math.isnan(scores.loc["a", "optimality_gap"])
    assert scores.loc[["a", "b"], ["low", "high", "iqm_low", "iqm_high"]].isna().all(axis=None), (
        "one run tells no spread"
    )
    assert score_agents(bench_outcomes(frame), "probe/nll")["agent"].tolist() == ["b", "a"]
    assert improvements(bench_outcomes(frame), "probe/nll").loc["a", "b"] == pytest.approx(0.5)


def test_intervals_are_of_seeds_within_instances() -> None:
    """Instances differ much more than seeds: an interval of all runs alike would be ten times as wide."""
    rng = np.random.default_rng(1)
    levels = {"x": 0.1, "y": 0.5, "z": 0.9}
    values = {f"a_{name}": (level + 0.01 * rng.standard_normal(8)).tolist() for name, level in levels.items()}
    frame = rows_of(**values)
    line = score_agents(bench_outcomes(frame), "probe/accuracy").iloc[0]
    assert 0.002 < line["high"] - line["low"] < 0.02
    assert line["iqm_low"] < line["iqm"] < line["iqm_high"], "the middle half of all instances' runs"
    assert line["iqm"] == pytest.approx(0.5, abs=0.02)
    again = score_agents(bench_outcomes(frame), "probe/accuracy").iloc[0]
    assert (line["low"], line["iqm_high"]) == (again["low"], again["iqm_high"]), (
        "the generator is its own, with a fixed seed"
    )


def test_profiles_and_probabilities(outcomes: pd.DataFrame) -> None:
    found = profiles(outcomes, "probe/accuracy", [0.0, 0.3, 0.65])
    assert found.loc[found["agent"] == "beta", "share"].tolist() == [1.0, 0.5, 0.25]
    table = improvements(outcomes, "probe/accuracy")
    assert table.loc["beta", "fixed:1"] == pytest.approx((1.0 + 0.0) / 2)
    assert table.loc["beta", "oracle"] == pytest.approx((0.5 + 0.0) / 2)
    assert table.loc["oracle", "beta"] == pytest.approx(1 - 0.25)


def test_each_instance_has_its_lines(outcomes: pd.DataFrame) -> None:
    table = by_instance(outcomes).set_index(["instance", "agent", "measure"])
    assert table.loc[("x", "beta", "probe/accuracy"), ["mean", "num_seeds"]].tolist() == pytest.approx([0.6, 2])
    assert table.loc[("y", "beta", GAIN), "num_seeds"] == 0
    assert table.loc[("x", "beta", "probe/accuracy"), ["low", "high"]].tolist() == [0.0, 1.0], "a share ends there"
    assert table.loc[("x", "beta", GAIN), "low"] < -5.0, "a gain does not"


def test_what_cannot_be_compared_is_refused(outcomes: pd.DataFrame) -> None:
    lacking = outcomes[~((outcomes["agent"] == "beta") & (outcomes["instance"] == "y"))]
    with pytest.raises(AnalysisError, match="got none of beta on y; make them"):
        score_agents(lacking, "probe/accuracy")
    with pytest.raises(AnalysisError, match="expected gain in the outcomes, got only nulls"):
        score_agents(outcomes.assign(gain=math.nan), GAIN)
    with pytest.raises(AnalysisError, match="instance"):
        bench_outcomes(rows_of(a_x=[0.1]).drop(columns="instance"))
    once = rows_of(a_x=[0.1])
    with pytest.raises(AnalysisError, match="two of a with seed 0"):
        bench_outcomes(pd.concat([once, once.assign(run="again")]))


def test_runs_of_an_instance_with_unlike_configurations_are_refused() -> None:
    frame = rows_of(a_x=[0.1, 0.2], b_x=[0.3, 0.4], b_y=[0.3])
    differs = frame["configuration_differs"]
    as_loaded = frame.astype({"configuration": "category", "configuration_differs": "category"})
    pd.testing.assert_frame_equal(bench_outcomes(as_loaded), bench_outcomes(frame))
    is_short = (frame["agent"] == "b") & (frame["instance"] == "x") & (frame["seed"] == 1)
    mixed = frame.assign(configuration_differs=differs + ", windows=" + np.where(is_short, "5", "10"))
    mixed.loc[is_short, "configuration"] = "cccc"
    for judge in (bench_outcomes, at_equal_compute):
        with pytest.raises(
            AnalysisError, match=r"expected runs of one configuration, got 2: .*windows=10 .*windows=5 \(cccc\)"
        ):
            judge(mixed)


def test_agents_are_compared_on_the_seeds_that_all_have() -> None:
    frame = rows_of(a_x=[0.1, 0.2, 0.9], b_x=[0.3, 0.3, 0.3, 0.3], a_y=[0.5, 0.5], b_y=[0.5, 0.5])
    outcomes = bench_outcomes(frame[(frame["agent"] != "b") | (frame["instance"] != "x") | (frame["seed"] != 0)])
    scores = score_agents(outcomes, "probe/accuracy").set_index("agent")
    assert scores["left_out"].tolist() == ["x: 0, 3"] * 2
    assert scores["mean"].to_dict() == pytest.approx({"a": (0.55 + 0.5) / 2, "b": (0.3 + 0.5) / 2})
    assert scores["num_runs"].tolist() == [4, 4]
    assert improvements(outcomes, "probe/accuracy").loc["a", "b"] == (0.5 + 0.5) / 2
    assert profiles(outcomes, "probe/accuracy", [0.15])["share"].tolist() == [1.0, 1.0]
    kept = by_instance(outcomes).set_index(["instance", "agent", "measure"])["num_seeds"]
    assert (kept["x", "a", "probe/accuracy"], kept["x", "b", "probe/accuracy"]) == (3, 3), (
        "alone, each has all of its own"
    )
    with pytest.raises(AnalysisError, match="expected a seed that all agents have on x, got none"):
        score_agents(outcomes[(outcomes["agent"] != "a") | (outcomes["seed"] == 0)], "probe/accuracy")


@pytest.mark.parametrize(
    "judge", [score_agents, improvements, lambda outcomes, measure: profiles(outcomes, measure, [0])]
)
def test_an_unknown_measure_is_refused_with_the_nearest(outcomes: pd.DataFrame, judge: Callable[..., Any]) -> None:
    with pytest.raises(AnalysisError, match=r"measure: expected one of gain, .*did you mean probe/nll\?"):
        judge(outcomes, "probe/nl")


def test_the_picture_shows_every_agent(outcomes: pd.DataFrame) -> None:
    figure, data = plot_bench(outcomes, "probe/accuracy", return_data=True)
    assert set(data["agent"]) == {"beta", "fixed:1", "oracle"}
    assert len(figure.axes) == 2
    assert {label.get_text() for label in figure.axes[1].get_yticklabels()} == {"beta", "fixed:1", "oracle"}
    plot_bench(outcomes)


@pytest.mark.parametrize(
    ("judge", "column"),
    [
        (with_gains, "probe/accuracy"),
        (by_instance, "probe/accuracy"),
        (lambda outcomes: score_agents(outcomes, "probe/accuracy"), "num_tokens"),
        (lambda outcomes: score_agents(outcomes, "probe/accuracy"), "is_broken"),
        (lambda outcomes: improvements(outcomes, "probe/accuracy"), "probe/accuracy"),
        (lambda outcomes: compare_agents(outcomes[outcomes["instance"] == "x"], "probe/accuracy"), "num_tokens"),
    ],
)
def test_what_is_no_number_is_refused(outcomes: pd.DataFrame, judge: Callable[[pd.DataFrame], Any], column: str):
    for name, spoilt in ((column, "\\"), (column, math.inf), ("agent", 10**30), ("agent", None)):
        odd = outcomes.assign(**{name: outcomes[name].astype(object)})
        odd.loc[odd["instance"] == "x", name] = spoilt
        with pytest.raises(AnalysisError, match=f"in the column {name}"):
            judge(odd)
    as_text = outcomes.assign(**{column: outcomes[column].astype(float).astype(str)})
    pd.testing.assert_frame_equal(judge(as_text), judge(outcomes), check_dtype=False)
