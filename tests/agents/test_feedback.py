"""The feedback controller: its loop by hand, on the toy within reach and out of reach, and its file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agents.base import Agent
from agents.feedback import FeedbackController, mismatch_of, next_ratio
from atesd_env.envs.observation import FEATURE_NAMES
from atesd_env.errors import ConfigError
from atesd_env.simulated.toy import ToyExposureEnv
from tests.agents.playing import observed_with

LIMITS = {"a_min": 0.0, "a_max": 1.0}


def observed(*mismatches: float) -> np.ndarray:
    """Returns observations [n, num_features] of these mismatches, in nats per token."""
    return observed_with("mismatch_ema", *(mismatch / (1.0 + mismatch) for mismatch in mismatches))


def played(agent: Agent, num_windows: int, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Lets an agent play; returns the ratios and mismatches of its windows."""
    rows: list[dict[str, Any]] = []
    agent.learn(num_windows, callback=lambda names, _: rows.append(names["infos"][0]), **options)
    columns = [[row[name] for row in rows] for name in ("exposure/reveal_ratio", "student/mismatch")]
    return np.asarray(columns[0]), np.asarray(columns[1])


def test_the_step_by_hand():
    ratios = next_ratio(
        np.array([0.5, 0.5, 0.5, 0.9]), np.array([0.4, 0.5, 0.6, 0.0]), np.array([0.5] * 4), gain=0.5, **LIMITS
    )
    np.testing.assert_allclose(ratios, [0.6, 0.5, 0.4, 1.0])


def test_the_feature_is_turned_back_into_nats():
    np.testing.assert_allclose(mismatch_of(observed(0.0, 0.3, 2.0)), [0.0, 0.3, 2.0], rtol=1e-6)
    full = np.ones(len(FEATURE_NAMES), dtype=np.float32)
    assert np.isfinite(mismatch_of(full))


def test_the_loop_by_hand():
    """Set point: 0.8 times the first window's 0.5. Then 0.5 is a quarter too much: the ratio falls by 0.4 * 0.25."""
    agent = FeedbackController(ToyExposureEnv(), factor=0.8, gain=0.4, initial_ratio=0.6)
    actions, state = [], None
    for mismatch in (0.0, 0.5, 0.5, 0.2):
        action, state = agent.predict(observed(mismatch)[0], state)
        actions.append(float(action[0]))
    np.testing.assert_allclose(actions, [0.6, 0.5, 0.4, 0.6], rtol=1e-5)


def test_a_set_point_within_reach_is_held_while_the_student_learns():
    """At 0.6 the toy must rise from 0.2 to 0.5 in these windows; full exposure would give 1.0 falling to 0.8."""
    ratios, mismatches = played(FeedbackController(ToyExposureEnv(windows=40), set_point=0.6), 40)
    assert np.abs(mismatches[12:] - 0.6).max() < 0.03
    assert ratios[-1] > ratios[12] + 0.2


def test_the_default_set_point_is_the_first_windows_mismatch():
    agent = FeedbackController(ToyExposureEnv(windows=40))
    ratios, mismatches = played(agent, 40)
    assert ratios[0] == 0.5
    assert agent.diagnostics()["set_point"] == pytest.approx(mismatches[0], rel=1e-6)
    assert np.abs(mismatches / mismatches[0] - 1.0).max() < 0.05


@pytest.mark.parametrize(("set_point", "limit"), [(5.0, 0.9), (0.01, 0.1)])
def test_a_set_point_out_of_reach_rests_at_the_limit_and_leaves_it_at_once(set_point: float, limit: float):
    """300 windows out of reach; then the set point comes within reach. An integral that had gone on piling up would stay
    at the limit for a hundred windows and more; this one must move in the next window and be there in 25."""
    env = ToyExposureEnv(windows=1000, hold_window=1)
    agent = FeedbackController(env, set_point=set_point, a_min=0.1, a_max=0.9)
    ratios, mismatches = played(agent, 300)
    np.testing.assert_allclose(ratios[10:], limit, rtol=1e-6)
    assert agent.diagnostics()["is_saturated"] == 1.0
    reachable = mismatches[-1] * (0.8 if limit == 0.9 else 1.2)
    assert agent._loop is not None
    agent._loop[1] = reachable
    ratios, mismatches = played(agent, 60, reset_num_timesteps=False)
    assert abs(ratios[0] - limit) > 0.01
    assert np.abs(mismatches[25:] / reachable - 1.0).max() < 0.05
    assert agent.diagnostics()["is_saturated"] == 0.0


@pytest.mark.parametrize(("share", "is_stable"), [(0.5, True), (0.95, True), (1.05, False)])
def test_the_stated_limit_of_stability(share: float, is_stable: bool):
    """A mismatch of 1 + s (a - 0.5), averaged with c, and a gain around 2 (2 - c) / (c s). Small swings, far from limits."""
    slope, coefficient = 0.7, 0.3
    gain = share * 2 * (2 - coefficient) / (coefficient * slope)
    ratio, average = 0.5 + 1e-6, 1.0
    wide = {"a_min": -1e9, "a_max": 1e9}
    for _ in range(400):
        average = (1 - coefficient) * average + coefficient * (1 + slope * (ratio - 0.5))
        ratio = float(next_ratio(np.array(ratio), np.array(average), np.array(1.0), gain=gain, **wide))
    assert (abs(ratio - 0.5) < 1e-6) is is_stable


def test_all_groups_get_one_ratio():
    agent = FeedbackController(ToyExposureEnv(groups=3), set_point=0.6)
    agent.learn(5)
    action = agent.decide(observed(0.9)[0])
    assert action.shape == (3,)
    assert action.dtype == np.float32
    assert len(set(action.tolist())) == 1


def test_several_observations_have_loops_of_their_own():
    agent = FeedbackController(ToyExposureEnv(groups=2), gain=0.4)
    apart = [agent.predict(observed(first)[0]) for first in (0.5, 0.8)]
    together, state = agent.predict(observed(0.5, 0.8))
    assert together.shape == (2, 2)
    np.testing.assert_array_equal(state, [one_state for _, one_state in apart])
    second, state = agent.predict(observed(0.4, 0.4), state, np.array([False, True]))
    np.testing.assert_allclose(second[:, 0], [0.5 + 0.4 * 0.2, 0.5], rtol=1e-5)
    np.testing.assert_allclose(state[:, 1], [0.5, 0.4], rtol=1e-5)


def test_an_episode_begins_with_a_fresh_loop():
    agent = FeedbackController(ToyExposureEnv(windows=10))
    first, again = played(agent, 10)[0], played(agent, 10, reset_num_timesteps=False)[0]
    assert first[0] == again[0] == 0.5
    assert first[-1] != 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"set_point": 0.0}, r"set_point: expected a number above 0, got 0\.0"),
        ({"set_point": "half"}, "set_point: expected a number above 0, got 'half'"),
        ({"factor": -1.0}, "factor: expected a number above 0, got -1"),
        ({"factor": None}, "factor: expected a number above 0, got None"),
        ({"gain": float("nan")}, "gain: expected a number from 0, got nan"),
        ({"initial_ratio": 0.1, "a_min": 0.2}, r"initial_ratio: expected a number from 0\.2 to 1, got 0\.1"),
        ({"a_min": 0.6, "a_max": 0.5}, r"a_min: expected a ratio below a_max=0\.5, got 0\.6"),
        ({"a_max": 1.5}, r"a_max: expected a reveal ratio in \[0, 1\], got 1\.5"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        FeedbackController(ToyExposureEnv(), **options)
