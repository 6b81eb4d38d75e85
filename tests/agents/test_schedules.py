"""Schedules: their ratios, shapes for one and several observations, and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agents.base import Agent
from agents.schedules import FixedSchedule, LinearSchedule, RandomSchedule
from atesd_env.errors import ConfigError
from atesd_env.statistics import FEATURE_NAMES
from atesd_env.toy import ToyExposureEnv


def observations(*progress: float) -> np.ndarray:
    """Returns observations [n, num_features] whose only non-zero feature is the progress."""
    batch = np.zeros((len(progress), len(FEATURE_NAMES)), dtype=np.float32)
    batch[:, FEATURE_NAMES.index("progress")] = progress
    return batch


def played_ratios(agent: Agent, num_windows: int) -> np.ndarray:
    """Returns the reveal ratios that the environment reported, one a window."""
    seen: list[float] = []
    agent.learn(num_windows, callback=lambda names, _: seen.append(names["infos"][0]["exposure/reveal_ratio"]))
    return np.asarray(seen)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("kind", [FixedSchedule, RandomSchedule, LinearSchedule])
def test_shapes_follow_the_observation(kind: type[Agent], groups: int):
    env = ToyExposureEnv(groups=groups)
    agent = kind(env)
    one, state = agent.predict(observations(0.5)[0], state="kept")
    assert state == "kept"
    assert one.shape == (groups,)
    assert one.dtype == np.float32
    assert env.action_space.contains(one)
    several, _ = agent.predict(observations(0.0, 0.5, 1.0, 1.0), deterministic=True)
    assert several.shape == (4, groups)
    assert several.dtype == np.float32


def test_fixed_keeps_its_ratio():
    np.testing.assert_allclose(played_ratios(FixedSchedule(ToyExposureEnv(), ratio=0.3), 5), 0.3, rtol=1e-6)
    assert FixedSchedule(ToyExposureEnv()).ratio == 1.0


def test_linear_follows_progress():
    agent = LinearSchedule(ToyExposureEnv(windows=4), start=0.8, end=0.4)
    np.testing.assert_allclose(agent.predict(observations(0.0, 0.5, 1.0))[0][:, 0], [0.8, 0.6, 0.4], rtol=1e-6)
    np.testing.assert_allclose(played_ratios(agent, 4), [0.8, 0.7, 0.6, 0.5], rtol=1e-6)


def test_random_is_uniform_and_apart_in_each_group():
    """Seed 0, 4000 numbers in 10 bins: chi-square with 9 degrees of freedom exceeds 42.3 in 3 of a million runs. The
    groups' correlation has a standard error of 1/sqrt(2000) = 0.022, so 0.112 is 5 of them: odds below 1e-6."""
    agent = RandomSchedule(ToyExposureEnv(groups=2), seed=0)
    ratios = agent.predict(np.zeros((2000, len(FEATURE_NAMES)), dtype=np.float32))[0]
    counts = np.histogram(ratios, bins=10, range=(0.0, 1.0))[0]
    assert ((counts - 400) ** 2 / 400).sum() < 42.3
    assert abs(np.corrcoef(ratios.T)[0, 1]) < 0.112


def test_random_repeats_with_its_seed():
    first, same, other = (played_ratios(RandomSchedule(ToyExposureEnv(), seed=seed), 5) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert (first != other).all()


def test_deterministic_random_is_the_mean_and_draws_nothing():
    agent, twin = RandomSchedule(ToyExposureEnv()), RandomSchedule(ToyExposureEnv())
    assert agent.predict(observations(0.0)[0], deterministic=True)[0].tolist() == [0.5]
    assert agent.predict(observations(0.0)[0])[0] == twin.predict(observations(0.0)[0])[0]


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan"), "0.5", True, None])
def test_ratios_outside_the_range_are_refused(ratio: Any):
    with pytest.raises(ConfigError, match=r"ratio: expected a reveal ratio in \[0, 1\], got"):
        FixedSchedule(ToyExposureEnv(), ratio=ratio)
    with pytest.raises(ConfigError, match=r"start: expected a reveal ratio in \[0, 1\], got"):
        LinearSchedule(ToyExposureEnv(), start=ratio)
    with pytest.raises(ConfigError, match=r"end: expected a reveal ratio in \[0, 1\], got"):
        LinearSchedule(ToyExposureEnv(), end=ratio)
