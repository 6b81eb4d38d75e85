"""The closed-form learners' runs: one student's state, and K of them trained side by side, an array for each number."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atesd_env.config import ToyConfig, check_same_config
from atesd_env.config.checks import is_finite
from atesd_env.envs.columns import Columns, Row, check_rows, rows_of
from atesd_env.envs.contract import ExposureScores, HeldRuns, Observation, Students, WindowResults
from atesd_env.envs.infos import Infos, column_infos
from atesd_env.envs.observation import RunningStatistics, advance, initial_statistics, observation, stacked
from atesd_env.files.checkpoint import Checkpoint
from atesd_env.files.reading import check_fields
from atesd_env.simulated.toy_dynamics import (
    INITIAL_NLL,
    Levels,
    grounded_score,
    group_mean,
    mismatch,
    next_levels,
    noise,
    share_left,
)
from atesd_env.simulated.toy_row import optimum_columns, plain, window_columns


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
    def broken(self) -> str | None:
        """A closed form never breaks."""
        return None

    @property
    def cut(self) -> str | None:
        """Nothing but the last window ends its episode."""
        return None


@dataclass(frozen=True)
class ToyStates:
    """S students' states without their rows, column by column.

    Attributes:
        seeds: Seeds of the runs, S of them, as large as they may be.
        nll: Noise-free probe NLL, [S, G].
        skill: Skill, [S, G].
        probe_nll: Last measured probe NLL, [S].
        statistics: The attributes of ``RunningStatistics`` in order, [1 + num_features, S].
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
            np.stack([stacked(state.statistics) for state in states], axis=1),
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
    columns = window_columns(windows, ratios, nll, (states.probe_nll, probe_nll), config)
    statistics = advance(
        RunningStatistics(*map(plain, states.statistics)),
        columns,
        windows=config.windows,
        max_new_tokens=config.max_new_tokens,
        ema_coefficient=config.ema_coefficient,
    )
    after = ToyStates(states.seeds, nll, skill, probe_nll, stacked(statistics).reshape(states.statistics.shape))
    return after, columns | optimum_columns(windows, nll, skill, config)


class ToyPopulation(Students):
    """K closed-form learners; all their windows are made at once, with arrays.

    Args:
        config: The environment's configuration.
        num_students: K.

    Attributes:
        num_students: K.
        runs: The state of each learner's run; before its first ``reset``, that of seed 0.
    """

    config: ToyConfig

    def __init__(self, config: ToyConfig, num_students: int = 1) -> None:
        self.config = config
        self.num_students = num_students
        self.runs: HeldRuns[ToyState] = HeldRuns(num_students, self.snapshot)
        self._states = ToyStates.of([initial_state(config, 0)] * num_students)
        self._rows: list[tuple[Row, ...]] = [()] * num_students

    def reset(self, index: int, seed: int) -> RunningStatistics:
        """Starts a new run of learner ``index``; returns the statistics before its first window."""
        state = initial_state(self.config, seed)
        self.restore(index, state)
        return state.statistics

    def window(self, reveal_ratios: Levels, students: Sequence[int] | None = None) -> list[Row]:
        """Makes one window of each learner in ``students`` (all, if None) at its line of [S, groups]; returns their rows."""
        students = range(self.num_students) if students is None else students
        self._advance(reveal_ratios, students)
        return [self._rows[index][-1] for index in students]

    def window_results(self, reveal_ratios: Levels, students: Sequence[int]) -> WindowResults:
        """Makes the same windows; returns what became of them, [S] each."""
        columns = self._advance(reveal_ratios, students)
        infos = column_infos({name: np.array(column, ndmin=1) for name, column in columns.items()})
        truncations = infos["window"] >= self.config.windows
        return WindowResults(infos["reward/total"], np.zeros_like(truncations), truncations, infos)

    def first_info(self, index: int) -> dict[str, Any]:
        """Returns what ``reset`` tells of learner ``index``; the optimum is part of it."""
        return super().first_info(index) | self._optimum([index])

    def first_infos(self, students: Sequence[int]) -> Infos:
        """Returns the same of some learners, [S] in each name."""
        states = self._states.taken(students)
        columns = {"seed": states.seeds, "probe/nll": states.probe_nll, **self._optimum(students)}
        return column_infos({name: np.array(column, ndmin=1) for name, column in columns.items()})

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

    def checkpoint(self, index: int) -> Checkpoint:
        """Returns learner ``index``'s state and the configuration in a form that files can hold."""
        return Checkpoint({}, {"config": self.config.keywords(), "toy": dataclasses.asdict(self.snapshot(index))})

    def restored(self, index: int, checkpoint: Checkpoint) -> ToyState:
        """Returns the state that ``checkpoint`` was made of."""
        check_same_config(self.config, checkpoint.description.get("config", {}))
        saved = dict(checkpoint.description["toy"])
        lists = {name: tuple(saved[name]) for name in ("nll", "skill", "rows")}
        state = ToyState(**saved | lists | {"statistics": RunningStatistics(**saved["statistics"])})
        check_fields(state)
        check_fields(state.statistics)
        check_rows(state.rows)
        levels = [*state.nll, *state.skill]
        if (
            len(state.nll) != self.config.groups
            or len(state.skill) != self.config.groups
            or not all(map(is_finite, levels))
        ):
            raise ValueError(f"{levels!r:.60} as probe NLL and skill of {self.config.groups} group(s)")
        return state

    def exposure_scores(
        self, index: int, ratios: NDArray[np.float64], with_mismatch: bool = True, num_problems: int | None = None
    ) -> ExposureScores:
        """Returns what ratios [N] show learner ``index``, of each group by its own share that is left; nothing is sampled for it."""
        to_learn = share_left(np.array(self.snapshot(index).nll))
        distance = (
            mismatch(ratios[:, None], to_learn) if with_mismatch else np.full((len(ratios), len(to_learn)), np.nan)
        )
        return ExposureScores(grounded_score(ratios[:, None]) + 0.0 * to_learn, distance, 0, 0)

    def twin(self, num_students: int, index: int = 0) -> ToyPopulation:
        """Returns other learners of the same configuration, which is that of each ``index``."""
        return ToyPopulation(self.config, num_students)

    def _optimum(self, students: Sequence[int]) -> Columns:
        states = self._states.taken(students)
        return optimum_columns(states.windows, states.nll, states.skill, self.config)

    def _advance(self, reveal_ratios: Levels, students: Sequence[int]) -> Columns:
        before = self._states.taken(students)
        after, columns = next_states(before, reveal_ratios, self.config)
        if before is self._states:
            self._states = after
        else:
            self._states.put(students, after)
        for index, row in zip(students, rows_of(columns), strict=True):
            self._rows[index] = (*self._rows[index], row)
        return columns
