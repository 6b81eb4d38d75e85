"""The closed-form environment: contract, determinism, and the dynamics that its docstring promises."""

from __future__ import annotations

import re
from typing import Any

import gymnasium
import numpy as np
import pytest

import atesd_env  # noqa: F401  (registers the ids)
from atesd_env.config import preset
from atesd_env.envs.columns import COLUMNS, group_columns, group_statistics, toy_columns
from atesd_env.envs.observation import FEATURE_NAMES
from atesd_env.errors import ConfigError
from atesd_env.simulated.toy import ToyExposureEnv
from atesd_env.simulated.toy_dynamics import BEST_RATE, FINAL_NLL, INITIAL_NLL
from atesd_env.simulated.toy_population import initial_state, next_state

QUIET: dict[str, Any] = {"toy_noise": 0.0}


def play(env: ToyExposureEnv, ratios: list[float], seed: int | None = 0) -> list[tuple[Any, ...]]:
    """Resets, steps through ``ratios``, and returns everything that came out, as plain values."""
    observation, info = env.reset(seed=seed)
    seen: list[tuple[Any, ...]] = [(observation.tolist(), info)]
    for ratio in ratios:
        observation, *rest = env.step(np.full(env.config.groups, ratio, dtype=np.float32))
        seen.append((observation.tolist(), *rest))
    return seen


def column(seen: list[tuple[Any, ...]], name: str) -> np.ndarray:
    return np.asarray([step[-1][name] for step in seen[1:]])


def test_it_is_made_by_id_with_fields():
    env = gymnasium.make("ATESD-Toy-v0", toy_best_ratio=0.7, windows=3).unwrapped
    assert isinstance(env, ToyExposureEnv)
    assert env.config == preset("ATESD-Toy-v0", toy_best_ratio=0.7, windows=3)
    assert ToyExposureEnv(config=env.config).config == env.config
    assert env.feature_names == FEATURE_NAMES


def test_wrong_construction_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'toy_noise'"):
        ToyExposureEnv(toy_nois=0.1)
    with pytest.raises(
        ConfigError, match=re.escape("either a whole configuration or single fields, got both (windows)")
    ):
        ToyExposureEnv(config=preset("ATESD-Toy-v0"), windows=3)
    with pytest.raises(ConfigError, match="expected 'ansi', 'rgb_array' or None, got 'human'"):
        ToyExposureEnv(render_mode="human")


def test_another_seed_differs_and_another_action_differs():
    ratios = [0.3] * 4
    base = play(ToyExposureEnv(), ratios, seed=0)
    other_seed = play(ToyExposureEnv(), ratios, seed=1)
    other_action = play(ToyExposureEnv(), [0.3, 0.3, 0.9, 0.3], seed=0)
    assert base[0] != other_seed[0]
    assert base[1][-1]["reward/progress"] != other_seed[1][-1]["reward/progress"]
    assert base[:3] == other_action[:3]  # the same run up to the decision that differs
    assert base[3] != other_action[3]
    assert base[4][-1]["probe/nll"] != other_action[4][-1]["probe/nll"]  # and the learner keeps the difference


@pytest.mark.parametrize("groups", [1, 2])
def test_info_is_the_whole_row(groups: int):
    row = play(ToyExposureEnv(groups=groups), [0.25])[1][-1]
    extra = [entry.name for entry in (*group_columns(groups), *group_statistics(groups), *toy_columns(groups))]
    assert list(row) == [*(entry.name for entry in COLUMNS), *extra]
    kinds = {entry.name: entry.type for entry in COLUMNS}
    for name, value in row.items():
        kind = kinds.get(name, "float")
        allowed = int if kind == "int" else (float, type(None)) if kind == "float or null" else float
        assert isinstance(value, allowed), name


def test_statistics_by_group_follow_the_groups_own_learning():
    """The easy group is shown its best ratio, the hard one is not: it stays longer, and less certain."""
    row = play(ToyExposureEnv(groups=2, toy_group_spread=0.4, **QUIET), [0.2] * 10)[-1][-1]
    assert row["rollout/length_0"] < row["rollout/length"] < row["rollout/length_1"]
    assert row["student/entropy_0"] < row["student/entropy"] < row["student/entropy_1"]
    assert row["student/mismatch_0"] < row["student/mismatch"] < row["student/mismatch_1"]


def test_the_observation_stays_inside_its_space():
    env = ToyExposureEnv(groups=2)
    for step in play(env, np.random.default_rng(0).random(100).tolist()):
        assert env.observation_space.contains(np.asarray(step[0], dtype=np.float32))


@pytest.mark.parametrize("best", [0.0, 0.4, 1.0])
def test_the_best_ratio_learns_fastest_and_speed_falls_on_both_sides(best: float):
    grid = np.linspace(0.0, 1.0, 21)
    final = [play(ToyExposureEnv(toy_best_ratio=best, **QUIET), [ratio] * 10)[-1][-1]["probe/nll"] for ratio in grid]
    assert grid[int(np.argmin(final))] == pytest.approx(best)
    steps = np.diff(final) * np.sign(grid[:-1] + 1e-9 - best)
    assert (steps > 0).all()


def test_probe_nll_follows_the_documented_formula():
    seen = play(ToyExposureEnv(toy_best_ratio=0.4, hold_window=3, **QUIET), [0.4, 0.55])
    first = FINAL_NLL + (INITIAL_NLL - FINAL_NLL) * (1 - BEST_RATE) ** 3
    slower = BEST_RATE * np.exp(-0.5)  # 0.15, one width, off the best ratio
    second = FINAL_NLL + (first - FINAL_NLL) * (1 - slower) ** 3
    assert seen[0][1]["probe/nll"] == INITIAL_NLL
    np.testing.assert_allclose(column(seen, "probe/nll"), [first, second], rtol=1e-6)  # actions are float32
    np.testing.assert_array_equal(column(seen, "update"), [3, 6])


def test_progress_and_reward_are_those_of_the_measurements():
    seen = play(ToyExposureEnv(toy_noise=0.2, grounded_weight=0.5, windows=50), [0.6] * 50)
    nll = np.asarray([seen[0][1]["probe/nll"], *column(seen, "probe/nll")])
    progress = np.maximum(0.0, -np.diff(nll))
    assert (progress == 0.0).any()  # noise makes some windows worse: the positive part is seen
    np.testing.assert_allclose(column(seen, "reward/progress"), progress)
    np.testing.assert_allclose(column(seen, "reward/total"), progress + 0.5 * column(seen, "probe/grounded"))
    np.testing.assert_array_equal([step[1] for step in seen[1:]], column(seen, "reward/total"))
    signed = play(ToyExposureEnv(toy_noise=0.2, progress="signed", windows=50), [0.6] * 50)
    np.testing.assert_allclose(column(signed, "reward/progress"), -np.diff(nll))


def test_mismatch_and_grounded_score_rise_with_the_ratio():
    rows = [play(ToyExposureEnv(), [ratio])[1][-1] for ratio in np.linspace(0, 1, 5)]
    assert (np.diff([row["student/mismatch"] for row in rows]) > 0).all()
    assert (np.diff([row["probe/grounded"] for row in rows]) > 0).all()


def test_the_grounded_score_hardly_moves_the_best_ratio():
    config = preset("ATESD-Toy-v0", **QUIET)
    state = initial_state(config, seed=0)
    grid = np.linspace(0.0, 1.0, 1001)
    for window in range(config.windows):
        if window in (0, config.windows - 1):
            rewards = [next_state(state, np.array([ratio]), config).rows[-1]["reward/total"] for ratio in grid]
            assert abs(grid[int(np.argmax(rewards))] - config.toy_best_ratio) < 0.03
        state = next_state(state, np.array([config.toy_best_ratio]), config)


def test_noise_has_the_configured_spread():
    """Seeds 0..399, one number each: the standard deviation of n normal numbers has a standard error of 1/sqrt(2n) =
    3.5%, so a right implementation leaves +-18% (5 standard errors) with odds below 1e-6;
    the mean leaves +-5 standard errors likewise."""
    errors = [ToyExposureEnv(toy_noise=0.3).reset(seed=seed)[1]["probe/nll"] - INITIAL_NLL for seed in range(400)]
    assert np.std(errors) == pytest.approx(0.3, rel=0.18)
    assert abs(np.mean(errors)) < 5 * 0.3 / 20


def test_groups_learn_apart():
    env = ToyExposureEnv(groups=2, toy_best_ratio=0.5, **QUIET)
    env.reset(seed=0)
    env.step(np.array([0.5, 0.0]))
    fast, slow = env.snapshot().nll
    assert fast < slow < INITIAL_NLL
    assert env.snapshot().probe_nll == pytest.approx((fast + slow) / 2)


def test_accuracy_and_pass_at_k_come_when_asked():
    seen = play(ToyExposureEnv(windows=5, probe_accuracy_every=3, probe_pass_k=4), [0.5] * 5)
    accuracies = [step[-1]["probe/accuracy"] for step in seen[1:]]
    assert [value is not None for value in accuracies] == [False, False, True, False, True]
    assert all(step[-1]["probe/pass_at_k"] > step[-1]["rollout/success_rate"] for step in seen[1:])
    never = play(ToyExposureEnv(windows=2, probe_accuracy_every=0), [0.5] * 2)
    assert [step[-1]["probe/accuracy"] for step in never[1:]] == [None, None]
    assert never[1][-1]["probe/pass_at_k"] is None


def test_render_shows_the_run_so_far():
    env = ToyExposureEnv(render_mode="ansi", windows=20)
    play(env, [0.25, 0.75])
    text = env.render()
    assert isinstance(text, str)
    assert "window 2 of 20" in text
    assert "0.25" in text
    assert "0.75" in text
    assert ToyExposureEnv().render() is None
    picture_env = ToyExposureEnv(render_mode="rgb_array")
    play(picture_env, [0.25])
    picture = picture_env.render()
    assert isinstance(picture, np.ndarray)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
