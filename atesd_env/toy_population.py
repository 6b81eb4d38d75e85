"""The closed-form learners' runs: one student's state, and K of them trained side by side, an array for each number."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from atesd_env.config import EnvConfig
from atesd_env.episode import Observation
from atesd_env.reward import learning_progress, window_reward
from atesd_env.statistics import (
    Row,
    RunningStatistics,
    advance,
    group_columns,
    initial_statistics,
    observation,
    toy_columns,
)
from atesd_env.toy_dynamics import INITIAL_NLL, Levels, each, group_mean, next_levels, noise, share_left
from atesd_env.toy_optimum import optimum

Columns = dict[str, NDArray[Any]]
"""Column name -> what S students have in it, [S]; NaN where nothing was measured."""

_STATISTICS = tuple(field.name for field in dataclasses.fields(RunningStatistics))
_MAY_BE_NULL = ("probe/accuracy", "probe/pass_at_k")


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


def initial_state(config: EnvConfig, seed: int) -> ToyState:
    """Returns the state before the first window."""
    probe_nll = INITIAL_NLL + float(noise([seed], [0], np.array([INITIAL_NLL]), config)[0])
    groups = config.groups
    return ToyState(seed, (INITIAL_NLL,) * groups, (0.0,) * groups, probe_nll, initial_statistics(probe_nll))


def next_state(state: ToyState, ratios: NDArray[np.float64], config: EnvConfig) -> ToyState:
    """Returns the state after one more hold window; its last row is the window's.

    Args:
        state: State before the window.
        ratios: Reveal ratios [groups], each in [0, 1].
        config: The environment's configuration.
    """
    after, columns = next_states(ToyStates.of([state]), ratios[None, :], config)
    return after.state(0, (*state.rows, *rows_of(columns)))


def next_states(states: ToyStates, ratios: Levels, config: EnvConfig) -> tuple[ToyStates, Columns]:
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
    columns = _columns(windows, ratios, mean_nll, config)
    pairs = zip(states.probe_nll.tolist(), probe_nll.tolist(), strict=True)
    progress = np.array([learning_progress(before, after, config.progress) for before, after in pairs])
    columns |= {
        "probe/nll": probe_nll,
        "reward/progress": progress,
        "reward/total": window_reward(progress, columns["probe/grounded"], config.grounded_weight),
    }
    statistics = advance(
        RunningStatistics(*states.statistics),
        columns,
        windows=config.windows,
        max_new_tokens=config.max_new_tokens,
        ema_coefficient=config.ema_coefficient,
    )
    stacked = np.array([getattr(statistics, name) for name in _STATISTICS])
    after = ToyStates(states.seeds, nll, skill, probe_nll, stacked)
    return after, columns | optimum_columns(after, config)


def optimum_columns(states: ToyStates, config: EnvConfig) -> Columns:
    """Returns where S students stand beside the optimal policy (``TOY_COLUMNS``)."""
    best = optimum(config)
    windows = states.windows
    left = config.windows - windows
    ratios = best.best_ratios(states.nll, left)
    values = [
        np.array([best.nll(window) for window in windows.tolist()]),
        best.regret(states.nll, states.skill, left),
        best.reached_rate(states.nll),
        group_mean(ratios),
        *(ratios.T if config.groups > 1 else ()),
    ]
    return {column.name: value for column, value in zip(toy_columns(config.groups), values, strict=True)}


def rows_of(columns: Columns) -> list[Row]:
    """Returns the columns of a window as a row for each student: plain numbers, None where nothing was measured."""
    values = [
        [None if value != value else value for value in column.tolist()]  # noqa: PLR0124 (NaN is not itself)
        if name in _MAY_BE_NULL
        else column.tolist()
        for name, column in columns.items()
    ]
    return [dict(zip(columns, line, strict=True)) for line in zip(*values, strict=True)]


def infos_of(columns: Columns) -> dict[str, NDArray[Any]]:
    """Returns columns in Gymnasium's vector form: copies, each with a mask ``_name``."""
    infos: dict[str, NDArray[Any]] = {}
    for name, column in columns.items():
        infos[name] = column.copy()
        infos[f"_{name}"] = ~np.isnan(column) if name in _MAY_BE_NULL else np.ones(len(column), dtype=np.bool_)
    return infos


def _columns(windows: NDArray[np.int64], ratios: Levels, nll: NDArray[np.float64], config: EnvConfig) -> Columns:
    """Returns the window's columns in the order of ``COLUMNS``; what the caller measures is still NaN.

    Args:
        windows: Number of each student's window, from 1, [S].
        ratios: Reveal ratios [S, groups].
        nll: Noise-free probe NLL after the window, mean over groups, [S].
        config: The environment's configuration.
    """
    ratio = group_mean(ratios)
    to_learn = share_left(nll)
    mismatch = (0.5 + 0.5 * ratio) * (0.5 + 0.5 * to_learn)
    entropy = 0.2 + 0.8 * to_learn
    success = each(math.exp, -nll)
    length = config.max_new_tokens * (0.75 - 0.5 * success)
    nothing, unknown = np.zeros(len(nll)), np.full(len(nll), np.nan)
    every, last = config.probe_accuracy_every, windows == config.windows
    is_measured = (windows % every == 0) | last if every > 0 else np.zeros(len(nll), dtype=np.bool_)
    pass_at_k: Callable[[float], float] = lambda rate: float(1.0 - (1.0 - rate) ** config.probe_pass_k)  # noqa: E731
    return {
        "window": windows,
        "update": windows * config.hold_window,
        "exposure/reveal_ratio": ratio,
        "exposure/shown_ratio": ratio,
        "exposure/cut_rate": nothing,
        "student/loss": mismatch,
        "student/mismatch": mismatch,
        "student/self_confidence": each(math.exp, -entropy),
        "student/entropy": entropy,
        "student/top1_disagreement": 1.0 - each(math.exp, -mismatch),
        "student/grad_norm": mismatch,
        "teacher/entropy": entropy * (1.0 - 0.5 * ratio),
        "rollout/success_rate": success,
        "rollout/length": length,
        "rollout/truncation_rate": nothing,
        "rollout/num_tokens": np.rint(length * config.num_rollouts * config.hold_window).astype(np.int64),
        "probe/nll": unknown,
        "probe/grounded": -0.3 + 0.1 * ratio,
        "probe/accuracy": np.where(is_measured, success, np.nan),
        "probe/pass_at_k": each(pass_at_k, success) if config.probe_pass_k else unknown,
        "reward/progress": unknown,
        "reward/total": unknown,
        **{column.name: value for column, value in zip(group_columns(config.groups), ratios.T, strict=False)},
    }


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


class ToyPopulation:
    """K closed-form learners behind the interface of ``Population``; all their windows are made at once, with arrays.

    Args:
        config: The environment's configuration.
        num_students: K.

    Attributes:
        num_students: K.
        runs: The state of each learner's run; before its first ``reset``, that of seed 0.
    """

    def __init__(self, config: EnvConfig, num_students: int = 1) -> None:
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
        columns = {
            "seed": np.array(states.seeds, dtype=np.int64),
            "probe/nll": states.probe_nll,
            **optimum_columns(states, self.config),
        }
        return infos_of(columns)

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

    def twin(self, num_students: int) -> ToyPopulation:
        """Returns other learners of the same configuration."""
        return ToyPopulation(self.config, num_students)

    def _advance(self, reveal_ratios: NDArray[np.float64], students: Sequence[int]) -> Columns:
        after, columns = next_states(self._states.taken(students), reveal_ratios, self.config)
        self._states.put(students, after)
        for index, row in zip(students, rows_of(columns), strict=True):
            self._rows[index] = (*self._rows[index], row)
        return columns
