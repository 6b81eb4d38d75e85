"""The reward of a window: progress of either kind, and the weighted grounded score."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atesd_env.envs.reward import learning_progress, window_reward

NLLS = st.floats(0, 50)


def test_positive_progress_is_the_drop_and_never_negative():
    assert learning_progress(2.0, 1.5) == 0.5
    assert learning_progress(1.5, 2.0) == 0.0
    assert learning_progress(2.0, 2.0) == 0.0


def test_signed_progress_keeps_the_sign():
    assert learning_progress(2.0, 1.5, "signed") == 0.5
    assert learning_progress(1.5, 2.0, "signed") == -0.5


@settings(derandomize=True, database=None, deadline=None)
@given(NLLS, NLLS)
def test_positive_progress_is_the_positive_part_of_signed_progress(before: float, after: float):
    signed = learning_progress(before, after, "signed")
    assert signed == -learning_progress(after, before, "signed")
    assert learning_progress(before, after, "positive") == max(0.0, signed)


@settings(derandomize=True, database=None, deadline=None)
@given(st.lists(NLLS, min_size=2, max_size=20))
def test_signed_progress_adds_up_to_the_whole_drop(nlls: list[float]):
    """The sum over windows telescopes; positive progress can only be more."""
    pairs = list(itertools.pairwise(nlls))
    total = sum(learning_progress(before, after, "signed") for before, after in pairs)
    assert total == pytest.approx(nlls[0] - nlls[-1], abs=1e-9)
    assert sum(learning_progress(before, after) for before, after in pairs) >= total - 1e-9


def test_the_reward_is_progress_plus_the_weighted_grounded_score():
    assert window_reward(0.5, -0.3, 0.1) == pytest.approx(0.47)
    assert window_reward(0.5, -0.3, 0.0) == 0.5
    assert window_reward(0.0, -0.3, 1.0) == -0.3


def test_a_higher_grounded_score_is_rewarded_in_proportion_to_its_weight():
    gain = window_reward(0.2, -0.1, 0.4) - window_reward(0.2, -0.6, 0.4)
    assert gain == pytest.approx(0.4 * 0.5)


def test_a_signed_reward_does_not_hide_what_is_not_a_number():
    assert math.isnan(learning_progress(1.0, math.nan, "signed"))
    assert math.isnan(window_reward(learning_progress(1.0, 1.0), math.nan, 0.1))
