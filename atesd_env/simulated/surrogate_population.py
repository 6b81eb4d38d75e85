"""Runs of a surrogate side by side, as arrays: what its scalar and its vector environment are made of."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from atesd_env.config import RunConfig
from atesd_env.envs.columns import COLUMNS, Row, group_columns
from atesd_env.envs.observation import FEATURE_NAMES, RunningStatistics, initial_statistics
from atesd_env.errors import ExtrapolationError
from atesd_env.files.checkpoint import Checkpoint
from atesd_env.simulated.surrogate_model import (
    PHASES,
    Array,
    SurrogateModel,
    WindowModel,
    add_reward,
    advance_statistics,
    decode,
    input_names,
    model_inputs,
    scaled_observations,
)
from atesd_env.streams import numpy_stream

OnExtrapolation = Literal["truncate", "warn", "raise"]
"""What happens in a window outside of what was fitted."""
INTEGER_COLUMNS = tuple(column.name for column in COLUMNS if column.type == "int")
"""Columns of whole numbers."""
NULL_COLUMNS = ("probe/accuracy", "probe/pass_at_k")
"""Columns that a surrogate does not predict."""

IS_EXTRAPOLATING = "surrogate/is_extrapolating"
"""Name in ``info``: whether the window's inputs lie outside of what was fitted."""
REASON = "surrogate/reason"
"""Name in ``info``: why a window counts as outside."""


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
    """

    seed: int
    probe_nll: float
    raw_statistics: Array
    noise: NDArray[np.int64]
    values: Array
    config: RunConfig
    reason: str | None = None

    @property
    def broken(self) -> None:
        """A surrogate's student never breaks."""
        return None

    @property
    def statistics(self) -> RunningStatistics:
        """What a controller may know."""
        known = dict(zip(FEATURE_NAMES, self.raw_statistics.tolist(), strict=True))
        return RunningStatistics(num_windows=len(self.values), **known)

    @property
    def rows(self) -> list[Row]:
        """The rows so far."""
        names = column_names(self.config)
        return [row_of(names, values) for values in self.values]


def column_names(config: RunConfig) -> tuple[str, ...]:
    """Returns the columns of a window's row, in order."""
    return tuple(column.name for column in (*COLUMNS, *group_columns(config.groups)))


def row_of(names: Sequence[str], values: Array) -> Row:
    """Returns a window's row from its values [C], with the types that rows have."""
    row: Row = dict(zip(names, values.tolist(), strict=True))
    for name in INTEGER_COLUMNS:
        row[name] = int(row[name] or 0)
    for name in NULL_COLUMNS:
        row[name] = None
    return row


class SurrogatePopulation:
    """K runs of a surrogate side by side, as arrays; the interface of ``Population``.

    Args:
        model: The fitted surrogate.
        config: The configuration: the model's, perhaps with other ``REWARD_FIELDS``.
        num_students: K.
        on_extrapolation: "raise" refuses a window outside the support; "warn" and "truncate" make it for the nearest
            inputs inside.

    Attributes:
        config: The configuration.
        reasons: Why each run's last window was an extrapolation, or None [K].
        num_windows: Windows that each run has made [K].
    """

    def __init__(
        self, model: SurrogateModel, config: RunConfig, num_students: int, on_extrapolation: OnExtrapolation
    ) -> None:
        self.config = config
        self.reasons: list[str | None] = [None] * num_students
        self.num_windows = np.zeros(num_students, dtype=np.int64)
        self._model = model
        self._on_extrapolation = on_extrapolation
        self._names = column_names(config)
        self._seeds = np.zeros(num_students, dtype=np.int64)
        self._probe_nll = np.zeros(num_students)
        self._statistics = np.zeros((num_students, len(FEATURE_NAMES)))
        self._noise = np.zeros((num_students, config.windows), dtype=np.int64)
        self._values = np.zeros((num_students, config.windows, len(self._names)))
        for index in range(num_students):
            self.reset(index, 0)

    @property
    def runs(self) -> Sequence[SurrogateState]:
        """The state of each run, for reading."""
        return [self.snapshot(index) for index in range(len(self.num_windows))]

    def reset(self, index: int, seed: int) -> RunningStatistics:
        """Starts a new run of student ``index``; returns the statistics before its first window.

        All of the run's noise is drawn here: it depends on seed and window only, not on what is done before.
        """
        rng = numpy_stream(seed, "surrogate noise")
        nll = float(rng.choice(self._model.initial_nll))
        self._noise[index] = rng.integers(len(self._model.later.residuals), size=self.config.windows)
        self._noise[index, 0] = rng.integers(len(self._model.first.residuals))
        self._seeds[index], self._probe_nll[index], self.num_windows[index] = seed, nll, 0
        statistics = initial_statistics(nll)
        self._statistics[index] = [getattr(statistics, name) for name in FEATURE_NAMES]
        self.reasons[index] = None
        return statistics

    def window(self, reveal_ratios: NDArray[np.float64], students: Sequence[int] | None = None) -> list[Row]:
        """Makes one window of each run in ``students`` (all, if None) at its line of [S, groups]; returns their rows.

        Whoever calls this does not see ``reasons``: extrapolation is at least warned of.
        """
        chosen = list(range(len(self.num_windows))) if students is None else list(students)
        values = self.advance(reveal_ratios, np.asarray(chosen))
        if self._on_extrapolation == "truncate" and any(self.reasons[index] for index in chosen):
            _warn()
        return [row_of(self._names, line) for line in values]

    def window_infos(self, reveal_ratios: Array, students: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Makes a window of some runs; returns their infos in the form of ``vector.vector_infos``, [S] in each name."""
        values = self.advance(reveal_ratios, np.asarray(students))
        all_of_them = np.ones(len(values), dtype=np.bool_)
        infos: dict[str, NDArray[Any]] = {}
        for position, name in enumerate(self._names):
            column = values[:, position]
            infos[name] = column.astype(np.int64) if name in INTEGER_COLUMNS else column.copy()
            infos[f"_{name}"] = all_of_them.copy() if name not in NULL_COLUMNS else ~all_of_them
        reasons = np.array([self.reasons[index] for index in students], dtype=object)
        is_outside = np.array([reason is not None for reason in reasons], dtype=np.bool_)
        infos |= {IS_EXTRAPOLATING: is_outside, f"_{IS_EXTRAPOLATING}": all_of_them}
        if is_outside.any():
            infos |= {REASON: reasons, f"_{REASON}": is_outside.copy()}
        return infos

    def first_infos(self, students: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Returns what ``reset`` tells of some runs, [S] in each name."""
        chosen = np.asarray(students)
        all_of_them = np.ones(len(chosen), dtype=np.bool_)
        return {
            "seed": self._seeds[chosen],
            "_seed": all_of_them,
            "probe/nll": self._probe_nll[chosen],
            "_probe/nll": all_of_them.copy(),
        }

    def advance(self, ratios: Array, students: NDArray[np.int64]) -> Array:
        """Makes one window of each run in ``students`` [S] at ratios [S, groups]; returns the values of their rows [S, C].

        Raises:
            ExtrapolationError: If a window lies outside the support and that is to be refused; no run has changed then.
        """
        nll, before, done = self._probe_nll[students], self._statistics[students], self.num_windows[students]
        encoded, reasons = self._predict(ratios, students, nll, before)
        quantities = decode(encoded, nll, self.config)
        if self.config.groups == 1:
            quantities["exposure/reveal_ratio"] = ratios[:, 0]
        add_reward(quantities, nll, self.config)
        after = advance_statistics(before, done == 0, quantities, (done + 1).astype(np.float64), self.config)
        values = self._row_values(quantities, ratios, done + 1)
        self._probe_nll[students], self._statistics[students] = quantities["probe/nll"], after
        self._values[students, done] = values
        self.num_windows[students] = done + 1
        for index, reason in zip(students.tolist(), reasons, strict=True):
            self.reasons[index] = reason
        return values

    def observations(self) -> NDArray[np.float32]:
        """Returns the observations of all runs, float32 [K, num_features]."""
        return scaled_observations(self._statistics)

    def snapshot(self, index: int) -> SurrogateState:
        """Returns a copy of student ``index``'s run."""
        return SurrogateState(
            int(self._seeds[index]),
            float(self._probe_nll[index]),
            self._statistics[index].copy(),
            self._noise[index].copy(),
            self._values[index, : self.num_windows[index]].copy(),
            self.config,
            self.reasons[index],
        )

    def restore(self, index: int, snapshot: SurrogateState) -> None:
        """Puts student ``index`` into the state of a snapshot, which stays usable."""
        self._seeds[index], self._probe_nll[index] = snapshot.seed, snapshot.probe_nll
        self._statistics[index], self._noise[index] = snapshot.raw_statistics, snapshot.noise
        self.num_windows[index] = len(snapshot.values)
        self._values[index, : len(snapshot.values)] = snapshot.values
        self.reasons[index] = snapshot.reason

    def twin(self, num_students: int, index: int = 0) -> SurrogatePopulation:
        """Returns other runs of the same surrogate, which is that of each ``index``."""
        return SurrogatePopulation(self._model, self.config, num_students, self._on_extrapolation)

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

    def _row_values(self, quantities: dict[str, Array], ratios: Array, window: NDArray[np.int64]) -> Array:
        config = self.config
        updates = config.hold_window
        known = {
            **quantities,
            "window": window,
            "update": window * updates,
            "rollout/num_tokens": np.round(quantities["rollout/length"] * config.num_rollouts * updates),
            **{column.name: ratios[:, group] for group, column in enumerate(group_columns(config.groups))},
        }
        nothing = np.full(len(window), np.nan)
        return np.stack([known.get(name, nothing) for name in self._names], axis=1)


def to_checkpoint(state: SurrogateState, *, is_running: bool) -> Checkpoint:
    """Returns a run's state, and whether its episode goes on, in a form that files can hold."""
    arrays: dict[str, NDArray[Any]] = {
        "raw_statistics": state.raw_statistics,
        "noise": state.noise,
        "values": state.values,
    }
    run = {"seed": state.seed, "probe_nll": state.probe_nll, "reason": state.reason, "is_running": is_running}
    return Checkpoint(arrays, {"config": state.config.keywords(), "surrogate": run})


def from_checkpoint(checkpoint: Checkpoint, config: RunConfig) -> tuple[SurrogateState, bool]:
    """Returns what ``to_checkpoint`` was given."""
    run: Mapping[str, Any] = checkpoint.description["surrogate"]
    arrays = {name: checkpoint.arrays[name] for name in ("raw_statistics", "noise", "values")}
    state = SurrogateState(run["seed"], run["probe_nll"], **arrays, config=config, reason=run["reason"])
    return state, bool(run["is_running"])


def _warn() -> None:
    warnings.warn(
        "surrogate: a window lies outside of what the surrogate was fitted on, so its numbers mean little; "
        "info['surrogate/reason'] says why.",
        ExtrapolationWarning,
        stacklevel=4,
    )
