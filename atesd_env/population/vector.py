"""The Gymnasium vector environment: K students trained side by side, each in an episode of its own.

``gymnasium.make_vec(id, num_envs=K, vectorization_mode="vector_entry_point")`` makes one for every registered id. All
students share the frozen base and the rollout batch; a window is the population's, as in the scalar environment.
"""

from __future__ import annotations

import contextlib
import dataclasses
import numbers
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from atesd_env.config import EnvConfig, RunConfig, ToyConfig, instance_configs, preset
from atesd_env.envs.actions import checked_ratios
from atesd_env.envs.columns import COLUMNS
from atesd_env.envs.contract import (
    RENDER_MODES,
    RESET_FIRST,
    BatchedStudents,
    Students,
    checked_render_mode,
    draw_seed,
    first_result,
    make_spaces,
    window_result,
)
from atesd_env.envs.observation import FEATURE_NAMES, observation
from atesd_env.envs.render import render
from atesd_env.errors import ConfigError, NoEpisodeError
from atesd_env.files.checkpoint import Checkpoint, opened_checkpoint, write_checkpoint
from atesd_env.population.vector_state import restore_vector_checkpoint, vector_checkpoint

Batch = NDArray[np.float32]
"""[K, num_features] observations, or [K, groups] actions."""

_INTEGERS = {column.name for column in COLUMNS if column.type == "int"} | {"seed"}
_TEXTS = {"termination_reason"}


class TeacherExposureVectorEnv(VectorEnv[Batch, Batch, NDArray[Any]]):
    """Trains K students, a hold window each a step, on one frozen base.

    Student k is the scalar environment reset with its seed: to float tolerance for a language model, because batches of
    other sizes round differently, and exactly for the closed form (``ToyConfig``). One environment repeats bit for bit
    with its seeds, actions and number of threads.

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
        workers: Processes that the students are shared out to, each with its part of the cores and a copy of the base.
            More than one pays for many small students on a CPU; the closed form takes one only.
        instances: For each student a dictionary of the fields in which it differs from ``config``, such as its learning
            rate or the difficulty of its problems (``atesd_env.config.INSTANCE_FIELDS``); None makes all alike. The
            closed form takes none.

    Attributes:
        config: The configuration.
        configs: That of each student, K of them.
        feature_names: Names of the observation's entries, in order.
        generators: For each student, the generator that draws the seeds of runs that nobody named.
        is_started: [K] bool, whether a student has ever been started.

    Raises:
        ConfigError: If ``num_envs``, ``render_mode`` or ``workers`` cannot be used.
    """

    metadata = {  # noqa: RUF012 (Gymnasium's own convention)
        "render_modes": list(RENDER_MODES),
        "render_fps": 4,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    config: RunConfig

    def __init__(
        self,
        config: RunConfig,
        num_envs: int = 1,
        render_mode: str | None = None,
        workers: int = 1,
        instances: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        if isinstance(num_envs, bool) or not isinstance(num_envs, numbers.Integral) or num_envs < 1:
            raise ConfigError(
                f"num_envs: expected a whole number of students, at least 1, got {num_envs!r}; pass num_envs=1 or more."
            )
        most = int(num_envs) if isinstance(config, EnvConfig) else 1
        if isinstance(workers, bool) or not isinstance(workers, numbers.Integral) or not 1 <= workers <= most:
            raise ConfigError(
                f"workers: expected between 1 and {most} processes for {num_envs} students ({config.student_kind}), got {workers!r}; "
                "change workers or num_envs."
            )
        self.config = config
        self.num_envs = int(num_envs)
        self.workers: int = int(workers)
        if instances is not None and not isinstance(config, EnvConfig):
            raise ConfigError(
                "instances: expected None for the closed form, got some; make one environment for each instance."
            )
        self.configs: list[RunConfig] = instance_configs(config, instances, self.num_envs)
        self.instances: tuple[dict[str, Any], ...] | None = (
            None if instances is None else tuple(dict(fields) for fields in instances)
        )
        self.render_mode = checked_render_mode(render_mode)
        self.feature_names = FEATURE_NAMES
        self.single_observation_space, self.single_action_space = make_spaces(config)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._population: Students | None = None
        self.is_started: NDArray[np.bool_] = np.zeros(self.num_envs, dtype=np.bool_)
        self._is_running: NDArray[np.bool_] = np.zeros(self.num_envs, dtype=np.bool_)
        # One for each student, as Gymnasium's SyncVectorEnv has it: they draw the seeds of runs that nobody named.
        self.generators: list[np.random.Generator] = [seeding.np_random()[0] for _ in range(self.num_envs)]

    @property
    def population(self) -> Any:
        """The K students; loads the base model at first use."""
        if self._population is None:
            self._population = self._make_population()
        return self._population

    def _make_population(self) -> Students:
        if isinstance(self.config, ToyConfig):
            from atesd_env.simulated.toy_population import ToyPopulation

            return ToyPopulation(self.config, self.num_envs)
        assert isinstance(self.config, EnvConfig)
        # Imported here: the closed form needs no torch.
        if self.workers > 1:
            from atesd_env.population.workers import ParallelPopulation

            return ParallelPopulation(self.config, self.num_envs, self.workers, self.instances)
        from atesd_env.population.distributed import make_population

        return make_population(self.config, self.num_envs, self.instances)

    @property
    def is_running(self) -> NDArray[np.bool_]:
        """[K], False for students that the next step starts anew, and before the first reset."""
        return self._is_running.copy()

    @property
    def timings(self) -> dict[str, float]:
        """Seconds that the last window of all students together spent, by column name; kept out of ``infos``."""
        return dict(getattr(self.population, "timings", {}))

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
            ConfigError: If the seeds or the mask do not fit the K students.
            NoEpisodeError: If the mask leaves out students that have never been started.
        """
        if options and options.get("state") is not None:
            self.load_state(options["state"])
            return self._observations(), vector_infos([first_result(run)[1] for run in self.population.runs])
        seeds = self._checked_seeds(seed)
        mask = self._checked_mask(options)
        generators = [None if one is None else seeding.np_random(one)[0] for one in seeds]
        chosen = np.flatnonzero(mask).tolist()
        for index in chosen:
            generator = generators[index]
            if generator is not None:
                self.generators[index] = generator
            self._start(index, seeds[index])
        return self._observations(), _spread([(chosen, self._first_infos(chosen))], self.num_envs)

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
        going = np.flatnonzero(self._is_running).tolist()
        ratios = self._checked_actions(actions, going)
        rewards = np.zeros(self.num_envs, dtype=np.float64)
        terminations, truncations = np.zeros((2, self.num_envs), dtype=np.bool_)
        infos: list[tuple[list[int], dict[str, Any]]] = []
        ended = np.flatnonzero(~self._is_running).tolist()
        if going:
            rewards[going], terminations[going], truncations[going], window_infos = self._train(ratios, going)
            infos.append((going, window_infos))
        if ended:
            for index in ended:
                self._start(index, None)
            infos.append((ended, self._first_infos(ended)))
        self._is_running = ~(terminations | truncations)
        return self._observations(), rewards, terminations, truncations, _spread(infos, self.num_envs)

    def render(self) -> tuple[Any, ...] | None:
        """Returns each student's run so far, K texts ("ansi") or K pictures, uint8 [H, W, 3] ("rgb_array"), or None."""
        if self.render_mode is None:
            return None
        return tuple(render(run.rows, self.config.windows, self.render_mode) for run in self.population.runs)

    def close_extras(self, **_: Any) -> None:
        """Lets go of base model, students and processes; after ``close`` only a new ``reset`` brings them back."""
        close = getattr(self._population, "close", None)
        if close is not None:
            close()
        self._population = None
        self.is_started[:] = self._is_running[:] = False

    def snapshot(self, index: int) -> Any:
        """Returns an opaque copy of student ``index``'s run: what ``snapshot`` of the scalar environment returns."""
        state = self.population.snapshot(index)
        return state if isinstance(self.config, ToyConfig) else (state, bool(self._is_running[index]))

    def restore(self, index: int, snapshot: Any) -> None:
        """Puts student ``index`` into the state of a snapshot, of any student or of a scalar environment.

        In the same slot, with the other students as they were, the next windows repeat bit for bit; elsewhere to float
        tolerance. If the run had ended, the next step starts a new one. The slot's generator stays as it is.
        """
        self.population.restore(index, snapshot[0] if isinstance(snapshot, tuple) else snapshot)
        run = self.population.runs[index]
        self._is_running[index] = run.broken is None and len(run.rows) < self.config.windows
        self.is_started[index] = True

    def checkpoint(self) -> Checkpoint:
        """Returns the state of all students in a form that files can hold.

        Raises:
            NoEpisodeError: If a student has never been started.
        """
        return vector_checkpoint(self)

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
        checkpoint = opened_checkpoint(state)
        restore_vector_checkpoint(self, checkpoint)
        self._is_running = np.array(checkpoint.description["is_running"], dtype=np.bool_)
        self.is_started[:] = True

    def samples(self, index: int, num_samples: int = 1) -> list[dict[str, Any]]:
        """Returns rollouts of student ``index``'s last update with both prompts; the closed form has none."""
        samples = getattr(self.population, "samples", None)
        return [] if samples is None else [dataclasses.asdict(sample) for sample in samples(index, num_samples)]

    def save_adapter(self, index: int, directory: Path) -> None:
        """Writes student ``index``'s adapter as a plain peft adapter directory.

        Raises:
            ConfigError: If the students are closed forms, which have none.
        """
        if not isinstance(self.config, EnvConfig):
            raise ConfigError(
                f"save_adapter: expected a language model as student, got the {self.config.student_kind}; "
                "use an environment with a language model."
            )
        self.population.save_adapter(index, directory)

    def __getstate__(self) -> dict[str, Any]:
        """Pickles the configuration and every run's state, not the base model, which is loaded again."""
        state = self.__dict__.copy()
        if self._population is not None:
            state["_population"] = [self._population.snapshot(index) for index in range(self.num_envs)]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Loads the base model again and goes on where the pickled runs were."""
        snapshots = state.pop("_population")
        self.__dict__.update(state, _population=None)
        for index, snapshot in enumerate(snapshots or []):
            self.population.restore(index, snapshot)

    def _start(self, index: int, seed: int | None) -> None:
        """Starts a new run of one student, drawing the seed if there is none."""
        self.population.reset(index, draw_seed(self.generators[index]) if seed is None else seed)
        self.is_started[index] = self._is_running[index] = True

    def _first_infos(self, students: Sequence[int]) -> dict[str, Any]:
        """Returns the infos of a reset of some students, [S] in each name."""
        if isinstance(self.population, BatchedStudents):
            return self.population.first_infos(students)
        return vector_infos([first_result(self.population.runs[index])[1] for index in students])

    def _train(
        self, ratios: NDArray[np.float64], students: Sequence[int]
    ) -> tuple[Sequence[float] | NDArray[np.float64], Any, Any, dict[str, Any]]:
        """Makes a window of some students: rewards, terminations, truncations and infos, [S] each."""
        if isinstance(self.population, BatchedStudents):
            infos = self.population.window_infos(ratios, students)
            return infos["reward/total"], False, infos["window"] >= self.config.windows, infos
        self.population.window(ratios, students)
        results = [window_result(self.population.runs[index], self.config.windows) for index in students]
        _, rewards, terminations, truncations, rows = zip(*results, strict=True)
        return rewards, terminations, truncations, vector_infos(rows)

    def _observations(self) -> Batch:
        if isinstance(self.population, BatchedStudents):
            return self.population.observations()
        return np.stack([observation(run.statistics) for run in self.population.runs])

    def _checked_seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, numbers.Integral):
            return [int(seed) + index for index in range(self.num_envs)]
        seeds = [None if one is None else int(one) for one in np.asarray(seed, dtype=object).tolist()]
        if len(seeds) != self.num_envs:
            raise ConfigError(
                f"seed: expected one seed for each of {self.num_envs} students, got {len(seeds)}; "
                "pass one each, or one number for the first."
            )
        return seeds

    def _checked_mask(self, options: Mapping[str, Any] | None) -> NDArray[np.bool_]:
        mask = (options or {}).get("reset_mask")
        if mask is None:
            return np.ones(self.num_envs, dtype=np.bool_)
        if not (
            isinstance(mask, np.ndarray) and mask.dtype == np.bool_ and mask.shape == (self.num_envs,) and mask.any()
        ):
            raise ConfigError(
                f"reset_mask: expected a bool array of shape ({self.num_envs},) with at least one True, got {mask!r}; "
                "pass np.array([True, ...]), one for each student."
            )
        left_out = np.flatnonzero(~mask & ~self.is_started)
        if left_out.size:
            raise NoEpisodeError(
                f"reset_mask: expected only students that have been started to be left out, but {left_out.tolist()} have "
                "not; call reset() without a mask first."
            )
        return mask

    def _checked_actions(self, actions: Any, going: Sequence[int]) -> NDArray[np.float64]:
        """Returns the reveal ratios [S, groups] of the S students in ``going``."""
        if len(actions) != self.num_envs:
            raise ConfigError(
                f"actions: expected shape ({self.num_envs}, {self.config.groups}), a line of reveal ratios for each "
                f"student, got {len(actions)} lines; "
                "pass an array of that shape."
            )
        if isinstance(actions, np.ndarray) and actions.shape == (self.num_envs, self.config.groups):
            # All lines at once; only where one is refused are they looked at one by one, to say which.
            with contextlib.suppress(ConfigError):
                flat = checked_ratios(actions[going].ravel(), len(going) * self.config.groups)
                return flat.reshape(len(going), self.config.groups)
        ratios = np.zeros((len(going), self.config.groups))
        for position, index in enumerate(going):
            try:
                ratios[position] = checked_ratios(actions[index], self.config.groups)
            except ConfigError as error:
                raise ConfigError(f"student {index}: {error}") from error
        return ratios


def _spread(infos: Sequence[tuple[Sequence[int], Mapping[str, Any]]], num_students: int) -> dict[str, Any]:
    """Returns the infos of all K students, put together from the vector form of some and of others.

    Args:
        infos: (students, their infos: arrays [S], with masks).
        num_students: K.
    """
    whole: dict[str, Any] = {}
    if len(infos) == 1 and len(infos[0][0]) == num_students:
        return dict(infos[0][1])
    for students, part in infos:
        for name, values in part.items():
            if name not in whole:
                blank = {"f": np.nan, "O": None}.get(values.dtype.kind, 0)
                whole[name] = np.full(num_students, blank, dtype=values.dtype)
            whole[name][students] = values
    return whole


def vector_infos(infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the infos of K students in Gymnasium's vector form: arrays [K], and a bool mask ``_name`` for each name.

    Gymnasium's own collector takes an array's type from the first value it meets, which may be None here. So types are
    fixed: integers stay integers (0 where masked), texts are objects (None), everything else is float64 (NaN).

    >>> vector_infos([{"probe/accuracy": None}, {"probe/accuracy": 0.5}])
    {'probe/accuracy': array([nan, 0.5]), '_probe/accuracy': array([False,  True])}
    """
    collected: dict[str, Any] = {}
    for name in dict.fromkeys(name for info in infos for name in info):
        values = [info.get(name) for info in infos]
        if name in _TEXTS:
            array: NDArray[Any] = np.array(values, dtype=object)
        elif name in _INTEGERS:
            array = np.array([0 if value is None else value for value in values], dtype=np.int64)
        else:
            array = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        collected[name] = array
        collected[f"_{name}"] = np.array([value is not None for value in values])
    return collected


def make(num_envs: int = 1, **fields: Any) -> TeacherExposureVectorEnv:
    """Vector entry point of the registered ids: ``env_id`` names the preset; fields and the class's arguments may follow."""
    env_id = fields.pop("env_id")
    options = {name: fields.pop(name) for name in ("render_mode", "workers", "instances") if name in fields}
    return TeacherExposureVectorEnv(preset(env_id, **fields), num_envs, **options)


def make_toy(num_envs: int = 1, **fields: Any) -> TeacherExposureVectorEnv:
    """Vector entry point of ``ATESD-Toy-v0``, whose registration names no preset."""
    return make(num_envs, env_id="ATESD-Toy-v0", **fields)
