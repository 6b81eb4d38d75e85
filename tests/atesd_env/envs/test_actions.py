"""The check of actions: what passes, and what is refused with which words."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from atesd_env.envs.actions import checked_batch, checked_ratios
from atesd_env.errors import ConfigError


@pytest.mark.parametrize(
    "action",
    [0.25, np.float32(0.25), np.array(0.25), np.array([0.25], dtype=np.float32), [0.25], torch.tensor([0.25])],
    ids=lambda action: type(action).__name__,
)
def test_one_group_accepts_a_number_or_an_array(action: Any):
    ratios = checked_ratios(action, groups=1)
    assert ratios.dtype == np.float64
    np.testing.assert_array_equal(ratios, [0.25])


def test_several_groups_keep_their_order():
    np.testing.assert_array_equal(checked_ratios([0.0, 0.5, 1.0], groups=3), [0.0, 0.5, 1.0])


def test_rounding_of_a_float32_is_clipped():
    np.testing.assert_array_equal(checked_ratios([-5e-7, 1.0 + 5e-7], groups=2), [0.0, 1.0])


def test_the_action_itself_is_not_changed():
    action = np.array([1.0 + 5e-7])
    checked_ratios(action, groups=1)
    assert action[0] == 1.0 + 5e-7


@pytest.mark.parametrize(
    ("action", "groups", "message"),
    [
        ([np.nan], 1, "expected reveal ratios in [0, 1], got nan for group 0"),
        ([0.5, np.inf], 2, "expected reveal ratios in [0, 1], got inf for group 1"),
        ([-0.01], 1, "expected reveal ratios in [0, 1], got -0.01"),
        (1.01, 1, "expected reveal ratios in [0, 1], got 1.01"),
        ([0.5, 0.5], 1, "expected shape (1,), one reveal ratio for each difficulty group, got (2,)"),
        ([[0.5]], 1, "expected shape (1,), one reveal ratio for each difficulty group, got (1, 1)"),
        ([], 1, "expected shape (1,), one reveal ratio for each difficulty group, got (0,)"),
        (0.5, 2, "expected shape (2,), one reveal ratio for each difficulty group, got ()"),
        ("half", 1, "expected 1 reveal ratio(s) in [0, 1], got 'half'"),
        (None, 1, "expected 1 reveal ratio(s) in [0, 1], got None; pass an array of numbers"),
        ([None], 1, "got [None]"),
        ("0.5", 1, "got '0.5'"),
        (["0.5"], 1, "got ['0.5']"),
        (b"0.5", 1, "got b'0.5'"),
        (True, 1, "got True"),
        ([False], 1, "got [False]"),
        ([0.5 + 0j], 1, "got [(0.5+0j)]"),
        (np.array(["2020"], dtype="datetime64[Y]"), 1, "got array(['2020']"),
        ([10**400], 1, "got [1000"),
        pytest.param([10**5000], 1, "got a list that cannot be shown", id="5001 digits"),
        pytest.param(10**400, 1, "got 1000", id="401 digits"),
        ({0: 0.5}, 1, "got {0: 0.5}"),
        ({0.5}, 1, "got {0.5}"),
        (object(), 1, "got <object"),
        ([[[[[]]]]], 1, "got (1, 1, 1, 1, 0)"),
        (["x" * 1000], 1, "x..."),
        ([[0.5], [0.5, 0.5]], 2, "expected 2 reveal ratio(s) in [0, 1]"),
    ],
)
def test_wrong_actions_are_refused(action: Any, groups: int, message: str):
    with pytest.raises(ConfigError, match=re.escape(message)):
        checked_ratios(action, groups)


def nested(depth: int) -> Any:
    action: Any = 0.5
    for _ in range(depth):
        action = [action]
    return action


@pytest.mark.parametrize("depth", [40, 100, 2000, 20_000])
def test_a_deep_action_is_refused(depth: int):
    with pytest.raises(ConfigError, match="action: expected"):
        checked_ratios(nested(depth), groups=1)


@pytest.mark.parametrize(
    "actions",
    [
        None,
        0.5,
        {0: [0.5], 1: [0.5]},
        {0.1, 0.2},
        "ab",
        np.array(0.5),
        [[0.5]],
        pytest.param(10**5000, id="5001 digits"),
    ],
)
def test_actions_that_are_no_lines_are_refused(actions: Any):
    with pytest.raises(
        ConfigError, match=r"actions: expected shape \(2, 1\), a line of reveal ratios for each student, got"
    ):
        checked_batch(actions, 1, 2, [0, 1])


def test_an_odd_line_names_its_student():
    with pytest.raises(ConfigError, match=r"student 1: action: expected 1 reveal ratio.*got \['0.5'\]"):
        checked_batch([[0.5], ["0.5"]], 1, 2, [0, 1])
