"""The closed-form learners' runs: one student's state, and K of them trained side by side, an array for each number."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atesd_env.config import ToyConfig, check_same_config
from atesd_env.config.checks import is_finite
from atesd_env.envs.columns import Columns, Row, check_rows, rows_of
from atesd_env.envs.contract import ExposureScores, HeldRuns, Observation, Students, WindowResults
from atesd_env.envs.infos import Infos, column_infos
from atesd_env.envs.observation import (
    FEATURE_NAMES,
    RunningStatistics,
    advance,
    initial_statistics,
    observation,
    stacked,
)
from atesd_env.errors import ConfigError
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
    plain,
    share_left,
)
from atesd_env.simulated.toy_history import ToyHistory
from atesd_env.simulated.toy_row import ToyWindow, window_columns, with_optimum


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


class ToyStates(NamedTuple):
    """S students' states without their rows, column by column; of one student (S = 1), plain numbers.

    Attributes:
        seeds: Seeds of the runs, [S].
        nll: Noise-free probe NLL, [S, G]; a number for one student with one group.
        skill: Skill, likewise.
        probe_nll: Last measured probe NLL, [S].
        statistics: What a controller may know, an array [S] in each attribute.
    """

    seeds: Any
    nll: Any
    skill: Any
    probe_nll: Any
    statistics: RunningStatistics

    @classmethod
    def of(cls, states: Sequence[ToyState]) -> ToyStates:
        """Returns some students' states side by side."""
        if len(states) == 1:
            (one,) = states
            nll, skill = (levels[0] if len(levels) == 1 else np.array([levels]) for levels in (one.nll, one.skill))
            return cls(one.seed, nll, skill, one.probe_nll, one.statistics)
        return cls(
            np.array([state.seed for state in states]),
            np.array([state.nll for state in states]),
            np.array([state.skill for state in states]),
            np.array([state.probe_nll for state in states]),
            _statistics(np.stack([stacked(state.statistics) for state in states], axis=1)),
        )

    @classmethod
    def initial(cls, config: ToyConfig, seeds: Sequence[int]) -> ToyStates:
        """Returns the states before the first window."""
        if len(seeds) == 1:
            return cls.of([initial_state(config, seeds[0])])
        nll = np.full((len(seeds), config.groups), INITIAL_NLL)
        windows = np.zeros(len(seeds), np.int64)
        probe_nll = nll[:, 0] + noise(np.array(seeds), windows, nll[:, 0], config)
        statistics = np.zeros((1 + len(FEATURE_NAMES), len(seeds)))
        statistics[1 + FEATURE_NAMES.index("probe_nll_ema")] = probe_nll
        return cls(np.array(seeds), nll, 0.0 * nll, probe_nll, _statistics(statistics))

    @property
    def num_students(self) -> int:
        """S."""
        return 1 if isinstance(self.probe_nll, float) else len(self.probe_nll)

    def state(self, index: int, rows: tuple[Row, ...]) -> ToyState:
        """Returns one student's state, with its rows."""
        one = self.taken([index])
        nll, skill = ((v,) if isinstance(v, float) else tuple(v[0].tolist()) for v in (one.nll, one.skill))
        return ToyState(one.seeds, nll, skill, one.probe_nll, one.statistics, rows)

    def taken(self, students: Sequence[int]) -> ToyStates:
        """Returns some of the students' states."""
        if is_everyone(students, self.num_students):
            return self
        return self._of([plain(values[students]) for values in self._columns()])

    def copied(self) -> ToyStates:
        """Returns states that ``put`` may overwrite."""
        return self._of([values.copy() for values in self._columns()])

    def put(self, students: Sequence[int], others: ToyStates) -> None:
        """Overwrites some of several students' states, in place."""
        for mine, theirs in zip(self._columns(), others._columns(), strict=True):
            mine[students] = theirs

    def _columns(self) -> list[Any]:
        return [*self[:-1], *vars(self.statistics).values()]

    @classmethod
    def _of(cls, columns: Sequence[Any]) -> ToyStates:
        seeds, nll, skill, probe_nll, *statistics = columns
        return cls(seeds, nll, skill, probe_nll, RunningStatistics(*statistics))


def is_everyone(students: Sequence[int], num_students: int) -> bool:
    """Returns whether these are all the students, in order."""
    if len(students) != num_students:
        return False
    return (
        students == range(num_students) if isinstance(students, range) else list(students) == list(range(num_students))
    )


def _statistics(values: NDArray[np.float64]) -> RunningStatistics:
    """Returns statistics from their attributes in order, [1 + num_features, S]."""
    return RunningStatistics(*(values[0].astype(np.int64), *values[1:]))


def initial_state(config: ToyConfig, seed: int) -> ToyState:
    """Returns the state before the first window."""
    probe_nll = INITIAL_NLL + noise(seed, 0, INITIAL_NLL, config)
    groups = config.groups
    return ToyState(seed, (INITIAL_NLL,) * groups, (0.0,) * groups, probe_nll, initial_statistics(probe_nll))


def next_state(state: ToyState, ratios: NDArray[np.float64], config: ToyConfig) -> ToyState:
    """Returns the state after one more hold window; its last row is the window's.

    Args:
        state: State before the window.
        ratios: Reveal ratios [groups], each in [0, 1].
        config: The environment's configuration.
    """
    after, _, columns = next_states(ToyStates.of([state]), ratios[None, :], config)
    return after.state(0, (*state.rows, *rows_of(columns)))


def next_states(states: ToyStates, ratios: Any, config: ToyConfig) -> tuple[ToyStates, ToyWindow, Columns]:
    """Returns S students' states after one more hold window, the window, and its columns in the row's order.

    Args:
        states: States before the window.
        ratios: Reveal ratios [S, groups], each in [0, 1].
        config: The environment's configuration.
    """
    number, ratios = states.statistics.num_windows + 1, plain(ratios)
    nll, skill = next_levels(states.nll, states.skill, ratios, config)
    mean_nll = plain(group_mean(nll))
    probe_nll = mean_nll + noise(states.seeds, number, mean_nll, config)
    window = ToyWindow(number, ratios, nll, skill, states.probe_nll, probe_nll)
    columns = window_columns(window, config)
    statistics = advance(
        states.statistics,
        columns,
        windows=config.windows,
        max_new_tokens=config.max_new_tokens,
        ema_coefficient=config.ema_coefficient,
    )
    after = ToyStates(states.seeds, nll, skill, probe_nll, statistics)
    return after, window, with_optimum(columns, number, nll, skill, config)


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
        self._is_lent = False  # whether somebody else holds the arrays of the states
        self._history = ToyHistory(config, num_students)
        self._snapshots: dict[int, ToyState] = {}

    def reset(self, index: int, seed: int) -> RunningStatistics:
        """Starts a new run of learner ``index``; returns the statistics before its first window."""
        self.reset_many([index], [seed])
        return self.runs[index].statistics

    def reset_many(self, students: Sequence[int], seeds: Sequence[int]) -> None:
        """Starts new runs of some learners."""
        self._put(students, ToyStates.initial(self.config, seeds))
        self._history.begin(students)

    def window(self, reveal_ratios: Levels, students: Sequence[int] | None = None) -> list[Row]:
        """Makes one window of each learner in ``students`` (all, if None) at its line of [S, groups]; returns their rows."""
        students = range(self.num_students) if students is None else students
        _, columns = self._advance(reveal_ratios, students)
        rows = rows_of(columns)
        self._history.add_rows(students, rows)
        return rows

    def window_results(self, reveal_ratios: Levels, students: Sequence[int]) -> WindowResults:
        """Makes the same windows; returns what became of them, [S] each."""
        window, columns = self._advance(reveal_ratios, students)
        self._history.add(students, window)
        truncations = np.array(window.number >= self.config.windows, ndmin=1)
        rewards = np.array(columns["reward/total"], ndmin=1)
        return WindowResults(rewards, np.zeros_like(truncations), truncations, column_infos(columns, len(students)))

    def first_info(self, index: int) -> dict[str, Any]:
        """Returns what ``reset`` tells of learner ``index``; the optimum is part of it."""
        return dict(self._first_columns([index]))

    def first_infos(self, students: Sequence[int]) -> Infos:
        """Returns the same of some learners, [S] in each name."""
        return column_infos(self._first_columns(students), len(students))

    def window_result(self, index: int, row: Row) -> tuple[float, bool, bool, dict[str, Any]]:
        """Returns what ``step`` returns beside the observation; nothing is asked of the run, which would be made for it."""
        return float(row["reward/total"] or 0.0), False, int(row["window"] or 0) >= self.config.windows, dict(row)

    def observation(self, index: int) -> Observation:
        """Returns one learner's observation, [num_features]."""
        return observation(self._states.taken([index]).statistics)

    def observations(self) -> Observation:
        """Returns every learner's observation, [K, num_features]."""
        return np.atleast_2d(observation(self._states.statistics))

    def snapshot(self, index: int) -> ToyState:
        """Returns learner ``index``'s state, which is never changed in place."""
        if index not in self._snapshots:
            self._snapshots[index] = self._states.state(index, self._history.rows(index))
        return self._snapshots[index]

    def restore(self, index: int, snapshot: ToyState) -> None:
        """Puts learner ``index`` into a state."""
        self._put([index], ToyStates.of([snapshot]))
        self._history.begin([index], snapshot.rows)

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
        self,
        index: int,
        ratios: NDArray[np.float64],
        with_mismatch: bool = True,
        num_problems: int | None = None,
        by_problem: bool = False,
    ) -> ExposureScores:
        """Returns what ratios [N] show learner ``index``, of each group by its own share that is left; nothing is sampled for it."""
        if by_problem:
            raise ConfigError(
                "by_problem: expected students that learn from problems, got a closed form, which has none; ask it for its groups, or use "
                "a language model."
            )
        to_learn = share_left(np.array(self.snapshot(index).nll))
        distance = (
            mismatch(ratios[:, None], to_learn) if with_mismatch else np.full((len(ratios), len(to_learn)), np.nan)
        )
        return ExposureScores(grounded_score(ratios[:, None]) + 0.0 * to_learn, distance, 0, 0)

    def twin(self, num_students: int, index: int = 0) -> ToyPopulation:
        """Returns other learners of the same configuration, which is that of each ``index``."""
        return ToyPopulation(self.config, num_students)

    def _first_columns(self, students: Sequence[int]) -> Columns:
        states, self._is_lent = self._states.taken(students), True
        columns = {"seed": states.seeds, "probe/nll": states.probe_nll}
        return with_optimum(columns, states.statistics.num_windows, states.nll, states.skill, self.config)

    def _advance(self, reveal_ratios: Levels, students: Sequence[int]) -> tuple[ToyWindow, Columns]:
        before = self._states.taken(students)
        after, window, columns = next_states(before, reveal_ratios, self.config)
        self._put(students, after)
        return window, columns

    def _put(self, students: Sequence[int], states: ToyStates) -> None:
        self._snapshots.clear()
        if is_everyone(students, self.num_students):
            self._states, self._is_lent = states, True
            return
        if self._is_lent:
            self._states, self._is_lent = self._states.copied(), False
        self._states.put(students, states)
