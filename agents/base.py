"""The contract of an agent, and a base class that brings everything but the decision.

An agent is anything with Stable-Baselines3's ``predict``; ``learn``, ``save`` and ``load`` are optional, with the names
and the meaning that they have there. So Stable-Baselines3's own classes are agents, and agents from here can stand
where theirs do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from agents.checking import action_space, num_groups, observation_space
from agents.files import FORMAT_VERSION, agent_file, read_agent_file, with_suffix
from agents.options import checked_count, option_parameters
from atesd_env.config.checks import checked_seed
from atesd_env.envs.actions import checked_ratios
from atesd_env.errors import ConfigError
from atesd_env.files.atomic import write_atomically
from atesd_env.files.reading import reading
from atesd_env.streams import numpy_stream

_LAST_OBSERVATION = "last_observation"


class Transition(NamedTuple):
    """One window as an agent sees it.

    Attributes:
        observation: [num_features] float32, before the window.
        action: Reveal ratios [groups] float32.
        reward: The environment's reward.
        next_observation: [num_features] float32, after the window.
        terminated: The student broke.
        truncated: The run is over.
        info: The window's row, and ``termination_reason`` if it terminated.
    """

    observation: NDArray[np.float32]
    action: NDArray[np.float32]
    reward: float
    next_observation: NDArray[np.float32]
    terminated: bool
    truncated: bool
    info: dict[str, Any]


@runtime_checkable
class AgentProtocol(Protocol):
    """The least that an agent must have."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Returns (reveal ratios, next state) for one observation [num_features] or several [n, num_features]."""
        ...


Callback = Callable[[dict[str, Any], dict[str, Any]], bool | None]
"""A function of (names of the learning loop, empty dict); returning False stops ``learn``."""


class Agent:
    """An agent that loops over windows; a subclass decides in ``predict`` and may learn in ``observe``.

    Args:
        env: The environment, whose action space is ``Box(0, 1, (groups,))``; in a vector of students an agent only predicts.
        seed: Seed of the agent's own random numbers, and of the environment's first reset: runs with the same seed meet
            the same problems whoever decides.

    Attributes:
        env: The environment.
        seed: The seed.
        groups: Reveal ratios of a decision.
        rng: The agent's random numbers.
        num_timesteps: Windows made by ``learn``.
        last_observation: Observation that the next decision starts from; None where an episode has to be started.

    Raises:
        ConfigError: If the action space has another shape, or the seed is not a whole number from 0.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], seed: int = 0) -> None:
        self.env = env
        self.groups = num_groups(env)
        self.reseed(seed)
        self.num_timesteps = 0
        self.last_observation: NDArray[np.float32] | None = None
        self._predict_state: Any = None
        self._is_episode_start = True
        self._has_seeded_env = False

    def reseed(self, seed: int) -> None:
        """Gives the next run, which must not have begun, this seed, and the agent's decisions in it."""
        self.seed = checked_seed(seed)
        self.rng = numpy_stream(self.seed, "decisions")

    def predict(
        self,
        observation: NDArray[np.float32],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.float32], Any]:
        """Returns reveal ratios for an observation; a subclass must have this.

        Args:
            observation: [num_features], or [n, num_features] for n at once.
            state: Whatever an earlier call returned; None at the start. Agents without memory pass it through.
            episode_start: Whether an episode begins, [n] bool.
            deterministic: Leave the randomness of the decision out.

        Returns:
            Reveal ratios, float32 [groups] or [n, groups] in [0, 1], and the next state.
        """
        raise NotImplementedError(
            f"{type(self).__name__}: expected a method predict(observation, state, episode_start, deterministic), got none; define it."
        )

    def begin_episode(self) -> None:
        """Hook: an episode was started, perhaps in the middle of another one."""

    def decide(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """Hook: returns the next window's action while learning; ``predict`` unless a subclass must remember more."""
        is_start = np.asarray([self._is_episode_start])
        action, self._predict_state = self.predict(observation, self._predict_state, is_start, deterministic=False)
        self._is_episode_start = False
        return action

    def observe(self, transition: Transition) -> None:
        """Hook: learns from one window."""

    def diagnostics(self) -> dict[str, float]:
        """Returns numbers about the last decision, logged as columns ``agent/<name>``; always under the same names."""
        return {}

    def learn(
        self,
        total_timesteps: int,
        callback: Callback | Any = None,
        progress_bar: bool = False,
        *,
        reset_num_timesteps: bool = True,
    ) -> Self:
        """Decides and learns for some windows, over as many episodes as they fill.

        Args:
            total_timesteps: Windows to make.
            callback: Called after each window, once the agent has learned from it: a function of two dicts (the first
                holds ``self``, ``transition``, ``infos``, ``rewards`` and ``dones``, lists of one as in
                Stable-Baselines3; the second is empty), or a Stable-Baselines3 ``BaseCallback``. Returning False stops.
            progress_bar: Show one.
            reset_num_timesteps: Start counting, and a new episode. False goes on with the episode that the last call
                (or the agent that was saved) was in, so that two calls make the windows of one.

        Returns:
            The agent itself.

        Raises:
            ConfigError: If the environment is a vector of students.
        """
        if isinstance(self.env, VectorEnv):
            raise ConfigError(
                f"env: expected the environment of one student to learn in, got a vector of {self.env.num_envs}; make the agent "
                "with gymnasium.make(id), or let it only `predict`."
            )
        if reset_num_timesteps:
            self.num_timesteps, self.last_observation = 0, None
        notify = _Notifier(self, callback)
        for _ in _counted(total_timesteps, progress_bar):
            if self.last_observation is None:
                self.last_observation = self._reset_env()
            observation = self.last_observation
            action = self.decide(observation)
            next_observation, reward, terminated, truncated, info = self.env.step(action)
            transition = Transition(observation, action, float(reward), next_observation, terminated, truncated, info)
            self.num_timesteps += 1
            self.last_observation = None if terminated or truncated else next_observation
            self.observe(transition)
            if not notify.step(transition):
                break
        notify.end()
        return self

    def _reset_env(self) -> NDArray[np.float32]:
        # Only the first reset is seeded, or every episode would be the same; an agent that
        # goes on with a saved one's run seeds none.
        is_first = not self._has_seeded_env and self.num_timesteps == 0
        observation, _ = self.env.reset(seed=self.seed if is_first else None)
        self._has_seeded_env = True
        self._predict_state, self._is_episode_start = None, True
        self.begin_episode()
        return np.asarray(observation)

    def options(self) -> dict[str, Any]:
        """Returns the constructor's arguments beside ``env`` and ``seed``, as JSON can hold them.

        They are the attributes of the same names, as Stable-Baselines3 and scikit-learn keep them.
        """
        return {name: getattr(self, name) for name in option_parameters(type(self)) if hasattr(self, name)}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Returns what the agent has learned and remembers, beyond the attributes of this class."""
        return {}

    def set_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Takes over what ``arrays`` returned."""

    @property
    def is_resumable(self) -> bool:
        """Whether ``state`` holds everything: not while ``predict`` passes a state of its own on."""
        return self._predict_state is None

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Returns the agent as arrays and a description that JSON can hold, for ``from_state``."""
        description = {
            "format_version": FORMAT_VERSION,
            "class": _class_name(type(self)),
            "seed": self.seed,
            "options": self.options(),
            "spaces": _spaces(self.env),
            "num_timesteps": self.num_timesteps,
            "rng": self.rng.bit_generator.state,
        }
        arrays = {name: np.asarray(array, order="C") for name, array in self.arrays().items()}
        if self.last_observation is not None:
            arrays[_LAST_OBSERVATION] = self.last_observation
        return arrays, description

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the agent to one file, such that learning goes on after ``load`` as if it had not been interrupted.

        The file is safetensors with JSON in its metadata; nothing is pickled. The state that ``predict`` passes on is
        not in it.

        Args:
            path: The file; without a suffix, ``.safetensors`` is added.

        Raises:
            RunFilesError: If it cannot be written; an older file then stays whole.
        """
        arrays, description = self.state()
        write_atomically(with_suffix(path, ".safetensors"), agent_file(arrays, json.dumps(description)))

    @classmethod
    def load(cls, path: str | os.PathLike[str], env: gymnasium.Env[Any, Any]) -> Self:
        """Returns the agent of a file that ``save`` wrote.

        Args:
            path: The file; without a suffix, ``.safetensors`` is added.
            env: The environment to decide in. ``learn(..., reset_num_timesteps=False)`` goes on in the middle of the
                saved agent's episode, so the environment must be there too.

        Raises:
            RunFilesError: If the file cannot be read.
            ConfigError: If it holds another class of agent, or one for other spaces.
        """
        source = with_suffix(path, ".safetensors")
        return cls.from_state(*read_agent_file(source), env, source=str(source))

    @classmethod
    def from_state(
        cls,
        arrays: Mapping[str, NDArray[Any]],
        description: Mapping[str, Any],
        env: gymnasium.Env[Any, Any],
        *,
        source: str = "state",
    ) -> Self:
        """Returns the agent that ``state`` described; the other arguments are those of ``load``.

        Raises:
            ConfigError: If it is that of another class of agent, or of one for other spaces.
        """
        with reading(source, "an agent's state", remedy="check versions, or train another one"):
            agent = cls._of_state(arrays, description, env, source)
            if cls.__module__.startswith("agents."):
                # One that cannot decide is found out now, and not in the middle of a run.
                tried = cls._of_state(arrays, description, env, source)
                checked_ratios(tried._tried(), tried.groups)
        return agent

    def _tried(self) -> NDArray[Any]:
        """Returns some decision, [groups], of an agent that is thrown away after it."""
        return self.predict(np.zeros(observation_space(self.env).shape or (), np.float32))[0]

    @classmethod
    def _of_state(
        cls,
        arrays: Mapping[str, NDArray[Any]],
        description: Mapping[str, Any],
        env: gymnasium.Env[Any, Any],
        source: str,
    ) -> Self:
        if description.get("class") != _class_name(cls):
            raise ConfigError(
                f"{source}: expected an agent of class {_class_name(cls)}, got {description.get('class', 'none')}; "
                "load it with the class that saved it."
            )
        if description.get("spaces", _spaces(env)) != _spaces(env):
            raise ConfigError(
                f"{source}: expected an agent for {_spaces_in_words(_spaces(env))}, as the environment has, got one that "
                f"was saved for {_spaces_in_words(description['spaces'])}; make the environment with the `groups` and the "
                "version that it was saved with, or train another one."
            )
        agent = cls(env, seed=description["seed"], **description["options"])
        agent.num_timesteps = checked_count("num_timesteps", description["num_timesteps"], least=0)
        agent.rng.bit_generator.state = description["rng"]
        agent.last_observation = arrays.get(_LAST_OBSERVATION)
        # In the middle of an episode, the next decision is not an episode's first.
        agent._is_episode_start = agent.last_observation is None
        if agent.last_observation is not None and agent.last_observation.shape != observation_space(env).shape:
            raise ValueError(f"a last observation of shape {agent.last_observation.shape}")
        theirs = {name: array for name, array in arrays.items() if name != _LAST_OBSERVATION}
        agent.set_arrays(theirs)
        if unknown := theirs.keys() - agent.arrays().keys():
            raise ValueError(f"arrays that such an agent has not, as {min(unknown)!r:.60}")
        return agent


class _Notifier:
    """Calls a callback of either kind."""

    def __init__(self, agent: Agent, callback: Any) -> None:
        # Recognised by their methods: importing Stable-Baselines3 to ask for a class would load torch.
        self._is_object = hasattr(callback, "on_step")
        if not self._is_object:
            check_callback(callback)
        self._agent = agent
        self._callback: Any = callback
        if self._is_object:
            self._callback.init_callback(agent)
            self._callback.on_training_start({"self": agent}, {})

    def step(self, transition: Transition) -> bool:
        if self._callback is None:
            return True
        names = {
            "self": self._agent,
            "transition": transition,
            "infos": [transition.info],
            "rewards": [transition.reward],
            "dones": [transition.terminated or transition.truncated],
        }
        if self._is_object:
            self._callback.update_locals(names)
            return self._callback.on_step() is not False
        return self._callback(names, {}) is not False

    def end(self) -> None:
        if self._is_object:
            self._callback.on_training_end()


def check_callback(callback: Any) -> None:
    """Raises ConfigError if a callback, which is no object of Stable-Baselines3's, is neither a function nor None."""
    if callback is not None and not callable(callback):
        raise ConfigError(
            f"callback: expected a function of two dicts or a BaseCallback, got {callback!r}; "
            "pass one of these, or None."
        )


def _counted(total_timesteps: int, progress_bar: bool) -> Iterable[int]:
    if not progress_bar:
        return range(total_timesteps)
    from rich.progress import track

    return track(range(total_timesteps), description="windows")


def _spaces(env: gymnasium.Env[Any, Any]) -> dict[str, list[int]]:
    """Returns the shapes of one student's observation and action, as JSON gives them back."""
    spaces = {"observation": observation_space(env), "action": action_space(env)}
    return {name: list(space.shape or ()) for name, space in spaces.items()}


def _spaces_in_words(spaces: Mapping[str, Any]) -> str:
    return f"observations of shape {tuple(spaces['observation'])} and {spaces['action'][0]} group(s)"


def _class_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
