"""The Gymnasium environment: one student under on-policy self-distillation; the action is the reveal ratio."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from atesd_env.config import EnvConfig, preset_of
from atesd_env.envs.actions import checked_ratios
from atesd_env.envs.contract import (
    RESET_FIRST,
    Observation,
    checked_render_mode,
    draw_seed,
    first_result,
    make_spaces,
    window_result,
)
from atesd_env.envs.observation import FEATURE_NAMES
from atesd_env.envs.render import render
from atesd_env.errors import NoEpisodeError
from atesd_env.files.checkpoint import Checkpoint, opened_checkpoint, write_checkpoint
from atesd_env.population.distributed import make_population
from atesd_env.population.population import Population
from atesd_env.population.snapshot import StudentSnapshot, from_checkpoint, to_checkpoint


class TeacherExposureEnv(gymnasium.Env[Observation, NDArray[np.float32]]):
    """Trains a student from the base model for one episode, a hold window of updates a step.

    Action: ``Box(0, 1, (groups,))``, the reveal ratio (one for each difficulty group). Observation: named statistics of the
    run (``statistics.FEATURES``). Reward: learning progress on the probe plus the weighted teacher-grounded score. An episode
    is truncated after ``windows`` windows; it terminates only if the student breaks (a loss that is not finite, or a probe
    NLL ``collapse_nll`` above the initial one), with ``info["termination_reason"]`` and the reward ``-collapse_nll``.
    ``info`` is the window's row (``statistics.COLUMNS``).

    Args:
        config: The configuration, complete.
        render_mode: "ansi", "rgb_array" or None.

    Attributes:
        config: The configuration.
        feature_names: Names of the observation's entries, in order.

    Raises:
        ConfigError: If the render mode is another one.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # noqa: RUF012 (Gymnasium's own convention)

    def __init__(self, config: EnvConfig, render_mode: str | None = None) -> None:
        self.config = config
        self.render_mode = checked_render_mode(render_mode)
        self.feature_names = FEATURE_NAMES
        self.observation_space, self.action_space = make_spaces(config)
        self._population: Population | None = None
        self._is_running = False

    @property
    def population(self) -> Population:
        """The population of one that does the work; loads the base model at first use."""
        if self._population is None:
            self._population = make_population(self.config)
        return self._population

    @property
    def timings(self) -> dict[str, float]:
        """Seconds that the last window spent, by column name; kept out of ``info``, which repeats with the seed."""
        return dict(self.population.timings)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts a new run from the base model.

        Args:
            seed: The run's seed; the same seed gives the same run bit for bit on the same machine. None draws one.
            options: ``{"state": path}`` goes on where ``save_state`` (or a run's checkpoint) was, instead.

        Returns:
            The first observation, and ``info`` with the run's seed and the latest probe NLL (the base model's at first).
        """
        super().reset(seed=seed)
        if options and options.get("state") is not None:
            self.load_state(options["state"])
            return first_result(self.population.runs[0])
        self.population.reset(0, seed if seed is not None else draw_seed(self.np_random))
        self._is_running = True
        return first_result(self.population.runs[0])

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Trains for one hold window at the given reveal ratio.

        Raises:
            ConfigError: If the action is not a ratio in [0, 1] for each group.
            NoEpisodeError: If no episode is running.
        """
        if not self._is_running:
            raise NoEpisodeError(RESET_FIRST)
        ratios = checked_ratios(action, self.config.groups)
        self.population.window(ratios[None, :])
        result = window_result(self.population.runs[0], self.config.windows)
        self._is_running = not (result[2] or result[3])
        return result

    def render(self) -> str | NDArray[np.uint8] | None:
        """Returns the run so far as text ("ansi") or as a picture, uint8 [H, W, 3] ("rgb_array")."""
        rows = self.population.runs[0].rows
        return render(rows, self.config.windows, self.render_mode)

    def samples(self, num_samples: int = 1) -> list[dict[str, Any]]:
        """Returns rollouts of the last update with both prompts, at most ``num_samples`` of them."""
        return [dataclasses.asdict(sample) for sample in self.population.samples(0, num_samples)]

    def save_adapter(self, directory: Path) -> None:
        """Writes the student's adapter as a plain peft adapter directory."""
        self.population.save_adapter(0, directory)

    def close(self) -> None:
        """Lets go of the rollout engine's memory and processes; a later step would start it again."""
        if self._population is not None:
            self._population.close()

    def snapshot(self) -> tuple[StudentSnapshot, bool]:
        """Returns an opaque copy of the run's state, for ``restore``."""
        return self.population.snapshot(0), self._is_running

    def restore(self, snapshot: tuple[StudentSnapshot, bool]) -> None:
        """Returns to the state of a snapshot; the next windows repeat bit for bit."""
        state, self._is_running = snapshot
        self.population.restore(0, state)

    def checkpoint(self) -> Checkpoint:
        """Returns the run's state and the configuration in a form that files can hold.

        Raises:
            NoEpisodeError: If no episode was started.
        """
        if self._population is None or not (self._is_running or self.population.runs[0].rows):
            raise NoEpisodeError("state: expected an episode, but none was started; call reset() first.")
        checkpoint = to_checkpoint(self.population.snapshot(0), self.config)
        checkpoint.description["is_running"] = self._is_running
        return checkpoint

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
        checkpoint = opened_checkpoint(state)
        self.population.restore(0, from_checkpoint(checkpoint, self.config, self.population.num_adapter_parameters))
        self._is_running = bool(checkpoint.description["is_running"])

    def __getstate__(self) -> dict[str, Any]:
        """Pickles the configuration and the run's state, not the base model, which is loaded again."""
        state = self.__dict__.copy()
        state["_population"] = None if self._population is None else self.population.snapshot(0)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Loads the base model again and goes on where the pickled run was."""
        snapshot = state.pop("_population")
        self.__dict__.update(state, _population=None)
        if snapshot is not None:
            self.population.restore(0, snapshot)


def make(**fields: Any) -> TeacherExposureEnv:
    """Entry point of the registered ids: ``env_id`` names the preset, ``render_mode`` and configuration fields may follow."""
    env_id = fields.pop("env_id")
    render_mode = fields.pop("render_mode", None)
    return TeacherExposureEnv(preset_of(EnvConfig, env_id, **fields), render_mode)
