"""The Gymnasium vector environment: K students trained side by side, each in an episode of its own.

``gymnasium.make_vec(id, num_envs=K, vectorization_mode="vector_entry_point")`` makes one for every registered id. A window is
the students', as in the scalar environment; a subclass says which students they are (``_make_population``).
"""

from __future__ import annotations

import numbers
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic

import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from atesd_env.config import RunConfig
from atesd_env.config.checks import checked_seed
from atesd_env.envs.actions import checked_batch
from atesd_env.envs.contract import (
    RENDER_MODES,
    RESET_FIRST,
    Spaces,
    checked_options,
    checked_render_mode,
    draw_seed,
    make_spaces,
)
from atesd_env.envs.env import StudentsT
from atesd_env.envs.infos import Infos, spread
from atesd_env.envs.observation import FEATURE_NAMES
from atesd_env.envs.render import render
from atesd_env.envs.vector_state import restore_vector_checkpoint, vector_checkpoint
from atesd_env.errors import ConfigError, NoEpisodeError
from atesd_env.files.checkpoint import Checkpoint, opened_checkpoint, reading_state, write_checkpoint

Batch = NDArray[np.float32]
"""[K, num_features] observations, or [K, groups] actions."""


class ExposureVectorEnv(VectorEnv[Batch, Batch, NDArray[Any]], ABC, Generic[StudentsT]):
    """Trains K students, a hold window each a step.

    Autoreset is Gymnasium's ``NEXT_STEP``: when student k's episode ends, the next ``step`` ignores its action, starts a
    new run of it with a drawn seed, and returns that run's first observation with reward 0, both flags False and the info
    of a reset. The other students train on meanwhile. A student that breaks ends its own episode only.

    ``infos`` is a dictionary of arrays [K] with a mask ``_name`` for each name. Where the mask is False (a column that was
    not measured in this window, a student that was just reset) a float column holds NaN, an integer column 0, a text
    None. The mask replaces the scalar environment's None.

    Args:
        config: The configuration, complete, of every student.
        num_envs: K, at least 1.
        render_mode: "ansi", "rgb_array" or None.

    Attributes:
        config: The configuration.
        feature_names: Names of the observation's entries, in order.
        num_ratios: Reveal ratios of a student's action.
        generators: For each student, the generator that draws the seeds of runs that nobody named.
        is_started: [K] bool, whether a student has ever been started.

    Raises:
        ConfigError: If ``num_envs`` or ``render_mode`` cannot be used.
    """

    metadata = {  # noqa: RUF012 (Gymnasium's own convention)
        "render_modes": list(RENDER_MODES),
        "render_fps": 4,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    reset_options: ClassVar[tuple[str, ...]] = ("reset_mask", "state")
    """What ``options`` of a reset may hold."""

    config: RunConfig

    def __init__(self, config: RunConfig, num_envs: int = 1, render_mode: str | None = None) -> None:
        if isinstance(num_envs, bool) or not isinstance(num_envs, numbers.Integral) or num_envs < 1:
            raise ConfigError(
                f"num_envs: expected a whole number of students, at least 1, got {num_envs!r}; pass num_envs=1 or more."
            )
        self.config = config
        self.num_envs = int(num_envs)
        self.render_mode = checked_render_mode(render_mode)
        self.feature_names: tuple[str, ...] = FEATURE_NAMES
        self.single_observation_space, self.single_action_space = self._make_spaces()
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.num_ratios: int = len(self.single_action_space.low)
        self._population: StudentsT | None = None
        self.is_started: NDArray[np.bool_] = np.zeros(self.num_envs, dtype=np.bool_)
        self._is_running: NDArray[np.bool_] = np.zeros(self.num_envs, dtype=np.bool_)
        # One for each student, as Gymnasium's SyncVectorEnv has it: they draw the seeds of runs that nobody named.
        self.generators: list[np.random.Generator] = [seeding.np_random()[0] for _ in range(self.num_envs)]

    def _make_spaces(self) -> Spaces:
        """Returns one student's spaces of observations and of actions."""
        return make_spaces(self.config)

    @abstractmethod
    def _make_population(self) -> StudentsT:
        """Returns the students, ``num_envs`` of them."""

    @property
    def population(self) -> StudentsT:
        """The K students; made at first use."""
        if self._population is None:
            self._population = self._make_population()
        return self._population

    @property
    def is_running(self) -> NDArray[np.bool_]:
        """[K], False for students that the next step starts anew, and before the first reset."""
        return self._is_running.copy()

    @property
    def timings(self) -> dict[str, float]:
        """Seconds that the last window of all students together spent, by column name; kept out of ``infos``."""
        return dict(self.population.timings)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Batch, dict[str, Any]]:
        """Starts new runs, of all students or of some.

        Args:
            seed: A number s gives student k the seed s + k; a sequence gives each its own; None, or None in the
                sequence, draws one from the student's generator.
            options: ``"reset_mask"``, bool [K]: only these students start anew (their seeds are as without a mask); the
                others stay where they are. ``"state"``, a path: all go on where ``save_state`` was, instead. The dictionary
                is left as it is.

        Returns:
            The observations of all K students, and infos of those that were reset: ``seed`` and ``probe/nll``.

        Raises:
            ConfigError: If the seeds or the mask do not fit the K students, or the options hold something else.
            NoEpisodeError: If the mask leaves out students that have never been started.
        """
        state = checked_options(options, self.reset_options).get("state")
        if state is not None:
            self.load_state(state)
            chosen = list(range(self.num_envs))
        else:
            seeds = checked_seeds(seed, self.num_envs)
            chosen = np.flatnonzero(checked_mask(options, self.is_started)).tolist()
            # All are made before the first run is started: a seed that cannot be used changes nothing.
            generators = [None if one is None else seeding.np_random(one)[0] for one in seeds]
            for index in chosen:
                self.generators[index] = generators[index] or self.generators[index]
            self._start(chosen, seeds)
        return self.population.observations(), spread([(chosen, self.population.first_infos(chosen))], self.num_envs)

    def step(
        self, actions: Batch
    ) -> tuple[Batch, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Trains every student with a running episode for one hold window, and starts new runs of the others.

        Args:
            actions: Reveal ratios [K, groups]; the lines of students whose episode has ended are not looked at.

        Returns:
            Observations [K, num_features] float32, rewards [K] float64, terminations [K], truncations [K], infos.

        Raises:
            ConfigError: If a line is not a ratio in [0, 1] for each group; nothing is trained then.
            NoEpisodeError: If a student has never been started.
        """
        if not self.is_started.all():
            raise NoEpisodeError(RESET_FIRST)
        everyone = range(self.num_envs)
        going = everyone if self._is_running.all() else np.flatnonzero(self._is_running).tolist()
        ended = [] if going is everyone else np.flatnonzero(~self._is_running).tolist()
        ratios = checked_batch(actions, self.num_ratios, self.num_envs, going)
        rewards = np.zeros(self.num_envs, dtype=np.float64)
        terminations, truncations = np.zeros((2, self.num_envs), dtype=np.bool_)
        infos: list[tuple[Sequence[int], Infos]] = []
        if going:
            results = self.population.window_results(ratios, going)
            places = slice(None) if going is everyone else going
            rewards[places], terminations[places], truncations[places] = results[:3]
            infos.append((going, results.infos))
        if ended:
            self._start(ended, [None] * self.num_envs)
            infos.append((ended, self.population.first_infos(ended)))
        self._is_running = ~(terminations | truncations)
        return self.population.observations(), rewards, terminations, truncations, spread(infos, self.num_envs)

    def render(self) -> tuple[Any, ...] | None:
        """Returns each student's run so far, K texts ("ansi") or K pictures, uint8 [H, W, 3] ("rgb_array"), or None."""
        if self.render_mode is None:
            return None
        return tuple(
            render(run.rows, self.population.config_of(index).windows, self.render_mode)
            for index, run in enumerate(self.population.runs)
        )

    def close_extras(self, **_: Any) -> None:
        """Lets go of base model, students and processes; after ``close`` only a new ``reset`` brings them back."""
        if self._population is not None:
            self._population.close()
        self._population = None
        self.is_started[:] = self._is_running[:] = False

    def snapshot(self, index: int) -> Any:
        """Returns an opaque copy of student ``index``'s run: what ``snapshot`` of the scalar environment returns."""
        return self.population.snapshot(index)

    def restore(self, index: int, snapshot: Any) -> None:
        """Puts student ``index`` into the state of a snapshot, of any student or of a scalar environment.

        In the same slot, with the other students as they were, the next windows repeat bit for bit; elsewhere to float
        tolerance. If the run had ended, the next step starts a new one. The slot's generator stays as it is.
        """
        self.population.restore(index, snapshot)
        self._is_running[index] = not self.population.is_over(index)
        self.is_started[index] = True

    def checkpoint(self) -> Checkpoint:
        """Returns the state of all students in a form that files can hold.

        Raises:
            NoEpisodeError: If a student has never been started.
        """
        if not self.is_started.all():
            raise NoEpisodeError("state: expected episodes, but none was started; call reset() first.")
        return vector_checkpoint(self.population, self.generators)

    def save_state(self, path: str | os.PathLike[str]) -> None:
        """Writes the state of all students to a file, for ``load_state`` and ``reset(options={"state": path})``.

        Raises:
            NoEpisodeError: If a student has never been started.
            RunFilesError: If it cannot be written.
        """
        write_checkpoint(Path(path), self.checkpoint())

    def load_state(self, state: str | os.PathLike[str] | Checkpoint) -> None:
        """Goes on where ``save_state`` was; the next windows of all students, autoresets included, repeat bit for bit.

        Raises:
            ConfigError: If it was saved by another number of students, or under another configuration.
            RunFilesError: If the file cannot be read, or is not whole.
        """
        with reading_state(state):
            restore_vector_checkpoint(self.population, self.generators, opened_checkpoint(state))
        self._is_running = np.array([not self.population.is_over(index) for index in range(self.num_envs)])
        self.is_started[:] = True

    def samples(self, index: int, num_samples: int = 1) -> list[dict[str, Any]]:
        """Returns rollouts of student ``index``'s last update with both prompts; none where students write none."""
        return [sample.as_row() for sample in self.population.samples(index, num_samples)]

    def save_adapter(self, index: int, directory: Path) -> None:
        """Writes student ``index``'s adapter as a plain peft adapter directory.

        Raises:
            ConfigError: If the students have none.
        """
        self.population.save_adapter(index, directory)

    def __getstate__(self) -> dict[str, Any]:
        """Pickles the configuration and every run's state, not the students themselves: a base model is loaded again."""
        made = self._population
        snapshots = None if made is None else [made.snapshot(index) for index in range(self.num_envs)]
        return self.__dict__ | {"_population": snapshots}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Makes the students again and goes on where the pickled runs were."""
        self.__dict__.update(state | {"_population": None})
        for index, snapshot in enumerate(state["_population"] or []):
            self.population.restore(index, snapshot)

    def _start(self, students: Sequence[int], seeds: Sequence[int | None]) -> None:
        """Starts new runs of some students, with their seeds of [K]; where there is none it is drawn."""
        drawn = [draw_seed(self.generators[index]) if (seed := seeds[index]) is None else seed for index in students]
        self.population.reset_many(students, drawn)
        self.is_started[students] = self._is_running[students] = True


def checked_seeds(seed: int | Sequence[int | None] | None, num_students: int) -> list[int | None]:
    """Returns a seed, or None, for each of K students.

    Raises:
        ConfigError: If a sequence does not hold one for each, or a seed is below 0 or beyond 2^63 - 1.
    """
    if seed is None:
        return [None] * num_students
    if isinstance(seed, numbers.Integral):
        return [checked_seed(seed + index) for index in range(num_students)]
    seeds = [
        None if one is None else checked_seed(one) for one in np.atleast_1d(np.asarray(seed, dtype=object)).tolist()
    ]
    if len(seeds) != num_students:
        raise ConfigError(
            f"seed: expected one seed for each of {num_students} students, got {len(seeds)}; "
            "pass one each, or one number for the first."
        )
    return seeds


def checked_mask(options: Mapping[str, Any] | None, is_started: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns which of K students a reset is for, [K].

    Raises:
        ConfigError: If the mask is not bool [K] with at least one True.
        NoEpisodeError: If it leaves out students that have never been started.
    """
    mask = (options or {}).get("reset_mask")
    num_students = len(is_started)
    if mask is None:
        return np.ones(num_students, dtype=np.bool_)
    if not (isinstance(mask, np.ndarray) and mask.dtype == np.bool_ and mask.shape == (num_students,) and mask.any()):
        raise ConfigError(
            f"reset_mask: expected a bool array of shape ({num_students},) with at least one True, got {mask!r}; "
            "pass np.array([True, ...]), one for each student."
        )
    left_out = np.flatnonzero(~mask & ~is_started)
    if left_out.size:
        raise NoEpisodeError(
            f"reset_mask: expected only students that have been started to be left out, but {left_out.tolist()} have "
            "not; call reset() without a mask first."
        )
    return mask
