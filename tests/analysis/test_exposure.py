"""Exposure and mismatch: small frames, numbers worked out by hand."""

import math
from typing import Any

import pandas as pd
import pytest
from scipy import stats

from analysis import AnalysisError, exposure_by_group, exposure_by_progress, mismatch_by_ratio, mismatch_trend


def frame_of(runs: dict[tuple[str, int], list[float]], **columns: Any) -> pd.DataFrame:
    """Runs of (agent, seed) with these reveal ratios."""
    lines = [
        {
            "run": f"{agent}-{seed}",
            "env_id": "ATESD-Tiny-v0",
            "agent": agent,
            "seed": seed,
            "window": window,
            "exposure/reveal_ratio": ratio,
            "student/mismatch": ratio + seed,
            **columns,
        }
        for (agent, seed), ratios in runs.items()
        for window, ratio in enumerate(ratios, start=1)
    ]
    return pd.DataFrame(lines).astype({"agent": "category", "env_id": "category", "run": "string", "seed": "Int64"})


def test_exposure_by_progress_by_hand() -> None:
    frame = frame_of({("a", 0): [0.0, 0.2, 0.4, 0.8], ("a", 1): [0.4, 1.0]})
    before = frame.copy()
    table = exposure_by_progress(frame, num_bins=2)
    pd.testing.assert_frame_equal(frame, before)
    # Progress of a-0: 1/4, 2/4 | 3/4, 1; of a-1: 1/2 | 1.
    assert table["progress_low"].tolist() == [0.0, 0.5]
    assert table["progress_high"].tolist() == [0.5, 1.0]
    assert table["mean"].tolist() == pytest.approx([0.2, 2.2 / 3])
    assert table["median"].tolist() == [0.2, 0.8]
    assert table["lower_quartile"].tolist() == pytest.approx([0.1, 0.6])
    assert table["num_windows"].tolist() == [3, 3]
    assert table["num_runs"].tolist() == [2, 2]


def test_the_planned_windows_are_the_whole_of_an_unfinished_run() -> None:
    frame = frame_of({("a", 0): [0.0, 1.0]}, **{"config/windows": 4.0})
    assert exposure_by_progress(frame, num_bins=2)["progress_high"].tolist() == [0.5]


def test_a_window_that_ends_on_an_edge_lies_below_it() -> None:
    table = exposure_by_progress(frame_of({("a", 0): [0.0] * 10}), num_bins=10)
    assert table["num_windows"].tolist() == [1] * 10


def test_exposure_by_difficulty_group() -> None:
    frame = frame_of({("a", 0): [0.5, 0.5], ("b", 0): [0.5]})
    frame["exposure/reveal_ratio_0"] = [0.8, 1.0, 0.3]
    frame["exposure/reveal_ratio_1"] = [0.2, 0.0, 0.7]
    table = exposure_by_group(frame)
    assert table[["agent", "group"]].to_numpy().tolist() == [["a", 0], ["a", 1], ["b", 0], ["b", 1]]
    assert table["mean"].tolist() == pytest.approx([0.9, 0.1, 0.3, 0.7])
    with pytest.raises(AnalysisError, match="make runs with several groups"):
        exposure_by_group(frame_of({("a", 0): [0.5]}))


def test_mismatch_is_the_mean_over_seeds_of_the_seeds_means() -> None:
    # Mismatch is ratio + seed. Seed 0 has two windows at 1.0, which must not count double.
    frame = frame_of({("fixed:0", 0): [0.0], ("fixed:0", 2): [0.0], ("fixed:1", 0): [1.0], ("fixed:1", 2): [1.0]})
    again = (
        frame[(frame["agent"] == "fixed:1") & (frame["seed"] == 0)].astype({"agent": str}).assign(agent="x", run="x-0")
    )
    table = mismatch_by_ratio(pd.concat([frame.astype({"agent": str}), again]))
    assert table["reveal_ratio"].tolist() == [0.0, 1.0]
    assert table["mean"].tolist() == [1.0, 2.0]
    assert table["num_seeds"].tolist() == [2, 2]
    assert table["num_windows"].tolist() == [2, 3]
    # Student's t with one degree of freedom: 12.706 standard errors of 1.
    assert (table["low"][0], table["high"][0]) == pytest.approx((1 - 12.706, 1 + 12.706), rel=1e-3)


def test_mismatch_is_compared_on_the_windows_that_all_runs_have() -> None:
    """It rises with the window: an unfinished run's early windows would stand beside a finished run's late ones."""
    frame = frame_of({("fixed:0", 0): [0.0] * 4, ("fixed:1", 0): [1.0] * 2})
    frame["student/mismatch"] = 1.0 * frame["window"] + frame["exposure/reveal_ratio"]
    table = mismatch_by_ratio(frame)
    assert table["mean"].tolist() == [1.5, 2.5]
    assert table[["first_window", "last_window", "num_windows"]].to_numpy().tolist() == [[1, 2, 2]] * 2
    late = frame[(frame["agent"] == "fixed:0") & (frame["window"] > 2) | (frame["agent"] == "fixed:1")]
    with pytest.raises(AnalysisError, match="expected a window that all runs of ATESD-Tiny-v0 measured, got none"):
        mismatch_by_ratio(late)


def test_ratios_that_were_drawn_are_put_into_stretches() -> None:
    frame = frame_of({("random", 0): [0.05, 0.1, 0.45, 0.9, 1.0], ("fixed:0.5", 0): [0.5] * 5})
    table = mismatch_by_ratio(frame)
    assert table["num_windows"].tolist() == [2, 6, 2], "0 to 0.2, 0.4 to 0.6, 0.8 to 1"
    held = mismatch_by_ratio(frame[frame["agent"] == "fixed:0.5"])
    assert held["reveal_ratio"].tolist() == [0.5]


def test_drawn_ratios_are_drawn_also_where_one_window_is_shared() -> None:
    frame = frame_of({("random", seed): [0.1 * seed, 0.9] for seed in range(3)} | {("fixed:0.5", 0): [0.5, 0.5]})
    cut = frame[(frame["run"] != "random-2") | (frame["window"] == 1)]
    assert mismatch_by_ratio(cut)["num_windows"].tolist() == [2, 1, 1], "0 to 0.2 of two runs, not each ratio by itself"
    assert mismatch_by_ratio(frame[frame["window"] == 1])["num_windows"].tolist() == [2, 1, 1]


def test_ratios_that_have_windows_of_their_own_are_not_ranked() -> None:
    """Mismatch rises with the window alone, and the schedule takes the ratio down."""
    frame = frame_of({("linear:1:0", seed): [0.9, 0.7, 0.5, 0.3, 0.1] for seed in range(3)})
    frame["student/mismatch"] = 1.0 * frame["window"]
    table = mismatch_by_ratio(frame)
    assert table["first_window"].tolist() == table["last_window"].tolist() == [5, 4, 3, 2, 1]
    assert not table["is_paired"].any()
    falling = mismatch_trend(frame.assign(**{"student/mismatch": -frame["student/mismatch"]})).iloc[0]
    assert (falling["num_seeds"], falling["is_increasing"]) == (0, False)
    assert math.isnan(falling["tau"])
    assert math.isnan(falling["p_value"])


def test_ratios_are_compared_on_the_seeds_that_have_them_all() -> None:
    """Mismatch falls with the ratio on each seed; seed 5 is a hard one, and only the largest ratio met it."""
    runs = {(f"fixed:{ratio}", seed): [ratio] for ratio in (0.0, 0.5, 1.0) for seed in (0, 1)} | {
        ("fixed:1.0", 5): [1.0]
    }
    frame = frame_of(runs)
    frame["student/mismatch"] = 100.0 * (frame["seed"] == 5) - frame["exposure/reveal_ratio"]
    table = mismatch_by_ratio(frame)
    assert table["mean"].tolist() == [0.0, -0.5, -1.0]
    assert table["is_paired"].all()
    assert table["left_out"].tolist() == ["5"] * 3
    assert table["num_seeds"].tolist() == [2] * 3
    assert mismatch_trend(frame).iloc[0][["num_seeds", "is_increasing", "tau"]].tolist() == [2, False, -1.0]


def test_ratios_are_put_into_stretches_whose_last_is_closed() -> None:
    table = mismatch_by_ratio(frame_of({("random", 0): [0.0, 0.4, 0.5, 0.75, 1.0]}), edges=[0.0, 0.5, 1.0])
    assert table["reveal_ratio"].tolist() == [0.2, 0.75]
    assert table["num_windows"].tolist() == [2, 3]
    with pytest.raises(AnalysisError, match=r"increasing numbers, got \[1\.0, 0\.0\]"):
        mismatch_by_ratio(frame_of({("a", 0): [0.5]}), edges=[1.0, 0.0])
    with pytest.raises(AnalysisError, match="increasing numbers, got '0, 1'"):
        mismatch_by_ratio(frame_of({("a", 0): [0.5]}), edges="0, 1")  # type: ignore[arg-type]


def test_a_trend_that_every_seed_shows_is_found() -> None:
    frame = frame_of({(f"fixed:{ratio}", seed): [ratio] for ratio in (0.0, 0.5, 1.0) for seed in range(4)})
    (line,) = mismatch_trend(frame).to_dict("records")
    assert (line["num_ratios"], line["num_seeds"], line["tau"], line["is_increasing"]) == (3, 4, 1.0, True)
    # Each of 4 seeds has one order out of 3! by chance.
    assert line["p_value"] == pytest.approx(1 / 6**4)
    falling = mismatch_trend(frame.assign(**{"student/mismatch": -frame["student/mismatch"]})).iloc[0]
    assert (falling["tau"], falling["is_increasing"]) == (-1.0, False)
    assert falling["p_value"] == pytest.approx(1.0)


def test_the_trend_is_pages_over_the_seeds_that_have_every_ratio() -> None:
    values = [[0.1, 0.3, 0.2], [0.2, 0.4, 0.9], [0.5, 0.3, 0.6]]
    runs = {(f"fixed:{ratio}", seed): [ratio] for seed in range(3) for ratio in (0.0, 0.5, 1.0)}
    frame = frame_of({**runs, ("fixed:0.0", 3): [0.0]})
    frame["student/mismatch"] = [value for line in values for value in line] + [9.0]
    line = mismatch_trend(frame).iloc[0]
    assert line["num_seeds"] == 3
    assert line["tau"] == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)
    assert line["p_value"] == pytest.approx(stats.page_trend_test(values).pvalue)
    assert line["is_increasing"]


def test_two_ratios_or_one_seed_have_no_test() -> None:
    two = mismatch_trend(frame_of({("a", 0): [0.0], ("b", 0): [1.0], ("a", 1): [0.0], ("b", 1): [1.0]})).iloc[0]
    assert two["is_increasing"]
    assert math.isnan(two["p_value"])
    one = mismatch_trend(frame_of({(f"{ratio}", 0): [ratio] for ratio in (0.0, 0.5, 1.0)})).iloc[0]
    assert math.isnan(one["p_value"])
    assert one["tau"] == 1.0
