"""The adapter: the transitions of our environments, in the form that Stable-Baselines3 expects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import RescaleAction
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.sb3.actions import Grid
from agents.sb3.vec_env import PopulationVecEnv
from atesd_env.errors import AgentError, ConfigError, NoEpisodeError, NonFiniteError
from tests.agents.sb3.students import WINDOWS, population, single

SEED = 5


def action(student: int, window: int) -> float:
    """An action in [-1, 1] that depends on the student and on how many windows it has made."""
    return float(np.sin(1.0 + student + 3.0 * window))


def native_transitions(num_steps: int) -> list[list[tuple[Any, ...]]]:
    """Each student's real transitions (observation, reward, ended, next observation) under NEXT_STEP."""
    env = population()
    observations, _ = env.reset(seed=SEED)
    found: list[list[tuple[Any, ...]]] = [[], [], []]
    is_reset = np.zeros(3, dtype=bool)
    for _ in range(num_steps):
        actions = np.array([[0.5 * (np.float32(action(k, len(found[k]))) + 1)] for k in range(3)])
        following, rewards, terminations, truncations, _ = env.step(actions)
        for k in np.flatnonzero(~is_reset).tolist():
            ended = terminations[k] or truncations[k]
            found[k].append((observations[k].tolist(), np.float32(rewards[k]), ended, following[k].tolist()))
        is_reset = terminations | truncations
        observations = following
    return found


def test_the_extra_reset_step_is_no_transition_and_all_others_are_the_same(breaks_in_window_two):
    breaks_in_window_two(SEED + 1)  # so that the students' runs end at different times
    env = PopulationVecEnv(population())
    env.seed(SEED)
    observations = env.reset()
    found: list[list[tuple[Any, ...]]] = [[], [], []]
    for window in range(11):
        actions = np.array([[action(k, window)] for k in range(3)], dtype=np.float32)
        before = observations.copy()
        observations, rewards, ends, infos = env.step(actions)
        for k in range(3):
            following = infos[k]["terminal_observation"] if ends[k] else observations[k]
            found[k].append((before[k].tolist(), rewards[k], ends[k], following.tolist()))
    for ours, native in zip(found, native_transitions(14), strict=True):
        assert ours == native[: len(ours)]
    assert [sum(one[2] for one in student) for student in found] == [2, 3, 2]


def test_infos_say_how_a_run_ended(breaks_in_window_two):
    breaks_in_window_two(SEED + 1)
    env = PopulationVecEnv(population())
    env.seed(SEED)
    env.reset()
    half = np.zeros((3, 1), dtype=np.float32)
    _, first, *_ = env.step(half)
    _, second, ends, infos = env.step(half)
    assert ends.tolist() == [False, True, False]
    assert [info["TimeLimit.truncated"] for info in infos] == [False, False, False]
    assert infos[1]["termination_reason"] == "broke in a test"
    assert infos[1]["episode"] == {"r": pytest.approx(float(first[1] + second[1])), "l": 2}
    assert "terminal_observation" not in infos[0]
    assert env.reset_infos[1]["seed"] != SEED + 1, "a new run of student 1 has begun"
    env.step(half)
    _, _, ends, infos = env.step(half)
    assert ends.tolist() == [True, False, True]
    assert [info["TimeLimit.truncated"] for info in infos] == [True, False, True]
    assert infos[0]["window"] == WINDOWS
    assert isinstance(infos[0]["window"], int)
    assert infos[0]["probe/pass_at_k"] is None, "not measured, as in the scalar environment"


def test_one_student_is_what_dummy_vec_env_makes_of_it():
    ours = PopulationVecEnv(single())
    theirs = DummyVecEnv([lambda: Monitor(RescaleAction(single(), np.float32(-1.0), np.float32(1.0)))])
    for env in (ours, theirs):
        env.seed(SEED)
    assert np.array_equal(ours.reset(), theirs.reset())
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space.shape == theirs.action_space.shape
    for window in range(2 * WINDOWS + 1):
        actions = np.array([[action(0, window)]], dtype=np.float32)
        (observations, rewards, ends, infos), expected = ours.step(actions), theirs.step(actions)
        assert np.array_equal(observations, expected[0])
        assert np.array_equal(rewards, expected[1])
        assert rewards.dtype == expected[1].dtype
        assert np.array_equal(ends, expected[2])
        there = expected[3][0]
        assert infos[0]["TimeLimit.truncated"] == there["TimeLimit.truncated"]
        if ends[0]:
            assert np.array_equal(infos[0]["terminal_observation"], there["terminal_observation"])
            assert infos[0]["episode"]["l"] == there["episode"]["l"]
            assert infos[0]["episode"]["r"] == pytest.approx(there["episode"]["r"], abs=1e-5)
        assert infos[0]["reward/total"] == there["reward/total"]


def test_a_population_is_its_students_alone():
    together = PopulationVecEnv(population())
    together.seed(SEED)
    observations = [together.reset().copy()]
    for window in range(WINDOWS - 1):
        observations.append(together.step(np.array([[action(k, window)] for k in range(3)]))[0].copy())
    for k in range(3):
        alone = PopulationVecEnv(single())
        alone.seed(SEED + k)
        assert np.array_equal(alone.reset()[0], observations[0][k])
        for window in range(WINDOWS - 1):
            assert np.array_equal(alone.step(np.array([[action(k, window)]]))[0][0], observations[window + 1][k])


@pytest.mark.parametrize("make", [population, single])
def test_the_same_seed_gives_the_same_runs(make: Callable[[], Any]):
    def observations(seed: int) -> list[list[float]]:
        env = PopulationVecEnv(make())
        env.seed(seed)
        found = [env.reset().copy()]
        for window in range(2 * WINDOWS):
            actions = np.full((env.num_envs, 1), action(0, window))
            found.append(env.step(actions)[0].copy())
        return np.concatenate(found).tolist()

    assert observations(1) == observations(1)
    assert observations(1) != observations(2)


def test_deferred_resets_leave_the_ended_student_and_fill_the_same_array():
    inner = population(2)
    env = PopulationVecEnv(inner, defer_reset=True)
    env.seed(SEED)
    env.reset()
    half = np.zeros((2, 1), dtype=np.float32)
    for _ in range(WINDOWS):
        observations, _, ends, infos = env.step(half)
    assert ends.all()
    assert np.array_equal(observations[0], infos[0]["terminal_observation"])
    assert len(inner.unwrapped.population.runs[0].rows) == WINDOWS, "what was trained is still there"
    with pytest.raises(NoEpisodeError, match="start_ended"):
        env.step(half)
    env.start_ended()
    assert len(inner.unwrapped.population.runs[0].rows) == 0
    assert not np.array_equal(observations[0], infos[0]["terminal_observation"])
    seeds = [info["seed"] for info in env.reset_infos]
    assert np.array_equal(env.reset(), observations), "students that are new already are not started again"
    assert [info["seed"] for info in env.reset_infos] == seeds
    env.seed(SEED)
    assert env.reset() is not observations
    assert [info["seed"] for info in env.reset_infos] == [SEED, SEED + 1]


def test_numbered_actions_become_ratios_of_the_grid():
    env = PopulationVecEnv(population(2, groups=2), Grid(groups=2, points=3))
    env.reset()
    *_, infos = env.step(np.array([[0, 1], [2, 2]]))
    assert [info["exposure/reveal_ratio"] for info in infos] == [0.25, 1.0]


@pytest.mark.parametrize("make", [population, single])
def test_closing_twice_is_closing_once(make: Callable[[], Any]):
    env = PopulationVecEnv(make())
    env.reset()
    env.close()
    env.close()


def test_attributes_and_methods_of_the_environment():
    env = PopulationVecEnv(population(3, render_mode="rgb_array"))
    env.seed(SEED)
    env.reset()
    assert env.get_attr("config")[2].windows == WINDOWS
    assert [state.seed for state in env.env_method("snapshot", indices=[0, 2])] == [SEED, SEED + 2]
    assert not env.has_attr("no_such_attribute")
    env.step(np.zeros((3, 1)))
    picture = env.render()
    assert picture is not None
    assert picture.ndim == 3
    with pytest.raises(ConfigError, match="all 3 students"):
        env.set_attr("render_mode", None, indices=[0])
    assert env.env_is_wrapped(Monitor) == [True] * 3
    assert env.env_is_wrapped(gymnasium.wrappers.TimeLimit) == [False] * 3
    single_env = PopulationVecEnv(gymnasium.wrappers.TimeLimit(single(), 100))
    assert single_env.env_is_wrapped(gymnasium.wrappers.TimeLimit) == [True]
    assert single_env.get_attr("config")[0].windows == WINDOWS


def test_stable_baselines_own_tools_take_it():
    """``evaluate_policy`` warns, and a warning is an error here, unless there is what a Monitor does."""
    env = PopulationVecEnv(population(2))
    model = PPO("MlpPolicy", env, n_steps=4, batch_size=8, seed=0, device="cpu")
    returns, lengths = evaluate_policy(model, env, n_eval_episodes=4, return_episode_rewards=True)
    assert lengths == [WINDOWS] * 4
    assert np.isfinite(returns).all()
    model.learn(16)
    assert model.ep_info_buffer is not None
    assert [info["l"] for info in model.ep_info_buffer] == [WINDOWS] * 4


def test_other_environments_are_refused():
    with pytest.raises(ConfigError, match=r"expected actions Box\(0, 1"):
        PopulationVecEnv(RescaleAction(single(), np.float32(-1.0), np.float32(1.0)))
    with pytest.raises(ConfigError, match="autoreset_mode"):
        PopulationVecEnv(SyncVectorEnv([single], autoreset_mode=AutoresetMode.SAME_STEP))


def test_options_are_the_scalar_environments(tmp_path):
    inner = single()
    inner.reset(seed=3)
    inner.step(np.array([0.5], dtype=np.float32))
    inner.unwrapped.save_state(tmp_path / "state.safetensors")
    env = PopulationVecEnv(single())
    env.set_options({"state": tmp_path / "state.safetensors"})
    env.reset()
    assert env.reset_infos[0]["seed"] == 3
    many = PopulationVecEnv(population())
    many.set_options({"state": "somewhere"})
    with pytest.raises(ConfigError, match="options"):
        many.reset()


def test_numbers_that_cannot_be_used_pass_in_neither_direction(monkeypatch: pytest.MonkeyPatch):
    env = PopulationVecEnv(population(), agent_name="mine")
    env.reset()
    with pytest.raises(AgentError, match=r"'mine', after 0 windows, student 1: .* got nan"):
        env.step(np.array([[0.0], [np.nan], [0.0]], dtype=np.float32))
    result = env.env.step

    def spoilt(actions: Any) -> Any:
        observations, rewards, *rest = result(actions)
        return observations, np.where(np.arange(3) == 2, np.nan, rewards), *rest

    monkeypatch.setattr(env.env, "step", spoilt)
    with pytest.raises(NonFiniteError, match="reward after 3 windows and student 2"):
        env.step(np.zeros((3, 1), dtype=np.float32))
    assert isinstance(env.error, NonFiniteError)
