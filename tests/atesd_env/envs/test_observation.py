"""Statistics of a run: averages by hand, the observation inside its bounds whatever a row holds, whole tables."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atesd_env.envs.columns import COLUMNS, TIME_COLUMNS, group_columns, toy_columns
from atesd_env.envs.observation import (
    FEATURE_NAMES,
    FEATURES,
    RunningStatistics,
    advance,
    initial_statistics,
    observation,
    observation_bounds,
    squash,
)

PAPER_SIX = ("progress", "reveal_ratio_ema", "loss_ema", "mismatch_ema", "probe_nll_ema", "self_confidence")
MEASURED = [column.name for column in COLUMNS if column.name not in ("window", "update")]


def make_row(window: int, **changes: float) -> dict[str, Any]:
    """Returns a row in which every measured column is 0.5, with changes by the last part of a column's name."""
    row: dict[str, Any] = {"window": window, "update": 3 * window, **dict.fromkeys(MEASURED, 0.5)}
    for short, value in changes.items():
        (name,) = [name for name in MEASURED if name.replace("/", "_") == short]
        row[name] = value
    return row


def advanced(before: RunningStatistics, row: dict[str, Any], ema_coefficient: float = 0.5) -> RunningStatistics:
    return advance(before, row, windows=4, max_new_tokens=20, ema_coefficient=ema_coefficient)


# Three windows by hand


def test_three_windows_by_hand():
    """With a coefficient of 1/2 the averages are halves and quarters; the first window sets all but the probe's."""
    statistics = initial_statistics(4.0)
    assert statistics == RunningStatistics(probe_nll_ema=4.0)

    first = advanced(
        statistics,
        make_row(
            1, exposure_reveal_ratio=0.2, student_loss=1.0, student_mismatch=0.8, probe_nll=3.0, reward_progress=1.0
        ),
    )
    assert (first.num_windows, first.progress) == (1, 0.25)
    assert (first.reveal_ratio_ema, first.loss_ema, first.mismatch_ema) == (0.2, 1.0, 0.8)
    assert first.probe_nll_ema == 3.5, "half way from the base model's 4"
    assert (first.loss_slope, first.mismatch_slope, first.probe_nll_slope) == (0.0, 0.0, -0.5)
    assert first.learning_progress == 1.0

    second = advanced(
        first, make_row(2, exposure_reveal_ratio=0.6, student_loss=3.0, student_mismatch=0.4, probe_nll=2.5)
    )
    assert (second.num_windows, second.progress) == (2, 0.5)
    assert second.reveal_ratio_ema == pytest.approx(0.4)
    assert second.loss_ema == 2.0
    assert second.mismatch_ema == pytest.approx(0.6)
    assert second.probe_nll_ema == 3.0
    assert second.loss_slope == 1.0
    assert second.mismatch_slope == pytest.approx(-0.2)
    assert second.probe_nll_slope == -0.5

    third = advanced(
        second,
        make_row(
            3,
            exposure_reveal_ratio=1.0,
            student_loss=2.0,
            student_mismatch=0.6,
            probe_nll=4.0,
            student_self_confidence=0.9,
            student_entropy=0.3,
            teacher_entropy=0.2,
            student_top1_disagreement=0.1,
            student_grad_norm=math.e,
            rollout_success_rate=0.7,
            rollout_length=15.0,
            rollout_truncation_rate=0.05,
            reward_progress=-0.25,
        ),
    )
    assert third == RunningStatistics(
        num_windows=3,
        progress=0.75,
        reveal_ratio_ema=pytest.approx(0.7),
        loss_ema=2.0,
        mismatch_ema=pytest.approx(0.6),
        probe_nll_ema=3.5,
        self_confidence=0.9,
        loss_slope=0.0,
        mismatch_slope=pytest.approx(0.0, abs=1e-12),
        probe_nll_slope=0.5,
        student_entropy=0.3,
        teacher_entropy=0.2,
        top1_disagreement=0.1,
        log_grad_norm=pytest.approx(1.0),
        rollout_success=0.7,
        rollout_length=0.75,
        truncation_rate=0.05,
        learning_progress=-0.25,
    )


def test_the_coefficient_is_the_weight_of_the_newest_window():
    first = advanced(initial_statistics(2.0), make_row(1, student_loss=1.0, probe_nll=2.0), ema_coefficient=0.1)
    second = advanced(first, make_row(2, student_loss=2.0, probe_nll=1.0), ema_coefficient=0.1)
    assert second.loss_ema == pytest.approx(1.1)
    assert second.probe_nll_ema == pytest.approx(1.9)
    newest_only = advanced(first, make_row(2, student_loss=2.0, probe_nll=1.0), ema_coefficient=1.0)
    assert (newest_only.loss_ema, newest_only.probe_nll_ema) == (2.0, 1.0)


def test_a_gradient_of_zero_has_a_finite_logarithm():
    statistics = advanced(initial_statistics(1.0), make_row(1, student_grad_norm=0.0))
    assert math.isfinite(statistics.log_grad_norm)
    assert -1.0 <= observation(statistics)[FEATURE_NAMES.index("log_grad_norm")] < -0.9


def test_advance_leaves_its_arguments_alone():
    before, row = initial_statistics(1.0), make_row(1)
    copy_of_row = dict(row)
    after = advanced(before, row)
    assert before == initial_statistics(1.0)
    assert row == copy_of_row
    assert after != before


# The observation


def test_features_are_the_attributes_in_order_and_the_papers_six_come_first():
    names = tuple(field.name for field in dataclasses.fields(RunningStatistics))
    assert names == ("num_windows", *FEATURE_NAMES)
    assert FEATURE_NAMES[:6] == PAPER_SIX
    assert all("(paper)" in feature.meaning for feature in FEATURES[:6])
    assert not any("(paper)" in feature.meaning for feature in FEATURES[6:])
    assert len(set(FEATURE_NAMES)) == len(FEATURE_NAMES)


def test_before_the_first_window_only_the_probe_is_known():
    values = dict(zip(FEATURE_NAMES, observation(initial_statistics(1.0)).tolist(), strict=True))
    assert values.pop("probe_nll_ema") == 0.5
    assert set(values.values()) == {0.0}


@pytest.mark.parametrize("index", range(len(FEATURES)))
def test_an_attribute_moves_its_own_entry_and_no_other(index: int):
    base = observation(RunningStatistics())
    moved = observation(dataclasses.replace(RunningStatistics(), **{FEATURE_NAMES[index]: 0.125}))
    assert np.flatnonzero(base != moved).tolist() == [index]
    assert moved[index] > base[index]


@pytest.mark.parametrize("feature", FEATURES, ids=FEATURE_NAMES)
def test_the_documented_formula_is_the_scale(feature: Any):
    raw = np.linspace(0.0 if feature.low == 0 else -1.0, 1.0, 41).tolist()
    documented = [eval(feature.formula.replace("10x", "10*x"), {"tanh": math.tanh, "x": x}) for x in raw]
    assert [feature.scale(x) for x in raw] == pytest.approx(documented)
    assert all(feature.low <= y <= feature.high for y in documented)


def test_shape_type_and_bounds():
    low, high = observation_bounds()
    seen = observation(advanced(initial_statistics(2.0), make_row(1)))
    for array in (low, high, seen):
        assert array.shape == (len(FEATURES),)
        assert array.dtype == np.float32
    assert (low < high).all()
    assert set(low.tolist()) == {-1.0, 0.0}
    assert set(high.tolist()) == {1.0}


ANY_NUMBER = st.one_of(
    st.floats(width=64), st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e300, -1e300, math.inf, -math.inf, math.nan, 5e-324])
)


@settings(derandomize=True, database=None, deadline=None, max_examples=100)
@given(
    st.lists(st.lists(ANY_NUMBER, min_size=len(MEASURED), max_size=len(MEASURED)), min_size=1, max_size=3),
    ANY_NUMBER,
    st.floats(0.01, 1.0),
)
def test_whatever_the_rows_hold_the_observation_stays_inside_its_bounds(
    rows: list[list[float]], initial_nll: float, coefficient: float
):
    statistics = initial_statistics(initial_nll)
    low, high = observation_bounds()
    for window, measured in enumerate(rows, start=1):
        statistics = advanced(statistics, {"window": window, **dict(zip(MEASURED, measured, strict=True))}, coefficient)
        seen = observation(statistics)
        assert seen.dtype == np.float32
        assert (low <= seen).all(), seen  # False for what is not a number
        assert (seen <= high).all(), seen


def test_squash_keeps_order_and_its_ends():
    raw = [0.0, 1e-6, 0.1, 1.0, 10.0, 1e6]
    squashed = [squash(value) for value in raw]
    assert squashed == sorted(set(squashed))
    assert squashed[0] == 0.0
    assert squashed[-1] < 1.0
    assert squash(-3.0) == 0.0
    assert squash(math.inf) == 1.0
    assert squash(3.0) == 0.75


@pytest.mark.parametrize(
    "entry", [*COLUMNS, *TIME_COLUMNS, *group_columns(2), *toy_columns(2)], ids=lambda entry: entry.name
)
def test_every_column_is_documented(entry: Any):
    assert entry.type in ("int", "float", "float or null")
    assert entry.unit
    assert re.fullmatch(r"[A-Zaexp].{15,}\.", entry.meaning)


def test_group_columns_come_only_with_groups():
    assert group_columns(1) == ()
    assert [column.name for column in group_columns(3)] == [f"exposure/reveal_ratio_{group}" for group in range(3)]
    names = [column.name for column in (*COLUMNS, *TIME_COLUMNS, *group_columns(16), *toy_columns(16))]
    assert len(set(names)) == len(names)


def test_advance_reads_documented_columns_only():
    class Recording(dict[str, Any]):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.seen: set[str] = set()

        def __getitem__(self, name: str) -> Any:
            self.seen.add(name)
            return super().__getitem__(name)

    row = Recording(make_row(1))
    advanced(initial_statistics(1.0), row)
    assert {*PAPER_SIX} <= {*FEATURE_NAMES}
    assert row.seen <= {column.name for column in COLUMNS}
    assert not any(name.startswith(("time/", "probe/accuracy", "probe/pass_at_k")) for name in row.seen), "may be null"
