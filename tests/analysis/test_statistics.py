"""What runs came to, and how agents compare: numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import AnalysisError, compare_agents, final_outcomes
from analysis.contrasts import to_best, to_best_fixed, to_reference
from analysis.intervals import mean_interval
from analysis.statistics import fixed_ratio, run_seconds


def make_rows(agent: str, seed: int, nll: list[float], **columns: list[Any]) -> list[dict[str, Any]]:
    """The rows of one run: two updates and ten tokens a window, and a reward of 1, 2, 3, ..."""
    return [
        {
            "run": f"{agent}-seed{seed}",
            "env_id": "ATESD-Tiny-v0",
            "agent": agent,
            "seed": seed,
            "window": window,
            "update": 2 * window,
            "rollout/num_tokens": 10.0,
            "probe/nll": value,
            "probe/accuracy": math.nan,
            "reward/total": float(window),
            "status": "running" if window < len(nll) else "truncated",
            "time/window_sec": 4.0,
            "time/controller_sec": 0.5,
            **{name: values[window - 1] for name, values in columns.items()},
        }
        for window, value in enumerate(nll, start=1)
    ]


def frame_of(*runs: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame([row for run in runs for row in run])
    return frame.astype({"agent": "category", "env_id": "category", "run": "string", "status": "string"})


def outcomes_of(metric: str, **by_agent: list[float]) -> pd.DataFrame:
    """Outcomes of seeds 0, 1, 2, ...; an agent's name has _ for : and p for a point."""
    return pd.DataFrame(
        [
            {
                "run": f"{agent}-{seed}",
                "agent": agent.replace("_", ":").replace("p", "."),
                "seed": seed,
                "is_broken": False,
                "num_updates": 10,
                "num_tokens": 100,
                "num_trained_tokens": 100,
                "controller_sec": 1.0 + seed,
                "run_sec": 5.0,
                metric: value,
            }
            for agent, values in by_agent.items()
            for seed, value in enumerate(values)
        ]
    )


def line_of(comparison: pd.DataFrame, agent: str) -> pd.Series[Any]:
    (line,) = [row for _, row in comparison.iterrows() if row["agent"] == agent]
    return line


def test_an_outcome_is_the_last_measurement_and_costs_add_up():
    accuracy = {"probe/accuracy": [math.nan, 0.4, math.nan]}
    frame = frame_of(make_rows("beta", 1, [3.0, 2.0, 1.5], **accuracy))
    before = frame.copy()
    (outcome,) = final_outcomes(frame, ["probe/nll", "probe/accuracy", "return"]).to_dict(orient="records")
    assert outcome == {
        "run": "beta-seed1",
        "agent": "beta",
        "seed": 1,
        "is_broken": False,
        "num_windows": 3,
        "num_updates": 6,
        "num_tokens": 30,
        "num_trained_tokens": 30,
        "controller_sec": 1.5,
        "run_sec": 13.5,
        "probe/nll": 1.5,
        "probe/accuracy": 0.4,
        "return": 6.0,
    }
    pd.testing.assert_frame_equal(frame, before)


def test_a_baseline_trains_on_other_tokens_than_it_samples_and_has_no_return():
    """Of two runs in one frame; the one without the column learned from all that it sampled, as every controller does."""
    baseline = {"rollout/num_tokens": [0, 0], "update/num_tokens": [7, 8], "reward/total": [math.nan, math.nan]}
    frame = frame_of(make_rows("sft", 0, [2.0, 1.0], **baseline), make_rows("beta", 0, [2.0, 1.0]))
    outcomes = final_outcomes(frame, ["probe/nll", "return"]).set_index("agent")
    assert outcomes.loc["sft", ["num_tokens", "num_trained_tokens"]].tolist() == [0, 15]
    assert outcomes.loc["beta", ["num_tokens", "num_trained_tokens"]].tolist() == [20, 20]
    assert math.isnan(outcomes.loc["sft", "return"])
    assert compare_agents(outcomes.reset_index(), ["probe/nll"])["num_trained_tokens"].tolist() == [20, 15]


def test_what_an_agent_makes_on_branches_is_part_of_its_cost():
    branches = {"agent/branch_updates": [6, 0, 4], "agent/branch_tokens": [50, 0, 30]}
    frame = frame_of(make_rows("lookahead", 0, [3.0, 2.0, 1.0], **branches), make_rows("beta", 0, [3.0, 2.0, 1.0]))
    outcomes = final_outcomes(frame, ["probe/nll"]).set_index("agent")[
        ["num_updates", "num_tokens", "num_trained_tokens"]
    ]
    assert outcomes.loc["lookahead"].tolist() == [6 + 10, 30 + 80, 30 + 80]
    assert outcomes.loc["beta"].tolist() == [6, 30, 30]


def test_rows_in_any_order_give_the_same_outcome():
    frame = frame_of(make_rows("beta", 0, [3.0, 2.0, 1.0]), make_rows("random", 0, [3.0, 2.5, 2.0]))
    shuffled = frame.sample(frac=1.0, random_state=1)
    metrics = ["probe/nll", "return"]
    pd.testing.assert_frame_equal(final_outcomes(shuffled, metrics), final_outcomes(frame, metrics))


def test_a_broken_run_is_marked_and_counts_as_its_worst_measurement():
    status, accuracy = ["running", "running", "terminated"], [0.2, 0.6, math.nan]
    rows = make_rows("beta", 0, [3.0, 2.0, math.nan], status=status, **{"probe/accuracy": accuracy})
    (outcome,) = final_outcomes(frame_of(rows), ["probe/nll", "probe/accuracy"]).to_dict(orient="records")
    assert outcome["is_broken"] is True
    assert (outcome["probe/nll"], outcome["probe/accuracy"]) == (3.0, 0.2)


def test_an_unknown_controller_time_stays_unknown():
    outcomes = final_outcomes(frame_of(make_rows("beta", 0, [1.0], **{"time/controller_sec": [math.nan]})), ["return"])
    assert math.isnan(outcomes["controller_sec"][0])


def test_runs_of_an_older_version_get_the_sum_of_what_was_timed():
    frame = frame_of(make_rows("beta", 0, [2.0, 1.0])).rename(columns={"time/window_sec": "time/probe_sec"})
    assert run_seconds(frame).tolist() == [9.0]


@pytest.mark.parametrize(
    ("metrics", "runs", "message"),
    [
        (["probe/nl"], [("beta", 0)], "metric: expected one of probe/accuracy, .*, got 'probe/nl'"),
        (["probe/accuracy"], [("beta", 0)], "expected probe/accuracy to be measured"),
        (["probe/nll"], [("beta", 0), ("beta", 0)], "two of beta with seed 0"),
    ],
)
def test_frames_that_cannot_be_compared_are_refused(metrics: list[str], runs: list[tuple[str, int]], message: str):
    frames = [frame_of(make_rows(agent, seed, [1.0])) for agent, seed in runs]
    frame = pd.concat([frame.assign(run=f"run {index}") for index, frame in enumerate(frames)])
    with pytest.raises(AnalysisError, match=message):
        final_outcomes(frame, metrics)


def test_environments_are_not_mixed():
    frame = frame_of(make_rows("beta", 0, [1.0]), make_rows("beta", 1, [1.0], env_id=["ATESD-Toy-v0"]))
    with pytest.raises(AnalysisError, match="expected runs of one environment, got ATESD-Tiny-v0, ATESD-Toy-v0"):
        final_outcomes(frame, ["return"])


def test_differences_are_paired_by_seed():
    """Seeds differ by 100, agents by 1 on each: paired, nothing is uncertain."""
    comparison = compare_agents(
        outcomes_of("probe/nll", fixed_1=[0.0, 100.0, 200.0], beta=[-1.0, 99.0, 199.0]), ["probe/nll"]
    )
    beta = line_of(comparison, "beta")
    assert (beta["to_reference"], beta["to_reference_low"], beta["to_reference_high"]) == (-1.0, -1.0, -1.0)
    assert (beta["reference"], beta["num_seeds"]) == ("fixed:1", 3)
    assert beta["mean"] == 99.0
    assert (beta["low"], beta["high"]) == pytest.approx(mean_interval([-1.0, 99.0, 199.0])[1:])
    assert (beta["num_updates"], beta["num_tokens"], beta["controller_sec"], beta["run_sec"]) == (10, 100, 2.0, 5.0)


def test_a_seed_that_one_of_the_two_lacks_drops_out():
    outcomes = outcomes_of("return", fixed_1=[1.0, 2.0, 3.0], beta=[2.0, 4.0])
    beta = line_of(compare_agents(outcomes, ["return"]), "beta")
    assert beta["to_reference"] == 1.5
    assert (beta["num_seeds"], beta["left_out"]) == (2, "2")


def test_the_best_fixed_ratio_has_the_best_mean_and_is_told_for_each_agent():
    outcomes = outcomes_of("probe/accuracy", fixed_0=[1.0, 0.0, 0.1], fixed_0p5=[0.0, 0.4, 0.4], beta=[0.3, 0.3, 0.3])
    comparison = compare_agents(outcomes, ["probe/accuracy"])
    beta = line_of(comparison, "beta")
    assert beta["best_fixed"] == "fixed:0"
    assert beta["to_best_fixed"] == pytest.approx(0.3 - 1.1 / 3)
    assert beta["to_best_fixed_low"] < beta["to_best_fixed"] < beta["to_best_fixed_high"]
    assert line_of(comparison, "fixed:0")["best_fixed"] == "fixed:0.5", "for a fixed ratio the best of the others"
    assert (beta["best"], line_of(comparison, "fixed:0")["to_best"]) == ("fixed:0", 0.0)
    assert beta["reference"] is None
    assert math.isnan(beta["to_reference"])


def test_the_columns_are_those_of_the_contrasts():
    rng = np.random.default_rng(0)
    outcomes = outcomes_of(
        "probe/nll", **{name: rng.normal(size=6).tolist() for name in ("beta", "fixed_0", "fixed_1")}
    )
    table = outcomes.pivot(index="seed", columns="agent", values="probe/nll").to_numpy()
    lines = (
        compare_agents(outcomes, ["probe/nll"], confidence=0.9).set_index("agent").loc[["beta", "fixed:0", "fixed:1"]]
    )
    for name, contrast in {
        "to_reference": to_reference(table, 2, confidence=0.9),
        "to_best": to_best(table, higher_is_better=False, confidence=0.9)[0],
        "to_best_fixed": to_best_fixed(table, [1, 2], higher_is_better=False, confidence=0.9),
    }.items():
        np.testing.assert_array_equal(lines[name], contrast.difference)
        np.testing.assert_array_equal(lines[f"{name}_low"], contrast.low)
        np.testing.assert_array_equal(lines[f"{name}_high"], contrast.high)
    assert "to_best_fixed_p" not in lines


def test_lower_is_better_where_it_is():
    outcomes = outcomes_of("probe/nll", fixed_0=[1.0, 1.0], fixed_1=[2.0, 2.0])
    comparison = compare_agents(outcomes, ["probe/nll"])
    assert comparison["agent"].tolist() == ["fixed:0", "fixed:1"], "best first"
    assert comparison["best"].tolist() == ["fixed:0", "fixed:0"]
    assert comparison["to_best"].tolist() == [0.0, 1.0]
    assert comparison["to_best_fixed"].tolist() == [-1.0, 1.0]


def test_one_seed_gives_no_interval():
    line = line_of(compare_agents(outcomes_of("return", fixed_0=[1.0], fixed_1=[2.0], beta=[4.0]), ["return"]), "beta")
    assert (line["mean"], line["to_reference"], line["to_best_fixed"]) == (4.0, 2.0, 2.0)
    assert all(math.isnan(line[name]) for name in ("low", "high", "to_reference_low", "to_best_fixed_low"))


def test_agents_that_share_no_seed_are_not_compared():
    outcomes = outcomes_of("return", fixed_1=[1.0, 2.0], beta=[2.0, 4.0])
    outcomes.loc[outcomes["agent"] == "beta", "seed"] += 10
    comparison = compare_agents(outcomes, ["return"])
    assert comparison["num_seeds"].tolist() == [0, 0]
    assert comparison[["mean", "to_reference", "to_best"]].isna().all(axis=None)
    assert comparison["left_out"].tolist() == ["0, 1, 10, 11"] * 2


def test_only_specs_of_one_ratio_are_fixed_ratios():
    assert fixed_ratio("fixed:0.25") == 0.25
    assert fixed_ratio("fixed:1") == 1.0
    assert fixed_ratio("fixed:1.0") == 1.0
    assert fixed_ratio("linear:0:1") is None
    assert fixed_ratio("my.fixed:Half") is None


def test_a_run_without_its_updates_is_named():
    frame = frame_of(make_rows("a", 0, [3.0]), make_rows("b", 0, [2.0]))
    frame["update"] = frame["update"].where(frame["agent"] == "a").astype("Int64")
    with pytest.raises(AnalysisError, match="run b-seed0: expected its updates in the column update"):
        final_outcomes(frame, "probe/nll")
