"""What every function asks of its frame: one check each, asked by all."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import (
    AnalysisError,
    agent_means,
    area_under_curve,
    compare,
    decision_returns,
    exposure_by_progress,
    final_outcomes,
    learning_curves,
    mismatch_by_ratio,
    mismatch_trend,
    paired_differences,
    performance_profiles,
    plot_beta_density,
    plot_exposure,
    plot_exposure_trajectories,
    plot_health,
    plot_learning_curves,
    plot_mismatch_by_ratio,
    plot_ratio_sweep,
    time_to_threshold,
)

Function = Callable[[pd.DataFrame], Any]


def frame_of() -> pd.DataFrame:
    """Two windows of two agents with two seeds."""
    lines = [
        {
            "run": f"{agent}-{seed}",
            "env_id": "ATESD-Tiny-v0",
            "agent": agent,
            "seed": seed,
            "window": window,
            "update": window,
            "status": "truncated" if window == 2 else "running",
            "exposure/reveal_ratio": ratio,
            "student/mismatch": 1.0 + ratio + seed,
            "rollout/num_tokens": 10,
            "rollout/length": 5.0,
            "probe/nll": 2.0 - ratio - 0.1 * window + 0.1 * seed,
            "probe/grounded": -1.0,
            "reward/progress": 0.1,
            "reward/total": 0.1,
            "agent/c1": 2.0,
            "agent/c2": 2.0,
        }
        for agent, ratio in (("fixed:0", 0.0), ("fixed:1", 1.0))
        for seed in (0, 1)
        for window in (1, 2)
    ]
    return pd.DataFrame(lines).astype({"run": "string", "agent": "category", "seed": "Int64", "status": "string"})


def outcomes_of(frame: pd.DataFrame) -> pd.DataFrame:
    """A line for each run of the rows, without what final_outcomes checks."""
    return frame[frame["window"] == 2].drop(columns="window")


def credited(frame: pd.DataFrame) -> pd.DataFrame:
    return decision_returns(frame, gamma=0.9, lookahead=1, grounded_weight=0.1)


GROUPING: dict[str, Function] = {
    "learning_curves": learning_curves,
    "area_under_curve": area_under_curve,
    "time_to_threshold": lambda frame: time_to_threshold(frame, "probe/nll", 1.0),
    "exposure_by_progress": exposure_by_progress,
    "mismatch_by_ratio": mismatch_by_ratio,
    "mismatch_trend": mismatch_trend,
    "decision_returns": credited,
    "final_outcomes": lambda frame: final_outcomes(frame, "probe/nll"),
    "compare": lambda frame: compare(frame, "probe/nll"),
    "agent_means": lambda frame: agent_means(outcomes_of(frame), "probe/nll"),
    "paired_differences": lambda frame: paired_differences(outcomes_of(frame), "probe/nll", "fixed:1"),
    "performance_profiles": lambda frame: performance_profiles(outcomes_of(frame), "probe/nll", 1.0),
    "plot_ratio_sweep": lambda frame: plot_ratio_sweep(outcomes_of(frame), "probe/nll"),
    "plot_exposure": plot_exposure,
    "plot_exposure_trajectories": plot_exposure_trajectories,
    "plot_learning_curves": plot_learning_curves,
    "plot_health": plot_health,
    "plot_beta_density": plot_beta_density,
    "plot_mismatch_by_ratio": plot_mismatch_by_ratio,
}
"""Functions that join runs, or hand on what others join."""

grouping = pytest.mark.parametrize("function", GROUPING.values(), ids=GROUPING)


@grouping
def test_a_folder_that_was_loaded_under_two_names_is_not_two_runs(function: Function) -> None:
    frame = frame_of()
    assert function(frame) is not None
    copy = frame[frame["run"] == "fixed:1-0"].assign(run="copy")
    with pytest.raises(
        AnalysisError, match=r"one run for each agent and seed, got two of fixed:1 with seed 0.*; choose one"
    ):
        function(pd.concat([frame, copy], ignore_index=True))


@grouping
def test_seeds_that_are_no_whole_numbers_are_refused(function: Function) -> None:
    frame = frame_of()
    with pytest.raises(AnalysisError, match="seed: expected whole numbers, got 'first'; number the seeds"):
        function(frame.assign(seed=frame["seed"].map({0: "first", 1: "second"}).astype(object)))


def test_a_run_without_an_agent_is_refused() -> None:
    frame = frame_of()
    with pytest.raises(AnalysisError, match="expected an agent of every run, got a null; name it"):
        compare(frame.assign(agent=frame["agent"].where(frame["seed"] == 0)), "probe/nll")


def test_the_names_of_the_two_runs_are_told() -> None:
    frame = frame_of()
    copy = frame[frame["run"] == "fixed:1-0"].assign(run="copy")
    with pytest.raises(AnalysisError, match=r"got two of fixed:1 with seed 0 \(fixed:1-0, copy\); choose one of them"):
        learning_curves(pd.concat([frame, copy]))


def test_runs_without_a_seed_are_told_apart_by_their_names_but_not_paired() -> None:
    frame = frame_of().assign(seed=pd.array([None] * 8, dtype="Int64"))
    assert learning_curves(frame)["num_runs"].tolist() == [2] * 4
    for function in (final_outcomes, lambda rows, column: agent_means(area_under_curve(rows, column), "area")):
        with pytest.raises(AnalysisError, match="expected a seed of every run, got none of fixed:0-0; leave it out"):
            function(frame, "probe/nll")


@pytest.mark.parametrize("function", [learning_curves, area_under_curve, plot_exposure, credited])
def test_rows_that_two_runs_of_one_name_would_share_are_refused(function: Function) -> None:
    """Two loads of runs with like names, one below the other, would be read as runs with each window twice."""
    with pytest.raises(
        AnalysisError, match="one row for each run and window, got two of fixed:0-0, window 1; load runs by one"
    ):
        function(pd.concat([frame_of(), frame_of().assign(seed=7)]))


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300, "diverged"])
@pytest.mark.parametrize(
    "name",
    [
        name
        for name in GROUPING
        if name not in ("exposure_by_progress", "plot_exposure_trajectories", "plot_beta_density")
    ],
)
def test_what_is_no_finite_number_is_refused(name: str, value: Any) -> None:
    """An infinite outcome makes every mean infinite and every interval NaN; what it counts as is the caller's to say."""
    frame = frame_of()
    columns = {"plot_health": "rollout/length", "decision_returns": "reward/progress"}
    column = "student/mismatch" if "mismatch" in name else columns.get(name, "probe/nll")
    frame[column] = frame[column].astype(object)
    frame.loc[3, column] = value
    with pytest.raises(AnalysisError, match=rf"in the column {column}, got {re.escape(repr(value))}; put what it"):
        GROUPING[name](frame)


NAMED: dict[str, Callable[[pd.DataFrame, str], Any]] = {
    "learning_curves": learning_curves,
    "area_under_curve": area_under_curve,
    "time_to_threshold": lambda frame, name: time_to_threshold(frame, name, 1.0),
    "mismatch_by_ratio": mismatch_by_ratio,
    "mismatch_trend": mismatch_trend,
    "final_outcomes": final_outcomes,
    "compare": compare,
    "agent_means": lambda frame, name: agent_means(outcomes_of(frame), name),
    "paired_differences": lambda frame, name: paired_differences(outcomes_of(frame), name, "fixed:1"),
    "performance_profiles": lambda frame, name: performance_profiles(outcomes_of(frame), name, 1.0),
    "plot_ratio_sweep": lambda frame, name: plot_ratio_sweep(outcomes_of(frame), name),
    "plot_learning_curves": plot_learning_curves,
    "plot_learning_curves beside a sound one": lambda frame, name: plot_learning_curves(
        frame, ["student/mismatch", name]
    ),
    "plot_mismatch_by_ratio": plot_mismatch_by_ratio,
}
"""Functions that take the name of a column."""


@pytest.mark.parametrize("function", NAMED.values(), ids=NAMED)
def test_a_misspelt_column_is_named_and_the_nearest_suggested(function: Callable[[pd.DataFrame, str], Any]) -> None:
    assert function(frame_of(), "probe/nll") is not None
    with pytest.raises(AnalysisError, match=r"got (none of )?'?probe/nl'?\b.* \(did you mean probe/nll\?\)"):
        function(frame_of(), "probe/nl")
