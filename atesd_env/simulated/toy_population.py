"""The closed-form learners' runs: one student's state, and K of them trained side by side, an array for each number."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from atesd_env.config import ToyConfig, check_same_config
from atesd_env.envs.columns import Row
from atesd_env.envs.contract import Observation
from atesd_env.envs.observation import RunningStatistics, advance, initial_statistics, observation
from atesd_env.files.checkpoint import Checkpoint
from atesd_env.simulated.toy_dynamics import INITIAL_NLL, Levels, group_mean, next_levels, noise
from atesd_env.simulated.toy_row import Columns, infos_of, optimum_columns, plain, rows_of, window_columns

_STATISTICS = tuple(field.name for field in dataclasses.fields(RunningStatistics))


@dataclass(frozen=True)
class ToyState:
    """Everything that a run's future depends on; never changed in place, so a reference to it is a snapshot.

    Attributes:
        seed: Seed of the run.
        nll: Noise-free probe NLL, one for each difficulty group.
        skill: What later learning needs, 0..1, one for each group; only kind "delayed" trains it.
        probe_nll: The last measured probe NLL: the mean over groups, plus noise.
        statistics: What a controller may know.
        rows: The rows so far.
    """

    seed: int
    nll: tuple[float, ...]
    skill: tuple[float, ...]
    probe_nll: float
    statistics: RunningStatistics
    rows: tuple[Row, ...] = ()

    @property
    def broken(self) -> None:
        """A closed form never breaks."""
        return None


@dataclass(frozen=True)
class ToyStates:
    """S students' states without their rows, column by column.

    Attributes:
        seeds: Seeds of the runs, S of them, as large as they may be.
        nll: Noise-free probe NLL, [S, G].
        skill: Skill, [S, G].
        probe_nll: Last measured probe NLL, [S].
        statistics: The attributes of ``RunningStatistics`` in order, [N, S].
    """

    seeds: list[int]
    nll: Levels
    skill: Levels
    probe_nll: NDArray[np.float64]
    statistics: NDArray[np.float64]

    @property
    def windows(self) -> NDArray[np.int64]:
        """Windows that each student has behind it, [S]."""
        return np.asarray(self.statistics[0], dtype=np.int64)

    @classmethod
    def of(cls, states: Sequence[ToyState]) -> ToyStates:
        """Returns some students' states side by side."""
        return cls(
            [state.seed for state in states],
            np.array([state.nll for state in states]),
            np.array([state.skill for state in states]),
            np.array([state.probe_nll for state in states]),
            np.array([[getattr(state.statistics, name) for state in states] for name in _STATISTICS], dtype=np.float64),
        )

    def state(self, index: int, rows: tuple[Row, ...]) -> ToyState:
        """Returns one student's state, with its rows."""
        num_windows, *others = self.statistics[:, index].tolist()
        return ToyState(
            self.seeds[index],
            tuple(self.nll[index].tolist()),
            tuple(self.skill[index].tolist()),
            float(self.probe_nll[index]),
            RunningStatistics(int(num_windows), *others),
            rows,
        )

    def taken(self, students: Sequence[int]) -> ToyStates:
        """Returns some of the students' states."""
        if len(students) == len(self.seeds) and list(students) == list(range(len(self.seeds))):
            return self
        return ToyStates(
            [self.seeds[index] for index in students],
            self.nll[students],
            self.skill[students],
            self.probe_nll[students],
            self.statistics[:, students],
        )

    def put(self, students: Sequence[int], others: ToyStates) -> None:
        """Overwrites some of the students' states, in place."""
        for index, seed in zip(students, others.seeds, strict=True):
            self.seeds[index] = seed
        self.nll[students] = others.nll
        self.skill[students] = others.skill
        self.probe_nll[students] = others.probe_nll
        self.statistics[:, students] = others.statistics


def initial_state(config: ToyConfig, seed: int) -> ToyState:
    """Returns the state before the first window."""
    probe_nll = INITIAL_NLL + float(noise([seed], [0], np.array([INITIAL_NLL]), config)[0])
    groups = config.groups
    return ToyState(seed, (INITIAL_NLL,) * groups, (0.0,) * groups, probe_nll, initial_statistics(probe_nll))


def next_state(state: ToyState, ratios: NDArray[np.float64], config: ToyConfig) -> ToyState:
    """Returns the state after one more hold window; its last row is the window's.

    Args:
        state: State before the window.
        ratios: Reveal ratios [groups], each in [0, 1].
        config: The environment's configuration.
    """
    after, columns = next_states(ToyStates.of([state]), ratios[None, :], config)
    return after.state(0, (*state.rows, *rows_of(columns)))


def next_states(states: ToyStates, ratios: Levels, config: ToyConfig) -> tuple[ToyStates, Columns]:
    """Returns S students' states after one more hold window, and the window's columns in the row's order.

    Args:
        states: States before the window.
        ratios: Reveal ratios [S, groups], each in [0, 1].
        config: The environment's configuration.
    """
    windows = states.windows + 1
    nll, skill = next_levels(states.nll, states.skill, ratios, config)
    mean_nll = group_mean(nll)
    probe_nll = mean_nll + noise(states.seeds, windows.tolist(), mean_nll, config)
    columns = window_columns(windows, ratios, mean_nll, (states.probe_nll, probe_nll), config)
    statistics = advance(
        RunningStatistics(*map(plain, states.statistics)),
        columns,
        windows=config.windows,
        max_new_tokens=config.max_new_tokens,
        ema_coefficient=config.ema_coefficient,
    )
    stacked = np.array([getattr(statistics, name) for name in _STATISTICS], dtype=np.float64)
    after = ToyStates(states.seeds, nll, skill, probe_nll, stacked.reshape(states.statistics.shape))
    return after, columns | optimum_columns(windows, nll, skill, config)


class ToyRuns(Sequence[ToyState]):
    """The runs of a population for reading, each made when it is asked for."""

    def __init__(self, population: ToyPopulation) -> None:
        self._population = population

    def __len__(self) -> int:
        return self._population.num_students

    @overload
    def __getitem__(self, index: int) -> ToyState: ...
    @overload
    def __getitem__(self, index: slice) -> list[ToyState]: ...
    def __getitem__(self, index: int | slice) -> ToyState | list[ToyState]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        return self._population.snapshot(index)


def to_toy_checkpoint(state: ToyState, config: ToyConfig) -> Checkpoint:
    """Returns a learner's state, and the configuration that it belongs to, in a form that files can hold."""
    return Checkpoint({}, {"config": config.keywords(), "toy": dataclasses.asdict(state)})


def from_toy_checkpoint(checkpoint: Checkpoint, config: ToyConfig) -> ToyState:
    """Returns the state that ``to_toy_checkpoint`` was given.

    Raises:
        ConfigError: If it was saved under another configuration.
    """
    check_same_config(config, checkpoint.description.get("config", {}))
    saved = dict(checkpoint.description["toy"])
    return ToyState(
        **saved
        | {
            "nll": tuple(saved["nll"]),
            "skill": tuple(saved["skill"]),
            "statistics": RunningStatistics(**saved["statistics"]),
            "rows": tuple(saved["rows"]),
        }
    )


class ToyPopulation:
    """K closed-form learners behind the interface of ``Population``; all their windows are made at once, with arrays.

    Args:
        config: The environment's configuration.
        num_students: K.

    Attributes:
        num_students: K.
        runs: The state of each learner's run; before its first ``reset``, that of seed 0.
    """

    def __init__(self, config: ToyConfig, num_students: int = 1) -> None:
        self.config = config
        self.num_students = num_students
        self.runs = ToyRuns(self)
        self._states = ToyStates.of([initial_state(config, 0)] * num_students)
        self._rows: list[tuple[Row, ...]] = [()] * num_students

    def reset(self, index: int, seed: int) -> RunningStatistics:
        """Starts a new run of learner ``index``; returns the statistics before its first window."""
        state = initial_state(self.config, seed)
        self.restore(index, state)
        return state.statistics

    def window(self, reveal_ratios: NDArray[np.float64], students: Sequence[int] | None = None) -> list[Row]:
        """Makes one window of each learner in ``students`` (all, if None) at its line of [S, groups]; returns their rows."""
        students = range(self.num_students) if students is None else students
        self._advance(reveal_ratios, students)
        return [self._rows[index][-1] for index in students]

    def window_infos(self, reveal_ratios: NDArray[np.float64], students: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Makes the same windows; returns the rows in Gymnasium's vector form, [S] in each name."""
        return infos_of(self._advance(reveal_ratios, students))

    def first_infos(self, students: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Returns what ``reset`` tells of some learners, in Gymnasium's vector form."""
        states = self._states.taken(students)
        beside = optimum_columns(states.windows, states.nll, states.skill, self.config)
        return infos_of({"seed": np.array(states.seeds, dtype=np.int64), "probe/nll": states.probe_nll, **beside})

    def observations(self) -> Observation:
        """Returns every learner's observation, [K, num_features]."""
        return observation(RunningStatistics(*self._states.statistics))

    def snapshot(self, index: int) -> ToyState:
        """Returns learner ``index``'s state, which is never changed in place."""
        return self._states.state(index, self._rows[index])

    def restore(self, index: int, snapshot: ToyState) -> None:
        """Puts learner ``index`` into a state."""
        self._states.put([index], ToyStates.of([snapshot]))
        self._rows[index] = snapshot.rows

    def twin(self, num_students: int, index: int = 0) -> ToyPopulation:
        """Returns other learners of the same configuration, which is that of each ``index``."""
        return ToyPopulation(self.config, num_students)

    def _advance(self, reveal_ratios: NDArray[np.float64], students: Sequence[int]) -> Columns:
        after, columns = next_states(self._states.taken(students), reveal_ratios, self.config)
        self._states.put(students, after)
        for index, row in zip(students, rows_of(columns), strict=True):
            self._rows[index] = (*self._rows[index], row)
        return columns
