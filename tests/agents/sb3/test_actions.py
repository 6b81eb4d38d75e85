"""What algorithms do, as reveal ratios."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from gymnasium import spaces

from agents.sb3.actions import MAX_COMBINATIONS, Grid, Interval, JointGrid, default_points, grid_ratios
from atesd_env.errors import ConfigError


def test_the_interval_is_stretched():
    interval = Interval(groups=2)
    assert interval.space == spaces.Box(-1.0, 1.0, (2,), dtype=np.float32)
    ratios = interval.ratios(np.array([[-1.0, 1.0], [0.0, 0.5]]))
    assert ratios.dtype == np.float32
    assert ratios.tolist() == [[0.0, 1.0], [0.5, 0.75]]


def test_a_number_that_is_none_is_left_for_the_environment_to_refuse():
    assert np.isnan(Interval(1).ratios(np.array([[np.nan]]))).all()


def test_a_grid_has_both_ends_and_one_number_for_each_group():
    grid = Grid(groups=3, points=5)
    assert grid.space == spaces.MultiDiscrete([5, 5, 5])
    assert grid.ratios(np.array([[0, 2, 4], [1, 1, 3]])).tolist() == [[0.0, 0.5, 1.0], [0.25, 0.25, 0.75]]


def test_a_joint_grid_numbers_every_combination_once():
    joint = JointGrid(groups=3, points=3)
    assert joint.space == spaces.Discrete(27)
    found = joint.ratios(np.arange(27)).tolist()
    assert found == [list(one) for one in itertools.product([0.0, 0.5, 1.0], repeat=3)]


def test_one_group_of_a_joint_grid_is_the_grid():
    assert JointGrid(1, 11).ratios(np.arange(11))[:, 0].tolist() == grid_ratios(11).tolist()


@pytest.mark.parametrize("groups", range(1, 11))
def test_the_default_joint_grid_exists_for_up_to_ten_groups(groups: int):
    assert JointGrid(groups).space.n <= MAX_COMBINATIONS  # type: ignore[attr-defined]
    assert JointGrid(groups).points == default_points(groups)


def test_too_many_combinations_are_refused():
    with pytest.raises(ConfigError, match="11 for each of 3 groups, 1331 in all"):
        JointGrid(groups=3, points=11)


@pytest.mark.parametrize("points", [1, 0, -3, 2.5, True, "5"])
def test_a_grid_needs_two_ratios(points: object):
    with pytest.raises(ConfigError, match="grid: expected a whole number of ratios from 2"):
        grid_ratios(points)  # type: ignore[arg-type]
