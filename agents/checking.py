"""What stands between an agent and an environment: neither gets a number from the other that cannot be used.

A wrapper checks what passes, and a context manager tells an agent's exceptions from the environment's.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import gymnasium
import numpy as np

from atesd_env.config import RunConfig
from atesd_env.envs.actions import checked_ratios
from atesd_env.errors import AgentError, AtesdError, ConfigError, NonFiniteError


class Watched(Protocol):
    """What an agent plays in, as far as messages about it need.

    Attributes:
        agent_name: What messages call the agent.
        num_windows: Windows made so far, over all students.
        error: The exception that the environment itself raised last, or None.
    """

    agent_name: str
    num_windows: int
    error: BaseException | None


class CheckedEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Refuses actions that are no reveal ratios, and observations and rewards that are not finite.

    An action is checked before anything is trained with it; observation and reward when the window has been made, so put
    what writes rows inside of this wrapper.

    Args:
        env: The environment, with actions Box(0, 1, (groups,)).
        agent_name: What messages call the agent.

    Attributes: those of ``Watched``.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], agent_name: str = "agent") -> None:
        super().__init__(env)
        self.agent_name = agent_name
        self.num_windows = 0
        self.error: BaseException | None = None
        self._groups = num_groups(env)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the environment.

        Raises:
            NonFiniteError: If the first observation is not finite.
        """
        with others_failures(self):
            observation, info = super().reset(seed=seed, options=options)
            self._check_observation(observation, "after reset")
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Makes a window.

        Raises:
            AgentError: If the action is not one finite ratio in [0, 1] for each group; nothing is trained then.
            NonFiniteError: If the observation or the reward is not finite.
        """
        _check_decision(action, self._groups, f"agent {self.agent_name!r}, window {self.num_windows + 1}")
        with others_failures(self):
            observation, reward, terminated, truncated, info = super().step(action)
            self.num_windows += 1
            self._check_observation(observation, f"after window {self.num_windows}")
            check_reward(reward, f"of window {self.num_windows}")
        return observation, reward, terminated, truncated, info

    def _check_observation(self, observation: Any, when: str) -> None:
        names = getattr(self.env.unwrapped, "feature_names", ())
        check_observation(observation, self.observation_space.shape or (), when, names)


def observation_space(env: Any) -> gymnasium.Space[Any]:
    """Returns the observation space of one student of a scalar or vector environment."""
    space: gymnasium.Space[Any] = getattr(env, "single_observation_space", None) or env.observation_space
    return space


def action_space(env: Any) -> gymnasium.Space[Any]:
    """Returns the action space of one student of a scalar or vector environment."""
    space: gymnasium.Space[Any] = getattr(env, "single_action_space", None) or env.action_space
    return space


def num_groups(env: Any) -> int:
    """Returns the reveal ratios of a decision for one student.

    Raises:
        ConfigError: If its action space is not ``Box(0, 1, (groups,))``.
    """
    space = action_space(env)
    is_interval = isinstance(space, gymnasium.spaces.Box) and not ((space.low != 0).any() or (space.high != 1).any())
    if not is_interval or space.shape is None or len(space.shape) != 1:
        raise ConfigError(f"env: expected actions Box(0, 1, (groups,)), got {space}; pass one of our environments.")
    return space.shape[0]


def config_of(env: Any) -> RunConfig:
    """Returns the configuration of an environment of ours, scalar or vector, wrapped or not.

    Raises:
        ConfigError: If it has none.
    """
    config = getattr(env.unwrapped, "config", None)
    if not isinstance(config, RunConfig):
        raise ConfigError(
            f"env: expected an environment with a RunConfig in env.unwrapped.config, got {env}; the agent needs its gamma, "
            "lookahead, grounded_weight and number of windows: pass one of our environments."
        )
    return config


def check_observation(observation: Any, shape: tuple[int, ...], when: str, feature_names: Sequence[str] = ()) -> None:
    """Refuses an observation of another shape, or one that is not finite.

    Args:
        observation: [num_features], or [n, num_features] of n students.
        shape: What its shape should be.
        when: Where it comes from, for the message, such as "after window 3".
        feature_names: Names of the features, if they are known.

    Raises:
        ConfigError: If the shape is another.
        NonFiniteError: If a number is NaN or infinite; the message names the feature, and of several students the one.
    """
    values = np.asarray(observation, dtype=np.float64)
    if values.shape != shape:
        raise ConfigError(
            f"observation {when}: expected shape {shape}, as the observation space says, got {values.shape}; look at the "
            "wrappers around the environment."
        )
    is_finite = np.isfinite(values)
    if not is_finite.all():
        *student, feature = (int(index) for index in np.argwhere(~is_finite)[0])
        name = feature_names[feature] if len(feature_names) == shape[-1] else f"number {feature}"
        whose = f" of student {student[0]}" if student else ""
        raise NonFiniteError(
            f"observation {when}: expected finite numbers, got {values[(*student, feature)]} for the feature {name}{whose}; "
            "look at that window's row, and at the wrappers around the environment."
        )


def check_reward(reward: Any, whose: str) -> None:
    """Refuses rewards that are not finite.

    Args:
        reward: A number, or [n] of n students.
        whose: Where it comes from, for the message, such as "of window 3".

    Raises:
        NonFiniteError: If one is NaN or infinite; of several students the message names the one.
    """
    values = np.atleast_1d(np.asarray(reward, dtype=np.float64))
    if not np.isfinite(values).all():
        student = int(np.argmin(np.isfinite(values)))
        which = f" and student {student}" if np.ndim(reward) else ""
        raise NonFiniteError(
            f"reward {whose}{which}: expected a finite number, got {values[student]}; look at the columns reward/* and probe/* "
            "of that row, and at wrappers that change the reward. Agents learn nothing from it."
        )


def check_decisions(actions: Any, groups: int, agent_name: str, when: str) -> None:
    """Refuses decisions of several students that are no reveal ratios.

    Args:
        actions: [n, groups].
        groups: Difficulty groups of the environment.
        agent_name: What the message calls the agent.
        when: Which decision it is, for the message, such as "step 3".

    Raises:
        AgentError: If there is not one finite ratio in [0, 1] for each group of each student.
    """
    for student, action in enumerate(np.atleast_1d(np.asarray(actions))):
        _check_decision(action, groups, f"agent {agent_name!r}, {when}, student {student}")


def _check_decision(action: Any, groups: int, whose: str) -> None:
    try:
        checked_ratios(action, groups)
    except ConfigError as error:
        raise AgentError(f"{whose}: its decision cannot be used. {error}") from error


@contextmanager
def others_failures(env: Watched) -> Iterator[None]:
    """Lets an exception inside of ``agent_failures`` pass as it is: it is the environment's, or a callback's."""
    try:
        yield
    except BaseException as error:
        env.error = error
        raise


@contextmanager
def agent_failures(env: Watched, *, folder: Path | None = None) -> Iterator[None]:
    """Makes an exception of the agent's own code an AgentError that says where it happened and what is left.

    The environment's exceptions pass, and so do those that this package raises on purpose, and Ctrl-C.

    Args:
        env: What the agent plays in.
        folder: Folder of the run, if there is one.

    Raises:
        AgentError: With the agent's exception as its cause.
    """
    try:
        yield
    except AtesdError:
        raise
    except Exception as error:
        if error is env.error:
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        kept = "" if folder is None else f" The rows of {env.num_windows} windows are in {folder}."
        raise AgentError(
            f"agent {env.agent_name!r}: expected it to go on after window {env.num_windows}, but it raised "
            f"{type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno}, in {place.name}).{kept} "
            "Correct the agent and start again."
        ) from error
