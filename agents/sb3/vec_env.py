"""One adapter: a population of students, or a single one, as a vector environment of Stable-Baselines3.

Differences that it bridges:

- Autoreset. Ours is Gymnasium's ``NEXT_STEP``: an ended student is started anew by the next ``step``, whose transition is
  none. Stable-Baselines3 wants the first observation of the new run in the step that ended the old one. So the ended
  students, and only they, are reset right away (``reset_mask``), which draws the seeds that ``NEXT_STEP`` would have drawn;
  the last observation of the old run is in ``info["terminal_observation"]``.
- The end of a run. ``info["TimeLimit.truncated"]`` is True where the run's windows were used up and nothing broke: there,
  and only there, the algorithms add ``gamma`` times the value of the terminal observation.
- Actions: agents/sb3/actions.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from agents.checking import (
    check_decisions,
    check_observation,
    check_reward,
    num_groups,
    observation_space,
    others_failures,
)
from agents.sb3.actions import ActionMap, Interval
from atesd_env.envs.infos import student_infos
from atesd_env.errors import ConfigError, NoEpisodeError

Infos = list[dict[str, Any]]
"""One mapping for each student, as Stable-Baselines3 has them."""
Step = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], Infos]
"""Observations [K, features], rewards [K], terminated [K], truncated [K], infos."""


class PopulationVecEnv(VecEnv):
    """A population (``make_vec``), or one student (``make``) as a population of one.

    Observations are those of the environment, [K, num_features]. An ``info`` is the scalar environment's: the window's row
    (None where something was not measured), and in the last window of a run ``terminal_observation`` and ``episode`` with
    the run's return ``r`` and length ``l``, as Stable-Baselines3's ``Monitor`` has it.

    Neither side gets a number from the other that cannot be used (agents/checking.py).

    Args:
        env: One of our environments, wrapped or not.
        actions: How actions become reveal ratios; None is ``Interval``.
        defer_reset: Leave an ended student as it is until ``start_ended`` is called, so that a callback can still see (and
            save) what was trained, and can stop without a new run being started.
        agent_name: What messages call the agent.

    Attributes:
        env: The environment.
        actions: How actions become reveal ratios.
        groups: Reveal ratios of a decision.
        agent_name, num_windows, error: Those of ``agents.checking.Watched``.

    Raises:
        ConfigError: If the environment's actions are not ``Box(0, 1, (groups,))``, or it restarts ended students itself
            within their last step.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any],
        actions: ActionMap | None = None,
        *,
        defer_reset: bool = False,
        agent_name: str = "agent",
    ) -> None:
        self.env = env
        self.agent_name = agent_name
        self.num_windows = 0
        self.error: BaseException | None = None
        self._students = _Population(env) if isinstance(env, VectorEnv) else _Single(env)
        space, self.groups = observation_space(env), num_groups(env)
        self.actions = Interval(self.groups) if actions is None else actions
        self._defer_reset = defer_reset
        super().__init__(self._students.num_envs, space, self.actions.space)
        self._shape: tuple[int, ...] = (self.num_envs, *(space.shape or ()))
        self._returned: NDArray[np.float32] | None = None  # the observations that the last step or reset gave away
        self._pending: NDArray[Any] | None = None
        self._is_ended: NDArray[np.bool_] = np.zeros(self.num_envs, dtype=np.bool_)
        self._is_fresh = False
        self._returns: NDArray[np.float64] = np.zeros(self.num_envs)
        self._lengths: NDArray[np.int64] = np.zeros(self.num_envs, dtype=np.int64)

    def reset(self) -> NDArray[np.float32]:
        """Starts new runs of all students, with the seeds that ``seed`` named; returns their observations.

        Students that have just been started, and have made no window, are left as they are unless seeds wait.
        """
        is_asked = any(seed is not None for seed in self._seeds) or any(self._options)
        if not self._is_fresh or is_asked or self._returned is None:
            everyone = np.ones(self.num_envs, dtype=np.bool_)
            self._returned, self.reset_infos = self._reset_students(list(self._seeds), list(self._options), everyone)
            self._started(everyone)
        self._reset_seeds()
        self._reset_options()
        self._is_fresh = True
        return self._returned

    def step_async(self, actions: NDArray[Any]) -> None:
        """Takes the students' actions, of ``action_space``.

        Raises:
            NoEpisodeError: If ended students wait for ``start_ended``.
        """
        if self._is_ended.any():
            raise NoEpisodeError(
                f"step: expected running students, but the runs of {np.flatnonzero(self._is_ended).tolist()} have ended; "
                "call start_ended() first."
            )
        self._pending = actions

    def step_wait(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], Infos]:
        """Makes a window of every student.

        Returns:
            Observations [K, num_features], rewards [K], ends [K], and infos. Where a run ended, the observation is the next
            run's first (with ``defer_reset``: once ``start_ended`` was called).

        Raises:
            AgentError: If a decision is not one finite ratio in [0, 1] for each group; no window is made then.
            NonFiniteError: If an observation or a reward is not finite.
        """
        assert self._pending is not None
        ratios = self.actions.ratios(self._pending)
        self._pending, self._is_fresh = None, False
        check_decisions(ratios, self.groups, self.agent_name, f"after {self.num_windows} windows")
        with others_failures(self):
            observations, rewards, terminations, truncations, infos = self._students.step(ratios)
            self.num_windows += self.num_envs
            when = f"after {self.num_windows} windows"
            check_observation(observations, self._shape, when, feature_names(self.env))
            check_reward(rewards, when)
        ends = terminations | truncations
        self._returns += rewards
        self._lengths += 1
        for index, info in enumerate(infos):
            info["TimeLimit.truncated"] = bool(truncations[index] and not terminations[index])
            if ends[index]:
                info["terminal_observation"] = observations[index].copy()
                info["episode"] = {"r": float(self._returns[index]), "l": int(self._lengths[index])}
        # A copy: start_ended clears the array that says who has ended.
        self._returned, self._is_ended = observations, ends.copy()
        if not self._defer_reset:
            self.start_ended()
        return observations, rewards, ends, infos

    def start_ended(self) -> None:
        """Starts new runs of the ended students; their first observations replace the last ones in the array of the step."""
        if not self._is_ended.any():
            return
        assert self._returned is not None
        ended = self._is_ended.copy()
        unnamed: list[int | None] = [None] * self.num_envs
        observations, infos = self._reset_students(unnamed, [{} for _ in unnamed], ended)
        # In place: the algorithm already holds this array as its newest observation.
        self._returned[ended] = observations[ended]
        for index in np.flatnonzero(ended).tolist():
            self.reset_infos[index] = infos[index]
        self._is_fresh = bool(ended.all())
        self._started(ended)

    def _reset_students(
        self, seeds: list[int | None], options: list[dict[str, Any]], who: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], Infos]:
        with others_failures(self):
            observations, infos = self._students.reset(seeds, options, who)
            check_observation(observations, self._shape, "after reset", feature_names(self.env))
        return observations, infos

    def _started(self, who: NDArray[np.bool_]) -> None:
        self._is_ended[who] = False
        self._returns[who] = 0.0
        self._lengths[who] = 0

    def close(self) -> None:
        """Closes the environment; a second time does nothing."""
        self.env.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """Returns each student's picture."""
        return self._students.render()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Returns an attribute of the environment, once for each student."""
        value = _attribute(self.env, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Sets an attribute of the environment, which all students share: ``indices`` must name all of them."""
        if sorted(self._get_indices(indices)) != list(range(self.num_envs)):
            raise ConfigError(
                f"set_attr: expected all {self.num_envs} students, which share one environment, got {indices}; "
                "leave out indices."
            )
        setattr(self.env.unwrapped, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Calls a method for some students, such as ``snapshot``; a population's gets the student's number first."""
        method = _attribute(self.env, method_name)
        if not isinstance(self.env, VectorEnv):
            return [method(*method_args, **method_kwargs) for _ in self._get_indices(indices)]
        return [method(index, *method_args, **method_kwargs) for index in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: Any = None
    ) -> list[bool]:
        """Says for each student whether there is such a wrapper; there is a ``Monitor``, whose ``episode`` infos are here."""
        layer: Any = self.env
        is_wrapped = wrapper_class is Monitor
        while not is_wrapped and layer is not layer.unwrapped:
            is_wrapped = isinstance(layer, wrapper_class)
            layer = layer.env
        return [is_wrapped for _ in self._get_indices(indices)]


def feature_names(env: Any) -> tuple[str, ...]:
    """Returns the names of the observation's entries, in order; numbers where the environment names none."""
    names = getattr(env.unwrapped, "feature_names", None)
    return tuple(names) if names is not None else tuple(map(str, range(observation_space(env).shape[0])))  # type: ignore[index]


class _Single:
    """A scalar environment."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self.env = env
        self.num_envs = 1

    def reset(
        self, seeds: list[int | None], options: list[dict[str, Any]], who: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], Infos]:
        observation, info = self.env.reset(seed=seeds[0], options=options[0] or None)
        return np.array(observation, dtype=np.float32)[None], [dict(info)]

    def step(self, ratios: NDArray[np.float32]) -> Step:
        observation, reward, terminated, truncated, info = self.env.step(ratios[0])
        return (
            np.array(observation, dtype=np.float32)[None],
            np.array([reward], dtype=np.float32),
            np.array([terminated]),
            np.array([truncated]),
            [dict(info)],
        )

    def render(self) -> Sequence[Any]:
        return [self.env.render()]


class _Population:
    """A vector environment of ours."""

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        mode = env.metadata.get("autoreset_mode")
        if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED):
            raise ConfigError(
                f"env: expected a vector environment that resets ended students with the next step, or not at all, got "
                f"autoreset_mode {mode}; make it with gymnasium.make_vec(id, num_envs=K)."
            )
        self.env: Any = env  # whose type says that a seed is one number
        self.num_envs = env.num_envs

    def reset(
        self, seeds: list[int | None], options: list[dict[str, Any]], who: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], Infos]:
        if any(options):
            raise ConfigError(
                f"options: expected none for a population, got {options}; set a state on the scalar environment."
            )
        observations, infos = self.env.reset(seed=seeds, options=None if who.all() else {"reset_mask": who})
        return np.array(observations, dtype=np.float32), student_infos(infos, self.num_envs)

    def step(self, ratios: NDArray[np.float32]) -> Step:
        observations, rewards, terminations, truncations, infos = self.env.step(ratios)
        return (
            np.array(observations, dtype=np.float32),
            np.asarray(rewards, dtype=np.float32),
            np.asarray(terminations),
            np.asarray(truncations),
            student_infos(infos, self.num_envs),
        )

    def render(self) -> Sequence[Any]:
        return list(self.env.render() or ())


def _attribute(env: Any, name: str) -> Any:
    """Returns an attribute of an environment or of the wrapper nearest to the outside that has it."""
    layer = env
    while not hasattr(layer, name) and layer is not layer.unwrapped:
        layer = layer.env
    return getattr(layer, name)
