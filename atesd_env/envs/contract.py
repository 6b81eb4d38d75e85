"""The contract of students: what trains them, whoever they are, and what a window of theirs becomes for a caller of ``step``.

``env`` and ``vector`` are written over it once. Language models (``Population`` and its forms over several processes), the
closed forms and surrogates fulfil it; no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, overload

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from atesd_env.config import RunConfig
from atesd_env.envs.columns import Row
from atesd_env.envs.infos import Infos, vector_infos
from atesd_env.envs.observation import RunningStatistics, observation, observation_bounds
from atesd_env.errors import ConfigError, shown
from atesd_env.files.checkpoint import Checkpoint
from atesd_env.hints import did_you_mean

Observation = NDArray[np.float32]
"""[num_features], scaled statistics of a run; or of K runs, [K, num_features]."""

RENDER_MODES = ("ansi", "rgb_array")
"""How a run so far can be shown: as text, or as a picture, uint8 [H, W, 3]."""

RESET_FIRST = "step: expected a running episode, but none was started or it has ended; call reset() first."
"""What a step without an episode answers."""


class StudentRun(Protocol):
    """What a student's run has come to, for reading.

    Attributes:
        seed: Seed of the run.
        probe_nll: Latest probe NLL.
        statistics: What a controller may know.
        rows: The rows so far.
        broken: Why the student counts as broken, or None; the episode has terminated then.
        cut: Why the episode ends before its last window though the student is whole, or None; it is truncated then.
    """

    @property
    def seed(self) -> int: ...
    @property
    def probe_nll(self) -> float: ...
    @property
    def statistics(self) -> RunningStatistics: ...
    @property
    def rows(self) -> Sequence[Row]: ...
    @property
    def broken(self) -> str | None: ...
    @property
    def cut(self) -> str | None: ...


class ExposureScores(NamedTuple):
    """What N reveal ratios show G difficulty groups of a student's probe, or G problems, before anything is trained on it.

    Attributes:
        grounded: Teacher-grounded score at each ratio, [N, G], nats a token; NaN for a group without probe problems.
        mismatch: KL(teacher || student) on rollouts of the probe problems, [N, G], nats a token; NaN where not asked for.
        num_sampled_tokens: Tokens that were sampled for it.
        num_scored_tokens: Tokens that went through the model to be scored, prompts included, as if none had been before.
    """

    grounded: NDArray[np.float64]
    mismatch: NDArray[np.float64]
    num_sampled_tokens: int
    num_scored_tokens: int


class WindowResults(NamedTuple):
    """What a window of S students is for a caller of ``step``.

    Attributes:
        rewards: [S] float64.
        terminations: [S] bool, where a student broke.
        truncations: [S] bool, where an episode ended otherwise.
        infos: The rows in Gymnasium's vector form.
    """

    rewards: NDArray[np.float64]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    infos: Infos


class Students(ABC):
    """K students that are trained side by side.

    A subclass says how a window is made and how a state is kept. ``window_results``, ``first_infos`` and ``observations``
    ask student by student; students that are held in arrays answer for all at once.

    Attributes:
        config: What the students share.
        num_students: K.
        runs: The state of each student's run.
        timings: Seconds that the last window spent, by column name.
    """

    config: RunConfig
    num_students: int
    runs: Sequence[StudentRun]
    timings: Mapping[str, float] = MappingProxyType({})

    @abstractmethod
    def reset(self, index: int, seed: int) -> RunningStatistics:
        """Starts a new run of student ``index``; returns the statistics before its first window."""

    def reset_many(self, students: Sequence[int], seeds: Sequence[int]) -> None:
        """Starts new runs of some students."""
        for index, seed in zip(students, seeds, strict=True):
            self.reset(index, seed)

    @abstractmethod
    def window(self, reveal_ratios: NDArray[np.float64], students: Sequence[int] | None = None) -> list[Row]:
        """Trains some students (all, if None) for one hold window, at ratios [S, groups]; returns what ``info`` is to hold."""

    @abstractmethod
    def snapshot(self, index: int) -> Any:
        """Returns a copy of everything that student ``index``'s future depends on."""

    @abstractmethod
    def restore(self, index: int, snapshot: Any) -> None:
        """Puts student ``index`` into the state of a snapshot, which stays usable."""

    @abstractmethod
    def checkpoint(self, index: int) -> Checkpoint:
        """Returns student ``index``'s state and its configuration in a form that files can hold."""

    @abstractmethod
    def restored(self, index: int, checkpoint: Checkpoint) -> Any:
        """Returns the snapshot, for student ``index``, that ``checkpoint`` was made of; changes nothing.

        Raises:
            ConfigError: If it was made under another configuration.
        """

    @abstractmethod
    def twin(self, num_students: int, index: int = 0) -> Students:
        """Returns students like student ``index``, on the same frozen base; they are not reset."""

    def exposure_scores(
        self,
        index: int,
        ratios: NDArray[np.float64],
        with_mismatch: bool = True,
        num_problems: int | None = None,
        by_problem: bool = False,
    ) -> ExposureScores:
        """Returns what ratios [N] show student ``index``, whose run it leaves bit for bit as it is.

        Args:
            index: Which student.
            ratios: The ratios, each in [0, 1] and for all groups.
            with_mismatch: Measure the mismatch too.
            num_problems: Problems that it is measured on, the first ones; None is all.
            by_problem: Ask of each problem of the next window, instead of the probe's groups.

        Raises:
            ConfigError: If the students have no teacher that can be asked, or no problems.
        """
        raise ConfigError(
            f"exposure_scores: expected students whose teacher can be asked (language models, the closed form), got "
            f"{type(self).__name__}; use such an environment, or follow the ratios on branches (atesd_env.counterfactual)."
        )

    def samples(self, index: int, num_samples: int) -> Sequence[Any]:
        """Returns rollouts of student ``index``'s last update, dataclasses; none if it has none."""
        return ()

    def save_adapter(self, index: int, directory: Path) -> None:
        """Writes student ``index``'s adapter as a plain peft adapter directory.

        Raises:
            ConfigError: If the students have none.
        """
        raise ConfigError(
            f"save_adapter: expected a language model as student, got {type(self).__name__}, whose students have no "
            "adapter; use an environment with a language model."
        )

    def close(self) -> None:  # noqa: B027 (most students have nothing to let go of)
        """Lets go of memory and processes that are not the students' own."""

    def config_of(self, index: int) -> RunConfig:
        """Returns the whole configuration of student ``index``, which may differ from what the students share."""
        return self.config

    def take_instance(self, index: int, config: RunConfig) -> None:
        """Gives student ``index`` another configuration, from its next ``reset`` or ``restore`` on.

        Args:
            index: Which student.
            config: One that differs only in what may differ between students (``INSTANCE_FIELDS``), if they have such fields.
        """
        assert config == self.config_of(index), "expected students of one configuration to keep it"

    def is_over(self, index: int) -> bool:
        """Returns whether the episode of student ``index`` has ended."""
        run = self.runs[index]
        return run.broken is not None or run.cut is not None or len(run.rows) >= self.config_of(index).windows

    def observation(self, index: int) -> Observation:
        """Returns the observation of student ``index``, [num_features]."""
        return observation(self.runs[index].statistics)

    def window_result(self, index: int, row: Row) -> tuple[float, bool, bool, dict[str, Any]]:
        """Returns what ``step`` returns beside the observation: reward, terminated, truncated, info.

        Args:
            index: A student that has just made a window. One that breaks in its last one has terminated, and is not truncated.
            row: What that window returned.
        """
        run = self.runs[index]
        terminated = run.broken is not None
        truncated = not terminated and self.is_over(index)
        info: dict[str, Any] = dict(row)
        if terminated:
            info["termination_reason"] = run.broken
        return float(row["reward/total"] or 0.0), terminated, truncated, info

    def first_info(self, index: int) -> dict[str, Any]:
        """Returns what ``reset`` tells of student ``index``: the run's seed and the latest probe NLL (the base model's at first)."""
        run = self.runs[index]
        return {"seed": run.seed, "probe/nll": run.probe_nll}

    def first_infos(self, students: Sequence[int]) -> Infos:
        """Returns what ``reset`` tells of some students, [S] in each name."""
        return vector_infos([self.first_info(index) for index in students])

    def window_results(self, reveal_ratios: NDArray[np.float64], students: Sequence[int]) -> WindowResults:
        """Makes a window of some students, as ``window`` does, and returns what became of it."""
        rows = self.window(reveal_ratios, students)
        results = [self.window_result(index, row) for index, row in zip(students, rows, strict=True)]
        rewards, terminations, truncations, infos = zip(*results, strict=True)
        return WindowResults(np.array(rewards), np.array(terminations), np.array(truncations), vector_infos(infos))

    def observations(self) -> Observation:
        """Returns the observations of all students, [K, num_features]."""
        return np.stack([self.observation(index) for index in range(self.num_students)])


RunT = TypeVar("RunT", bound=StudentRun)
"""The run of a kind of students."""


class HeldRuns(Sequence[RunT], Generic[RunT]):
    """The runs of students that are held elsewhere, for reading: ``run_of`` tells each when it is asked for."""

    def __init__(self, num_students: int, run_of: Callable[[int], RunT]) -> None:
        self._num_students, self._run_of = num_students, run_of

    def __len__(self) -> int:
        return self._num_students

    @overload
    def __getitem__(self, index: int) -> RunT: ...
    @overload
    def __getitem__(self, index: slice) -> list[RunT]: ...
    def __getitem__(self, index: int | slice) -> RunT | list[RunT]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        return self._run_of(range(len(self))[index])


Spaces = tuple[spaces.Box[np.float32], spaces.Box[np.float32]]
"""Of one student: observation [num_features], and action [groups] in [0, 1]."""


def group_means(values: NDArray[np.float64], groups: NDArray[np.int64], num_groups: int) -> NDArray[np.float64]:
    """Returns the means of values [N, P] over each difficulty group's problems, [N, num_groups]; NaN where it has none.

    Args:
        values: A number for each of P problems.
        groups: The groups of at least P problems, of which the first P count.
        num_groups: How many groups there are.
    """
    means = np.full((len(values), num_groups), np.nan)
    for group in range(num_groups):
        is_in = groups[: values.shape[1]] == group
        if is_in.any():
            means[:, group] = values[:, is_in].mean(axis=1)
    return means


def make_spaces(config: RunConfig) -> Spaces:
    """Returns the spaces of one student: observation [num_features], and action [groups] in [0, 1]."""
    low, high = observation_bounds()
    return spaces.Box(low, high, dtype=np.float32), spaces.Box(0.0, 1.0, (config.action_size,), dtype=np.float32)


def checked_render_mode(render_mode: str | None) -> str | None:
    """Returns a render mode.

    Raises:
        ConfigError: If it is neither None nor one of ``RENDER_MODES``.
    """
    if render_mode is not None and render_mode not in RENDER_MODES:
        raise ConfigError(f"render_mode: expected 'ansi', 'rgb_array' or None, got {render_mode!r}; pass one of these.")
    return render_mode


def checked_options(options: Any, known: Sequence[str]) -> Mapping[str, Any]:
    """Returns the options of a reset.

    Raises:
        ConfigError: If they are no dictionary, or one of them is none of ``known``.
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise ConfigError(
            f"options: expected a dictionary with {', '.join(known)}, or None, got {shown(options)}; pass one of these."
        )
    for name in options:
        if name not in known:
            hint = did_you_mean(str(name), known, f"the options are {', '.join(known)}.")
            raise ConfigError(f"options: expected {' or '.join(known)}, got {shown(name)}; {hint}")
    return options


def draw_seed(generator: np.random.Generator) -> int:
    """Returns the seed of a run that nobody named."""
    return int(generator.integers(2**31))
