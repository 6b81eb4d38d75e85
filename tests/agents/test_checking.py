"""Bad input between agent and environment: clear messages, and nothing trained or learned from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from agents.checking import CheckedEnv, agent_failures, check_observation, check_reward
from agents.schedules import FixedSchedule
from atesd_env.errors import AgentError, ConfigError, NonFiniteError
from atesd_env.simulated.toy import ToyExposureEnv


class Spoilt(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Changes what comes out of the second window."""

    def __init__(self, env: Any, observation: Any = None, reward: float | None = None) -> None:
        super().__init__(env)
        self.spoilt = observation, reward
        self.num_steps = 0

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.num_steps += 1
        observation, reward, *rest = super().step(action)
        if self.num_steps == 2:
            change, new_reward = self.spoilt
            observation = observation if change is None else change(observation)
            reward = reward if new_reward is None else new_reward
        return observation, reward, *rest


def with_nan(observation: np.ndarray) -> np.ndarray:
    changed = observation.copy()
    changed[3] = np.nan
    return changed


def test_a_right_run_passes_untouched():
    plain, checked = (FixedSchedule(env, ratio=0.3) for env in (ToyExposureEnv(), CheckedEnv(ToyExposureEnv())))
    rows: list[list[Any]] = [[], []]
    for agent, seen in zip((plain, checked), rows, strict=True):
        agent.learn(5, callback=lambda names, _, seen=seen: seen.append(names["transition"].info))
    assert rows[0] == rows[1]
    assert checked.env.num_windows == 5


@pytest.mark.parametrize(
    ("spoilt", "kind", "message"),
    [
        (
            {"observation": with_nan},
            NonFiniteError,
            "after window 2: expected finite numbers, got nan for .* mismatch_ema",
        ),
        ({"observation": lambda x: x[:5]}, ConfigError, r"after window 2: expected shape \(17,\).* got \(5,\)"),
        ({"reward": float("nan")}, NonFiniteError, "reward of window 2: expected a finite number, got nan"),
        ({"reward": float("-inf")}, NonFiniteError, "reward of window 2: expected a finite number, got -inf"),
    ],
)
def test_what_an_agent_must_not_learn_from_does_not_reach_it(
    spoilt: dict[str, Any], kind: type[Exception], message: str
):
    env = CheckedEnv(Spoilt(ToyExposureEnv(), **spoilt))
    seen: list[int] = []
    with pytest.raises(kind, match=message), agent_failures(env):
        FixedSchedule(env).learn(5, callback=lambda *_: seen.append(1))
    assert len(seen) == 1


def test_of_several_students_the_one_is_named():
    observations, rewards = np.zeros((3, 2)), np.zeros(3)
    check_observation(observations, (3, 2), "after reset")
    check_reward(rewards, "of step 4")
    observations[1, 0], rewards[2] = np.inf, np.nan
    with pytest.raises(NonFiniteError, match="got inf for the feature loss of student 1"):
        check_observation(observations, (3, 2), "after reset", ("loss", "entropy"))
    with pytest.raises(NonFiniteError, match="reward of step 4 and student 2: expected a finite number, got nan"):
        check_reward(rewards, "of step 4")


def test_a_bad_first_observation_is_refused():
    class BadStart(gymnasium.ObservationWrapper[Any, Any, Any]):
        def observation(self, observation: np.ndarray) -> np.ndarray:
            return with_nan(observation)

    with pytest.raises(NonFiniteError, match="observation after reset: expected finite numbers"):
        CheckedEnv(BadStart(ToyExposureEnv())).reset(seed=0)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ([1.5], r"expected reveal ratios in \[0, 1\], got 1.5 for group 0"),
        ([-0.1], r"expected reveal ratios in \[0, 1\], got -0.1"),
        ([float("nan")], r"expected reveal ratios in \[0, 1\], got nan"),
        ([0.1, 0.2], r"expected shape \(1,\).* got \(2,\)"),
        (None, "expected"),
        ("half", r"expected 1 reveal ratio\(s\)"),
    ],
)
def test_a_decision_that_cannot_be_used_names_agent_and_window(action: Any, message: str):
    inner = ToyExposureEnv()
    env = CheckedEnv(inner, "mine:Wild")
    env.reset(seed=0)
    env.step([0.5])
    with pytest.raises(AgentError, match=rf"agent 'mine:Wild', window 2: its decision cannot be used\..*{message}"):
        env.step(action)
    assert len(inner.snapshot().rows) == 1, "nothing was trained with it"


def test_rounding_beyond_the_ends_passes():
    env = CheckedEnv(ToyExposureEnv())
    env.reset(seed=0)
    env.step(np.array([1.0 + 5e-7]))


def raising(error: BaseException) -> None:
    raise error


def test_an_agents_exception_says_where_and_keeps_its_cause():
    env = CheckedEnv(ToyExposureEnv(), "mine:Broken")
    env.reset(seed=0)
    env.step([0.5])
    mistake = KeyError("no such feature")
    with pytest.raises(AgentError) as caught, agent_failures(env, folder=Path("runs") / "first"):
        raising(mistake)
    assert caught.value.__cause__ is mistake
    for part in (
        "agent 'mine:Broken': expected it to go on after window 1, but it raised KeyError: 'no such feature'",
        "(test_checking.py, line ",
        "in raising)",
        f"The rows of 1 windows are in {Path('runs') / 'first'}.",
    ):
        assert part in str(caught.value)


class Breaking(gymnasium.Wrapper[Any, Any, Any, Any]):
    def step(self, action: Any) -> Any:
        raise MemoryError("no memory left")


def test_the_environments_own_exceptions_are_not_the_agents():
    env = CheckedEnv(Breaking(ToyExposureEnv()))
    with pytest.raises(MemoryError, match="no memory left"), agent_failures(env):
        FixedSchedule(env).learn(1)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ConfigError("on purpose")])
def test_interrupts_and_our_own_errors_pass(error: BaseException):
    with pytest.raises(type(error)) as caught, agent_failures(CheckedEnv(ToyExposureEnv())):
        raise error
    assert caught.value is error


def test_an_environment_with_other_actions_is_refused():
    with pytest.raises(ConfigError, match="expected actions Box"):
        CheckedEnv(gymnasium.make("CartPole-v1"))
