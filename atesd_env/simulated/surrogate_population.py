"""Runs of a surrogate side by side, as arrays: what its scalar and its vector environment are made of."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from atesd_env.config import RunConfig, check_same_config
from atesd_env.envs.columns import COLUMNS, Columns, Row, group_columns, rows_of
from atesd_env.envs.contract import HeldRuns, Observation, Students, WindowResults
from atesd_env.envs.infos import INTEGERS, Infos, column_infos
from atesd_env.envs.observation import (
    FEATURE_NAMES,
    RunningStatistics,
    advance,
    initial_statistics,
    observation,
    stacked,
)
from atesd_env.errors import ExtrapolationError
from atesd_env.files.checkpoint import Checkpoint
from atesd_env.files.reading import check_fields
from atesd_env.simulated.surrogate_model import (
    PHASES,
    Array,
    SurrogateModel,
    WindowModel,
    input_names,
    model_inputs,
    window_columns,
)
from atesd_env.streams import numpy_stream

OnExtrapolation = Literal["truncate", "warn", "raise"]
"""What happens in a window outside of what was fitted."""

IS_EXTRAPOLATING = "surrogate/is_extrapolating"
"""Name in ``info``: whether the window's inputs lie outside of what was fitted."""
REASON = "surrogate/reason"
"""Name in ``info``: why a window counts as outside."""

_ARRAYS = ("raw_statistics", "noise", "values")  # of a state


class ExtrapolationWarning(UserWarning):
    """A surrogate was asked where it was not fitted, and answered for the nearest place where it was."""


@dataclass(frozen=True)
class SurrogateState:
    """Everything that a surrogate run's future depends on; its arrays are never changed.

    Attributes:
        seed: Seed of the run.
        probe_nll: Probe NLL after the last window.
        raw_statistics: Raw statistics [num_features], in the order of ``FEATURE_NAMES``.
        noise: Which residual each window of the episode meets [windows].
        values: Values of the rows so far [num_windows, columns].
        config: The configuration.
        reason: Why the last window was an extrapolation, or None.
        cut: Why the episode ends with it, or None.
    """

    seed: int
    probe_nll: float
    raw_statistics: Array
    noise: NDArray[np.int64]
    values: Array
    config: RunConfig
    reason: str | None = None
    cut: str | None = None

    @property
    def broken(self) -> str | None:
        """A surrogate's student never breaks."""
        return None

    @property
    def statistics(self) -> RunningStatistics:
        """What a controller may know."""
        return RunningStatistics(len(self.values), *self.raw_statistics.tolist())

    @property
    def rows(self) -> list[Row]:
        """The rows so far."""
        return rows_of(_columns_of(column_names(self.config), self.values.T))


def column_names(config: RunConfig) -> tuple[str, ...]:
    """Returns the columns of a window's row, in order."""
    return tuple(column.name for column in (*COLUMNS, *group_columns(config.groups)))


def _columns_of(names: Sequence[str], values: Array) -> Columns:
    """Returns the columns of windows from their values [C, S], with the types that rows have."""
    columns = zip(names, values, strict=True)
    return {name: column.astype(np.int64) if name in INTEGERS else column for name, column in columns}


class SurrogatePopulation(Students):
    """K runs of a surrogate side by side, as arrays.

    Args:
        model: The fitted surrogate.
        config: The configuration: the model's, perhaps with other ``REWARD_FIELDS``.
        num_students: K.
        on_extrapolation: "raise" refuses a window outside the support; "warn" and "truncate" make it for the nearest
            inputs inside, and "truncate" ends the episode there.

    Attributes:
        config: The configuration.
        runs: The state of each run; before its first ``reset``, that of seed 0.
        reasons: Why each run's last window was an extrapolation, or None [K].
        num_windows: Windows that each run has made [K].
    """

    def __init__(
        self, model: SurrogateModel, config: RunConfig, num_students: int, on_extrapolation: OnExtrapolation
    ) -> None:
        self.config = config
        self.num_students = num_students
        self.runs: HeldRuns[SurrogateState] = HeldRuns(num_students, self.snapshot)
        self.reasons: list[str | None] = [None] * num_students
        self.num_windows = np.zeros(num_students, dtype=np.int64)
        self._model = model
        self._on_extrapolation = on_extrapolation
        self._names = column_names(config)
        self._seeds = np.zeros(num_students, dtype=np.int64)
        self._probe_nll = np.zeros(num_students)
        self._statistics = np.zeros((len(FEATURE_NAMES), num_students))
        self._noise = np.zeros((num_students, config.windows), dtype=np.int64)
        self._values = np.zeros((num_students, config.windows, len(self._names)))
        for index in range(num_students):
            self.reset(index, 0)

    def reset(self, index: int, seed: int) -> RunningStatistics:
        """Starts a new run of student ``index``; returns the statistics before its first window.

        All of the run's noise is drawn here: it depends on seed and window only, not on what is done before.
        """
        rng = numpy_stream(seed, "surrogate noise")
        nll = float(self._model.initial_nll[rng.integers(len(self._model.initial_nll))])
        self._noise[index] = rng.integers(len(self._model.later.residuals), size=self.config.windows)
        self._noise[index, 0] = rng.integers(len(self._model.first.residuals))
        self._seeds[index], self._probe_nll[index], self.num_windows[index] = seed, nll, 0
        statistics = initial_statistics(nll)
        self._statistics[:, index] = stacked(statistics)[1:]
        self.reasons[index] = None
        return statistics

    def window(self, reveal_ratios: Array, students: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Makes one window of each run in ``students`` (all, if None) at its line of [S, groups].

        Returns:
            Their rows, and ``IS_EXTRAPOLATING`` in each, and ``REASON`` where it is True.

        Raises:
            ExtrapolationError: If a window lies outside the support and that is to be refused; no run has changed then.
        """
        students = range(self.num_students) if students is None else students
        rows: list[dict[str, Any]] = rows_of(self._advance(reveal_ratios, students))
        for row, index in zip(rows, students, strict=True):
            reason = self.reasons[index]
            row[IS_EXTRAPOLATING] = reason is not None
            if reason is not None:
                row[REASON] = reason
        return rows

    def window_results(self, reveal_ratios: Array, students: Sequence[int]) -> WindowResults:
        """Makes the same windows; returns what became of them, [S] each."""
        infos = column_infos(self._advance(reveal_ratios, students), len(students))
        reasons = np.array([self.reasons[index] for index in students], dtype=object)
        is_outside = np.array([reason is not None for reason in reasons], dtype=np.bool_)
        infos |= {IS_EXTRAPOLATING: is_outside, f"_{IS_EXTRAPOLATING}": np.ones_like(is_outside)}
        if is_outside.any():
            infos |= {REASON: reasons, f"_{REASON}": is_outside.copy()}
        truncations = infos["window"] >= self.config.windows
        if self._on_extrapolation == "truncate":
            truncations |= is_outside
        return WindowResults(infos["reward/total"], np.zeros_like(truncations), truncations, infos)

    def first_infos(self, students: Sequence[int]) -> Infos:
        """Returns what ``reset`` tells of some runs, [S] in each name."""
        chosen = list(students)
        columns = {"seed": self._seeds[chosen], "probe/nll": self._probe_nll[chosen]}
        return column_infos(columns, len(chosen))

    def observations(self) -> Observation:
        """Returns the observations of all runs, float32 [K, num_features]."""
        return observation(RunningStatistics(self.num_windows, *self._statistics))  # type: ignore[arg-type]

    def snapshot(self, index: int) -> SurrogateState:
        """Returns a copy of student ``index``'s run."""
        reason = self.reasons[index]
        return SurrogateState(
            int(self._seeds[index]),
            float(self._probe_nll[index]),
            self._statistics[:, index].copy(),
            self._noise[index].copy(),
            self._values[index, : self.num_windows[index]].copy(),
            self.config,
            reason,
            reason if self._on_extrapolation == "truncate" else None,
        )

    def restore(self, index: int, snapshot: SurrogateState) -> None:
        """Puts student ``index`` into the state of a snapshot, which stays usable."""
        self._seeds[index], self._probe_nll[index] = snapshot.seed, snapshot.probe_nll
        self._statistics[:, index], self._noise[index] = snapshot.raw_statistics, snapshot.noise
        self.num_windows[index] = len(snapshot.values)
        self._values[index, : len(snapshot.values)] = snapshot.values
        self.reasons[index] = snapshot.reason

    def checkpoint(self, index: int) -> Checkpoint:
        """Returns student ``index``'s run and the configuration in a form that files can hold."""
        state = self.snapshot(index)
        arrays = {name: getattr(state, name) for name in _ARRAYS}
        run = {"seed": state.seed, "probe_nll": state.probe_nll, "reason": state.reason}
        return Checkpoint(arrays, {"config": self.config.keywords(), "surrogate": run})

    def restored(self, index: int, checkpoint: Checkpoint) -> SurrogateState:
        """Returns the run that ``checkpoint`` was made of."""
        check_same_config(self.config, checkpoint.description.get("config", {}))
        run = checkpoint.description["surrogate"]
        raw_statistics, noise, values = (checkpoint.arrays[name] for name in _ARRAYS)
        state = SurrogateState(run["seed"], run["probe_nll"], raw_statistics, noise, values, self.config, run["reason"])
        check_fields(state)
        num_windows = self.config.windows
        num_residuals = np.full(num_windows, len(self._model.later.residuals))
        num_residuals[0] = len(self._model.first.residuals)
        shapes = [raw_statistics.shape, noise.shape, values[:num_windows].shape]
        if shapes != [(len(FEATURE_NAMES),), (num_windows,), (len(values), len(self._names))]:
            raise ValueError(f"arrays of the shapes {shapes}")
        if noise.dtype != np.int64 or not ((noise >= 0) & (noise < num_residuals)).all():
            raise ValueError("noise that the surrogate has not")
        return state

    def twin(self, num_students: int, index: int = 0) -> SurrogatePopulation:
        """Returns other runs of the same surrogate; where this one ends an episode for an extrapolation, they warn and go on."""
        policy = "warn" if self._on_extrapolation == "truncate" else self._on_extrapolation
        return SurrogatePopulation(self._model, self.config, num_students, policy)

    def _advance(self, ratios: Array, students: Sequence[int]) -> Columns:
        """Makes one window of each run in ``students`` at ratios [S, groups]; returns the columns of their rows."""
        config, chosen = self.config, np.asarray(students)
        nll, done = self._probe_nll[chosen], self.num_windows[chosen]
        before = self._statistics[:, chosen]
        encoded, reasons = self._predict(ratios, chosen, nll, before.T)
        predicted = window_columns(encoded, nll, ratios, config)
        known: Columns = {
            **predicted,
            "window": done + 1,
            "update": (done + 1) * config.hold_window,
            "rollout/num_tokens": np.round(predicted["rollout/length"] * config.num_rollouts * config.hold_window),
            **{column.name: ratios[:, group] for group, column in enumerate(group_columns(config.groups))},
        }
        after = advance(
            RunningStatistics(done, *before),
            known,
            windows=config.windows,
            max_new_tokens=config.max_new_tokens,
            ema_coefficient=config.ema_coefficient,
        )
        nothing = np.full(len(chosen), np.nan)
        values = np.array([known.get(name, nothing) for name in self._names])
        self._probe_nll[chosen], self._statistics[:, chosen] = predicted["probe/nll"], stacked(after)[1:]
        self._values[chosen, done] = values.T
        self.num_windows[chosen] = done + 1
        for index, reason in zip(students, reasons, strict=True):
            self.reasons[index] = reason
        return _columns_of(self._names, values)

    def _predict(
        self, ratios: Array, students: NDArray[np.int64], nll: Array, statistics: Array
    ) -> tuple[Array, list[str | None]]:
        """Returns the windows' quantities with noise, encoded [S, Q], and why each is an extrapolation, or None."""
        done = self.num_windows[students]
        noise = self._noise[students, done]
        encoded = np.zeros((len(students), self._model.later.residuals.shape[1]))
        reasons: list[str | None] = [None] * len(students)
        for phase, is_phase in zip(PHASES, (done == 0, done > 0), strict=True):
            chosen = np.flatnonzero(is_phase)
            if not chosen.size:
                continue
            model: WindowModel = getattr(self._model, phase)
            inputs = model_inputs(phase, statistics[chosen], nll[chosen], ratios[chosen])
            for position in np.flatnonzero(model.support.is_outside(inputs)).tolist():
                text = model.support.reason(inputs[position], input_names(phase, self.config.groups))
                reasons[chosen[position]] = text
            encoded[chosen] = model.predict(model.support.clipped(inputs)) + model.residuals[noise[chosen]]
        self._judge(reasons, students)
        return encoded, reasons

    def _judge(self, reasons: Sequence[str | None], students: NDArray[np.int64]) -> None:
        outside = [(student, reason) for student, reason in zip(students.tolist(), reasons, strict=True) if reason]
        if outside and self._on_extrapolation == "raise":
            student, reason = outside[0]
            raise ExtrapolationError(
                f"student {student}: expected a window like those that the surrogate was fitted on, got {reason}; stay "
                "inside, fit it on runs that have been there, or pass on_extrapolation='truncate' or 'warn'."
            )
        if outside and self._on_extrapolation == "warn":
            _warn()


def _warn() -> None:
    warnings.warn(
        "surrogate: a window lies outside of what the surrogate was fitted on, so its numbers mean little; "
        "info['surrogate/reason'] says why.",
        ExtrapolationWarning,
        stacklevel=4,
    )
