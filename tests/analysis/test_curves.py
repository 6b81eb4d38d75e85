"""Curves, areas and times: small frames, numbers worked out by hand."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from analysis import (
    AnalysisError,
    agent_means,
    area_under_curve,
    learning_curves,
    paired_differences,
    time_to_threshold,
)


def frame_of(runs: dict[str, list[float]], **columns: object) -> pd.DataFrame:
    """Runs named agent-seed with these scores from window 1 on."""
    lines = [
        {
            "run": name,
            "env_id": "ATESD-Tiny-v0",
            "agent": name.rpartition("-")[0],
            "seed": int(name.rpartition("-")[2]),
            "window": window,
            "score": value,
            **columns,
        }
        for name, values in runs.items()
        for window, value in enumerate(values, start=1)
    ]
    frame = pd.DataFrame(lines).astype({"agent": "category", "env_id": "category", "run": "string", "seed": "Int64"})
    return frame.sample(frac=1.0, random_state=2)


def test_a_learning_curve_is_the_mean_over_the_runs_that_measured() -> None:
    nan = math.nan
    frame = frame_of({"a-0": [1.0, nan, 5.0], "a-1": [3.0, nan, 6.0], "a-2": [5.0, nan], "b-0": [7.0, 8.0]})
    before = frame.copy()
    curves = learning_curves(frame, "score")
    pd.testing.assert_frame_equal(frame, before)
    assert list(curves.columns) == ["env_id", "agent", "column", "window", "mean", "low", "high", "iqm", "num_runs"]
    assert curves["agent"].tolist() == ["a", "a", "b", "b"]
    assert curves["window"].tolist() == [1, 3, 1, 2], "window 2 of a was never measured"
    assert curves["mean"].tolist() == [3.0, 5.5, 7.0, 8.0]
    assert curves["num_runs"].tolist() == [3, 2, 1, 1]
    assert curves["low"].isna().tolist() == [False, False, True, True]
    # Student's t with 2 and 1 degrees of freedom: 4.303 x 2 / sqrt(3), and 12.706 x 0.5.
    assert curves["high"].tolist()[:2] == pytest.approx([3.0 + 4.303 * 2 / 3**0.5, 5.5 + 12.706 * 0.5], rel=1e-3)
    assert (curves["low"] + curves["high"]).tolist()[:2] == pytest.approx([6.0, 11.0])


def test_a_curve_of_four_runs_leaves_out_the_odd_one_in_its_interquartile_mean() -> None:
    curves = learning_curves(frame_of({"a-0": [0.0], "a-1": [1.0], "a-2": [2.0], "a-3": [99.0]}), "score")
    assert curves["iqm"].tolist() == [1.5]


def broken_frame() -> pd.DataFrame:
    """a-0 breaks in its second window, right after its best measurement."""
    frame = frame_of({"a-0": [2.0, 1.0], "a-1": [4.0, 3.0, 2.0, 1.0]}).rename(columns={"score": "probe/nll"})
    is_end = (frame["run"] == "a-0") & (frame["window"] == 2)
    frame["status"] = np.where(is_end, "terminated", "running")
    return frame


def test_the_curve_of_a_student_that_broke_goes_on_at_its_worst() -> None:
    frame = broken_frame()
    before = frame.copy()
    curves = learning_curves(frame, "probe/nll")
    pd.testing.assert_frame_equal(frame, before)
    assert curves["mean"].tolist() == [3.0, 2.0, 2.0, 1.5], "of a-1 alone, the last two were 2 and 1"
    assert curves["num_runs"].tolist() == [2, 2, 2, 2]
    areas = area_under_curve(frame, "probe/nll")
    assert areas["area"].tolist() == pytest.approx([(1.5 + 1.5 + 2.0) / 3, 2.5])
    assert areas["last_window"].tolist() == [4, 4]
    without = learning_curves(frame.assign(status="running"), "probe/nll")
    assert without["mean"].tolist() == [3.0, 2.0, 2.0, 1.0], "one that is still going on is not broken"


def test_a_student_that_broke_before_it_was_measured_stays_at_the_worst_of_all() -> None:
    nan = math.nan
    frame = frame_of({"a-0": [nan], "a-1": [nan, 0.2, 0.5]}).rename(columns={"score": "probe/accuracy"})
    frame["status"] = np.where(frame["run"] == "a-0", "terminated", "running")
    curves = learning_curves(frame, "probe/accuracy")
    assert curves["mean"].tolist() == pytest.approx([0.2, 0.35])
    assert area_under_curve(frame, "probe/accuracy")["area"].tolist() == pytest.approx([0.2, 0.35])


@pytest.mark.parametrize("function", [learning_curves, lambda *args: agent_means(area_under_curve(*args), "area")])
def test_runs_of_unlike_configurations_are_not_joined(function: Callable[..., object]) -> None:
    frame = frame_of({"a-0": [1.0, 2.0], "a-1": [1.0, 2.0]})
    frame["configuration"] = np.where(frame["seed"] == 0, "aaaa", "bbbb")
    frame["configuration_differs"] = np.where(frame["seed"] == 0, "windows=10", "windows=5")
    with pytest.raises(AnalysisError, match=r"expected runs of one configuration, got 2: .*windows=5") as caught:
        function(frame, "score")
    assert "windows=10" in str(caught.value)
    assert "frame[frame['configuration'] == " in str(caught.value)
    assert function(frame.assign(configuration="aaaa"), "score") is not None
    with pytest.raises(AnalysisError, match="load them by one call of load_runs, which tells the fields"):
        function(frame.drop(columns="configuration_differs"), "score")


def test_the_area_is_the_trapezoids_over_the_span() -> None:
    areas = area_under_curve(
        frame_of({"a-0": [4.0, 2.0, 0.0], "a-1": [1.0, math.nan, 3.0, 5.0], "b-0": [7.0]}), "score"
    )
    assert areas["run"].tolist() == ["a-0", "a-1", "b-0"]
    # a-1: (1 + 3) / 2 * 2 + (3 + 5) / 2 = 8 over 3 windows.
    assert areas["area"].tolist() == [2.0, 8 / 3, 7.0]
    assert areas[["first_window", "last_window", "num_measured"]].to_numpy().tolist() == [
        [1, 3, 3],
        [1, 4, 3],
        [1, 1, 1],
    ]


def test_the_first_window_that_reaches_a_threshold() -> None:
    frame = frame_of({"a-0": [0.1, 0.5, 0.4, 0.6, 0.7], "a-1": [0.1, 0.2], "b-0": [math.nan, 0.9]})
    times = time_to_threshold(frame, "score", 0.5, higher_is_better=True)
    assert times["is_reached"].tolist() == [True, False, True]
    assert times["window"].fillna(0).tolist() == [2, 0, 2]
    assert times["last_window"].tolist() == [5, 2, 2]
    twice = time_to_threshold(frame, "score", 0.5, higher_is_better=True, windows_in_a_row=2)
    assert twice["window"].fillna(0).tolist() == [4, 0, 0]
    lower = time_to_threshold(frame, "score", 0.15, higher_is_better=False)
    assert lower["window"].fillna(0).tolist() == [1, 1, 0]
    nll = frame.rename(columns={"score": "probe/nll"})
    told = time_to_threshold(nll, "probe/nll", 0.15)
    assert told["window"].fillna(0).tolist() == [1, 1, 0], "of an NLL less is better, without being told"
    with pytest.raises(AnalysisError, match="expected False for probe/nll, of which less is better, got True"):
        time_to_threshold(nll, "probe/nll", 0.15, higher_is_better=True)
    with pytest.raises(AnalysisError, match="known direction, got 'score'; pass higher_is_better=True or False"):
        time_to_threshold(frame, "score", 0.15)


def test_a_student_that_broke_did_not_reach_a_threshold() -> None:
    frame = pd.concat([broken_frame(), broken_frame().assign(run="b-0", agent="b", seed=0, **{"probe/nll": math.nan})])
    frame = frame[(frame["agent"] == "a") | (frame["status"] == "terminated")]
    times = time_to_threshold(frame, "probe/nll", 2.0)
    assert times["run"].tolist() == ["a-0", "a-1", "b-0"], (
        "one that broke before it was measured is no run to leave out"
    )
    assert times["is_broken"].tolist() == [True, False, True]
    assert times["is_reached"].tolist() == [False, True, False]
    assert times["window"].fillna(0).tolist() == [0, 3, 0]
    assert times["last_window"].tolist() == [2, 4, 2]


def test_times_are_compared_only_where_every_run_arrived() -> None:
    frame = frame_of({"a-0": [1.0, 2.0], "a-1": [1.0, 1.0], "b-0": [2.0], "b-1": [2.0]})
    times = time_to_threshold(frame, "score", 2.0, higher_is_better=True)
    with pytest.raises(AnalysisError, match="expected runs that all reached the threshold, got 1 run that did not"):
        paired_differences(times, "window", "b")
    assert paired_differences(times, "is_reached", "b")["mean"].tolist() == [-0.5]
    all_there = time_to_threshold(frame, "score", 1.0, higher_is_better=True)
    assert paired_differences(all_there, "window", "b")["mean"].tolist() == [0.0]


def test_frames_without_the_measure_are_refused() -> None:
    frame = frame_of({"a-0": [1.0]})
    for function in (learning_curves, area_under_curve):
        with pytest.raises(AnalysisError, match="got none of probe/nll; pass what load_runs returns"):
            function(frame)
        with pytest.raises(AnalysisError, match="expected numbers in the column score"):
            function(frame.assign(score=math.nan), "score")
    with pytest.raises(AnalysisError, match="windows_in_a_row: expected at least 1, got 0"):
        time_to_threshold(frame, "score", 1.0, windows_in_a_row=0)
