"""Schedules: their ratios, shapes for one and several observations, and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from agents.base import Agent
from agents.schedules import (
    BinomialSchedule,
    CosineSchedule,
    FixedSchedule,
    LinearSchedule,
    RandomSchedule,
    StagedSchedule,
)
from atesd_env.envs.observation import FEATURE_NAMES
from atesd_env.errors import ConfigError
from atesd_env.simulated.toy import ToyExposureEnv
from tests.agents.playing import observed_with


def observations(*progress: float) -> np.ndarray:
    return observed_with("progress", *progress)


def played_ratios(agent: Agent, num_windows: int, **options: Any) -> np.ndarray:
    """Returns the reveal ratios that the environment reported, one a window."""
    seen: list[float] = []
    agent.learn(
        num_windows, callback=lambda names, _: seen.append(names["infos"][0]["exposure/reveal_ratio"]), **options
    )
    return np.asarray(seen)


def test_fixed_keeps_its_ratio():
    np.testing.assert_allclose(played_ratios(FixedSchedule(ToyExposureEnv(), ratio=0.3), 5), 0.3, rtol=1e-6)
    assert FixedSchedule(ToyExposureEnv()).ratio == 1.0


def test_linear_follows_progress():
    agent = LinearSchedule(ToyExposureEnv(windows=4), start=0.8, end=0.4)
    np.testing.assert_allclose(agent.predict(observations(0.0, 0.5, 1.0))[0][:, 0], [0.8, 0.6, 0.4], rtol=1e-6)
    np.testing.assert_allclose(played_ratios(agent, 4), [0.8, 0.7, 0.6, 0.5], rtol=1e-6)


def test_cosine_is_slow_at_both_ends():
    agent = CosineSchedule(ToyExposureEnv(windows=4), start=0.8, end=0.4)
    np.testing.assert_allclose(agent.predict(observations(0.0, 0.5, 1.0))[0][:, 0], [0.8, 0.6, 0.4], rtol=1e-6)
    np.testing.assert_allclose(played_ratios(agent, 2), [0.8, 0.6 + 0.2 * np.cos(np.pi / 4)], rtol=1e-6)


@pytest.mark.parametrize(("windows", "lengths"), [(6, (2, 2, 2)), (7, (3, 2, 2)), (40, (14, 13, 13))])
def test_stages_are_equally_long(windows: int, lengths: tuple[int, ...]):
    """A window that begins where a stage does belongs to it, whatever float32 makes of 2/6."""
    agent = StagedSchedule(ToyExposureEnv(windows=windows), ratios=(0.25, 1.0, 0.5))
    expected = np.repeat([0.25, 1.0, 0.5], lengths)
    np.testing.assert_allclose(played_ratios(agent, windows), expected)


def test_every_number_of_stages_begins_each_where_it_should():
    for num_stages in range(1, 13):
        agent = StagedSchedule(ToyExposureEnv(), ratios=[stage / 12 for stage in range(num_stages)])
        starts = observations(*(stage / num_stages for stage in range(num_stages)), 1.0)
        expected = [*(stage / 12 for stage in range(num_stages)), (num_stages - 1) / 12]
        np.testing.assert_allclose(agent.predict(starts)[0][:, 0], expected, rtol=1e-6)


def test_the_binomial_schedules_mean_is_ufts():
    """Appendix of UFT: p_low + (p_high - p_low) (1 + cos(pi t / T_hint)) / 2 until T_hint, then 0."""
    agent = BinomialSchedule(ToyExposureEnv())
    means = agent.predict(observations(0.0, 0.15, 0.3, 0.59, 0.6, 1.0), deterministic=True)[0][:, 0]
    shifted = 0.05 + 0.45 * (1 + np.cos(np.pi * np.array([0.0, 0.15, 0.3, 0.59]) / 0.6))
    np.testing.assert_allclose(means, [*shifted, 0.0, 0.0], rtol=1e-5)
    # In float32, 0.7 is less than 0.7.
    late = BinomialSchedule(ToyExposureEnv(), annealed_ratio=0.7)
    assert late.predict(observations(0.7)[0], deterministic=True)[0] == 0.0
    rising = BinomialSchedule(ToyExposureEnv(), start=0.2, end=0.8, annealed_ratio=1.0, after=0.8)
    np.testing.assert_allclose(
        rising.predict(observations(0.0, 0.5, 1.0), deterministic=True)[0][:, 0], [0.2, 0.5, 0.8]
    )


def test_binomial_draws_have_the_binomials_frequencies_in_each_group():
    """Seed 0, 4000 draws with p = 0.5, n = 4: a chi-square test fails with odds of 1e-6 in each of 2 groups. The groups'
    correlation has a standard error of 1/sqrt(4000), so 0.079 is 5 of them."""
    agent = BinomialSchedule(ToyExposureEnv(groups=2), seed=0, num_segments=4)
    ratios = agent.predict(observations(*[0.3] * 4000))[0]
    for group in ratios.T:
        counts = np.asarray([(group == shown / 4).sum() for shown in range(5)])
        assert stats.chisquare(counts, 4000 * np.array([1, 4, 6, 4, 1]) / 16).pvalue > 1e-6
    assert abs(np.corrcoef(ratios.T)[0, 1]) < 0.079


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (StagedSchedule, {"ratios": ()}, r"ratios: expected a list of at least one reveal ratio, got \(\)"),
        (StagedSchedule, {"ratios": "0.5"}, "ratios: expected a list of at least one reveal ratio, got '0.5'"),
        (StagedSchedule, {"ratios": (0.5, 2.0)}, r"ratios: expected a reveal ratio in \[0, 1\], got 2\.0"),
        (BinomialSchedule, {"after": 1.5}, r"after: expected a reveal ratio in \[0, 1\], got 1\.5"),
        (BinomialSchedule, {"annealed_ratio": 0.0}, r"annealed_ratio: expected a share of the run above 0, got 0\.0"),
        (BinomialSchedule, {"num_segments": 0}, "num_segments: expected a whole number from 1, got 0"),
        (CosineSchedule, {"end": -1}, r"end: expected a reveal ratio in \[0, 1\], got -1"),
    ],
)
def test_wrong_options_are_refused(kind: Any, options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        kind(ToyExposureEnv(), **options)


def test_random_is_uniform_and_apart_in_each_group():
    """Seed 0, 4000 numbers in 10 bins: a chi-square test fails with odds of 3e-6. The groups' correlation has a standard
    error of 1/sqrt(2000) = 0.022, so 0.112 is 5 of them: odds below 1e-6."""
    agent = RandomSchedule(ToyExposureEnv(groups=2), seed=0)
    ratios = agent.predict(np.zeros((2000, len(FEATURE_NAMES)), dtype=np.float32))[0]
    counts = np.histogram(ratios, bins=10, range=(0.0, 1.0))[0]
    assert stats.chisquare(counts).pvalue > 3e-6
    assert abs(np.corrcoef(ratios.T)[0, 1]) < 0.112


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
