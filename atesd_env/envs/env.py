"""The Gymnasium environment of one student, whoever it is: the population of one.

A subclass says which students it has (``_make_population``) and how it is made; nothing else.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from atesd_env.config import RunConfig
from atesd_env.config.checks import checked_seed
from atesd_env.envs.actions import checked_ratios
from atesd_env.envs.contract import (
    RENDER_MODES,
    RESET_FIRST,
    Observation,
    Spaces,
    Students,
    checked_options,
    checked_render_mode,
    draw_seed,
    make_spaces,
)
from atesd_env.envs.observation import FEATURE_NAMES
from atesd_env.envs.render import render
from atesd_env.errors import NoEpisodeError
from atesd_env.files.checkpoint import Checkpoint, opened_checkpoint, reading_state, write_checkpoint

StudentsT = TypeVar("StudentsT", bound=Students)
"""A kind of students."""

_NOT_STARTED = "state: expected an episode, but none was started; call reset() first."


class ExposureEnv(gymnasium.Env[Observation, NDArray[np.float32]], ABC, Generic[StudentsT]):
    """Trains a student for one episode, a hold window of updates a step; the action is the reveal ratio.

    Action: ``Box(0, 1, (groups,))``, one reveal ratio for each difficulty group. Observation: named statistics of the run
    (``observation.FEATURES``). Reward: learning progress on the probe plus the weighted teacher-grounded score. ``info`` is the
    window's row (``columns.COLUMNS``).

    An episode is truncated after ``windows`` windows, or where its students say that it is cut; it terminates if the student
    breaks, with ``info["termination_reason"]``.

    Args:
        config: The configuration, complete.
        render_mode: "ansi", "rgb_array" or None.

    Attributes:
        config: The configuration.
        feature_names: Names of the observation's entries, in order.
        num_ratios: Reveal ratios of an action.

    Raises:
        ConfigError: If the render mode is another one.
    """

    metadata = {"render_modes": list(RENDER_MODES), "render_fps": 4}  # noqa: RUF012 (Gymnasium's own convention)

    reset_options: ClassVar[tuple[str, ...]] = ("state",)
    """What ``options`` of a reset may hold."""

    config: RunConfig

    def __init__(self, config: RunConfig, render_mode: str | None = None) -> None:
        self.config = config
        self.render_mode = checked_render_mode(render_mode)
        self.feature_names: tuple[str, ...] = FEATURE_NAMES
        self.observation_space, action_space = self._make_spaces()
        self.action_space, self.num_ratios = action_space, len(action_space.low)
        self._population: StudentsT | None = None
        self._is_started = self._is_running = False

    def _make_spaces(self) -> Spaces:
        """Returns the spaces of observations and of actions."""
        return make_spaces(self.config)

    @abstractmethod
    def _make_population(self) -> StudentsT:
        """Returns the students, one of them."""

    @property
    def population(self) -> StudentsT:
        """The population of one that does the work; made at first use."""
        if self._population is None:
            self._population = self._make_population()
        return self._population

    @property
    def is_running(self) -> bool:
        """Whether an episode has been started that has not ended."""
        return self._is_running

    @property
    def timings(self) -> dict[str, float]:
        """Seconds that the last window spent, by column name; kept out of ``info``, which repeats with the seed."""
        return dict(self.population.timings)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts a new run from the base model.

        Args:
            seed: The run's seed; the same seed and actions give the same run bit for bit on the same machine. None draws one.
            options: ``{"state": path}`` goes on where ``save_state`` (or a run's checkpoint) was, instead.

        Returns:
            The first observation, and ``info`` with the run's seed and the latest probe NLL (the base model's at first).

        Raises:
            ConfigError: If the seed is no whole number from 0 to 2^63 - 1, or the options are no dictionary or hold something else.
        """
        state = checked_options(options, self.reset_options).get("state")
        seed = None if seed is None else checked_seed(seed)
        super().reset(seed=seed)
        if state is not None:
            self.load_state(state)
        else:
            self._start(seed)
        return self.population.observation(0), self.population.first_info(0)

    def _start(self, seed: int | None) -> None:
        """Starts a new run, drawing the seed if there is none."""
        self.population.reset(0, draw_seed(self.np_random) if seed is None else seed)
        self._is_started = self._is_running = True

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Trains for one hold window at the given reveal ratio.

        Args:
            action: Reveal ratio for each group, [groups] in [0, 1].

        Raises:
            ConfigError: If the action is not a ratio in [0, 1] for each group.
            NoEpisodeError: If no episode is running.
            AtesdError: Whatever the students raise; the run stays as it was.
        """
        if not self._is_running:
            raise NoEpisodeError(RESET_FIRST)
        ratios = checked_ratios(action, self.num_ratios)
        (row,) = self.population.window(ratios[None, :])
        reward, terminated, truncated, info = self.population.window_result(0, row)
        self._is_running = not (terminated or truncated)
        return self.population.observation(0), reward, terminated, truncated, info

    def render(self) -> str | NDArray[np.uint8] | None:
        """Returns the run so far as text ("ansi") or as a picture, uint8 [H, W, 3] ("rgb_array")."""
        if self.render_mode is None:
            return None
        rows = self.population.runs[0].rows if self._is_started else ()
        return render(rows, self.config.windows, self.render_mode)

    def samples(self, num_samples: int = 1) -> list[dict[str, Any]]:
        """Returns rollouts of the last update with both prompts, at most ``num_samples``; none where students write none."""
        return [sample.as_row() for sample in self.population.samples(0, num_samples)]

    def close(self) -> None:
        """Lets go of the rollout engine's memory and processes; a later step would start it again."""
        if self._population is not None:
            self._population.close()

    def snapshot(self) -> Any:
        """Returns an opaque copy of the run's state, for ``restore``.

        Raises:
            NoEpisodeError: If no episode was started.
        """
        if not self._is_started:
            raise NoEpisodeError(_NOT_STARTED)
        return self.population.snapshot(0)

    def restore(self, snapshot: Any) -> None:
        """Returns to the state of a snapshot, of this or another environment; the next windows repeat bit for bit."""
        self.population.restore(0, snapshot)
        self._is_started = True
        self._is_running = not self.population.is_over(0)

    def checkpoint(self) -> Checkpoint:
        """Returns the run's state and the configuration in a form that files can hold.

        Raises:
            NoEpisodeError: If no episode was started.
        """
        if not self._is_started:
            raise NoEpisodeError(_NOT_STARTED)
        return self.population.checkpoint(0)

    def save_state(self, path: str | os.PathLike[str]) -> None:
        """Writes the run's state to a file, for ``load_state`` and ``reset(options={"state": path})``.

        Raises:
            NoEpisodeError: If no episode was started.
            RunFilesError: If it cannot be written.
        """
        write_checkpoint(Path(path), self.checkpoint())

    def load_state(self, state: str | os.PathLike[str] | Checkpoint) -> None:
        """Goes on where ``save_state`` was; the next windows repeat bit for bit.

        Raises:
            ConfigError: If it was saved under another configuration; the message says where they differ.
            RunFilesError: If the file cannot be read, or is not whole.
        """
        with reading_state(state):
            snapshot = self.population.restored(0, opened_checkpoint(state))
        self.restore(snapshot)

    def __getstate__(self) -> dict[str, Any]:
        """Pickles the configuration and the run's state, not the students themselves: a base model is loaded again."""
        return self.__dict__ | {"_population": self.population.snapshot(0) if self._is_started else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Makes the students again and goes on where the pickled run was."""
        self.__dict__.update(state | {"_population": None})
        if self._is_started:
            self.population.restore(0, state["_population"])
