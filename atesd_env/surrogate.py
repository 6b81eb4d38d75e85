"""``ATESD-Surrogate-v0``: an environment fitted to logged runs, thousands of windows a second.

For trying and training controllers, not for judging them: it is as good as its model, it knows only where its runs have
been, and its students never break. It says so where it is asked beyond that.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray

from atesd_env.actions import checked_ratios
from atesd_env.config import EnvConfig
from atesd_env.episode import RESET_FIRST, checked_render_mode, draw_seed, first_result, make_spaces
from atesd_env.errors import ConfigError, ExtrapolationError, NoEpisodeError
from atesd_env.render import render
from atesd_env.statistics import (
    COLUMNS,
    FEATURE_NAMES,
    Row,
    RunningStatistics,
    group_columns,
    initial_statistics,
)
from atesd_env.surrogate_model import (
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
from atesd_env.vector import Batch, TeacherExposureVectorEnv

OnExtrapolation = Literal["truncate", "warn", "raise"]
REWARD_FIELDS = ("gamma", "lookahead", "grounded_weight", "progress")
"""Configuration fields that may differ from those of the runs: they are no part of what was fitted."""

IS_EXTRAPOLATING = "surrogate/is_extrapolating"
REASON = "surrogate/reason"

_NOISE_PURPOSE = 12  # apart from the purposes of the other environments' random streams
_NULL_COLUMNS = ("probe/accuracy", "probe/pass_at_k")
_INTEGER_COLUMNS = tuple(column.name for column in COLUMNS if column.type == "int")


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
    config: EnvConfig
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
        return [_row(names, values) for values in self.values]


def column_names(config: EnvConfig) -> tuple[str, ...]:
    """Returns the columns of a window's row, in order."""
    return tuple(column.name for column in (*COLUMNS, *group_columns(config.groups)))


def _row(names: Sequence[str], values: Array) -> Row:
    row: Row = dict(zip(names, values.tolist(), strict=True))
    for name in _INTEGER_COLUMNS:
        row[name] = int(row[name] or 0)
    for name in _NULL_COLUMNS:
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
        self, model: SurrogateModel, config: EnvConfig, num_students: int, on_extrapolation: OnExtrapolation
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
        rng = np.random.default_rng(np.random.SeedSequence([seed, _NOISE_PURPOSE]))
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
        return [_row(self._names, line) for line in values]

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

    def twin(self, num_students: int) -> SurrogatePopulation:
        """Returns other runs of the same surrogate."""
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


class SurrogateExposureEnv(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """A fitted surrogate with the interface of ``TeacherExposureEnv``.

    A window is predicted from the statistics, the probe NLL and the reveal ratios before it, plus a residual drawn from those
    of runs that the model had not seen. Probe accuracy and pass@k are not predicted (null), and students never break.
    Everything else (spaces, features, reward, info, end of the episode) is that of the environment it was fitted on.

    ``info["surrogate/is_extrapolating"]`` says whether the window's inputs lie outside of what the model was fitted on (a range
    for each input, and the Mahalanobis distance of all), and then ``info["surrogate/reason"]`` why. Such a window is made
    for the nearest inputs inside the ranges, so its numbers mean little. What follows is ``on_extrapolation``:

    - "truncate" (default): the episode ends there, ``truncated``: the student has not broken, only the knowledge ends, so
      a value-based agent bootstraps instead of learning that the end is worth nothing;
    - "warn": an ``ExtrapolationWarning``, and the episode goes on;
    - "raise": ``ExtrapolationError``, and the run stays as it was.

    Args:
        file: File of ``atesd fit-surrogate``, or a model.
        render_mode: "ansi", "rgb_array" or None.
        on_extrapolation: What happens outside the support.
        **fields: Fields of ``EnvConfig``: ``REWARD_FIELDS`` may be changed, others must be those of the runs.

    Attributes:
        config: The configuration of the environment that the surrogate was fitted on, with the changed fields.
        feature_names: Names of the observation's entries, in order.
        model: The fitted model; ``model.report`` has its held-out errors.

    Raises:
        ConfigError: If the file holds no surrogate, or an argument cannot be used.
        RunFilesError: If the file cannot be read.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # noqa: RUF012 (Gymnasium's own convention)

    def __init__(
        self,
        file: str | os.PathLike[str] | SurrogateModel,
        render_mode: str | None = None,
        *,
        on_extrapolation: OnExtrapolation = "truncate",
        **fields: Any,
    ) -> None:
        self.render_mode = checked_render_mode(render_mode)
        self.model = _opened(file)
        self.config = _changed(self.model.config, fields)
        self.feature_names = FEATURE_NAMES
        self.observation_space, self.action_space = make_spaces(self.config)
        self.on_extrapolation = _checked_policy(on_extrapolation)
        self.population = SurrogatePopulation(self.model, self.config, 1, on_extrapolation)
        self._is_running = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Starts a new run; the same seed and actions give the same run. None draws a seed.

        Returns:
            The first observation, and ``info`` with the run's seed and the base model's probe NLL.
        """
        super().reset(seed=seed)
        self.population.reset(0, seed if seed is not None else draw_seed(self.np_random))
        self._is_running = True
        info = first_result(self.population.snapshot(0))[1]
        return self.population.observations()[0], info

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Makes one hold window at the given reveal ratio.

        Args:
            action: Reveal ratio for each group, [groups] in [0, 1].

        Raises:
            ConfigError: If the action is not a ratio in [0, 1] for each group.
            ExtrapolationError: If the window lies outside the support and ``on_extrapolation`` is "raise".
            NoEpisodeError: If no episode is running.
        """
        if not self._is_running:
            raise NoEpisodeError(RESET_FIRST)
        ratios = checked_ratios(action, self.config.groups)
        (values,) = self.population.advance(ratios[None], np.zeros(1, dtype=np.int64))
        reason = self.population.reasons[0]
        info: dict[str, Any] = {**_row(column_names(self.config), values), IS_EXTRAPOLATING: reason is not None}
        if reason is not None:
            info[REASON] = reason
        is_over = self.population.num_windows[0] >= self.config.windows
        truncated = bool(is_over or (reason is not None and self.on_extrapolation == "truncate"))
        self._is_running = not truncated
        return self.population.observations()[0], float(info["reward/total"]), False, truncated, info

    def render(self) -> str | NDArray[np.uint8] | None:
        """Returns the run so far as text ("ansi") or as a picture, uint8 [H, W, 3] ("rgb_array")."""
        return render(self.population.snapshot(0).rows, self.config.windows, self.render_mode)

    def snapshot(self) -> tuple[SurrogateState, bool]:
        """Returns the run's state, for ``restore``."""
        return self.population.snapshot(0), self._is_running

    def restore(self, snapshot: tuple[SurrogateState, bool]) -> None:
        """Returns to the state of a snapshot; the next windows repeat bit for bit."""
        state, self._is_running = snapshot
        self.population.restore(0, state)


class SurrogateExposureVectorEnv(TeacherExposureVectorEnv):
    """K runs of a surrogate, a window of each a step; the interface of ``TeacherExposureVectorEnv``.

    Run k is the scalar environment reset with its seed, to rounding. ``infos`` also has ``surrogate/is_extrapolating`` and
    ``surrogate/reason``. Autoreset is Gymnasium's ``NEXT_STEP``.

    Args:
        file: File of ``atesd fit-surrogate``, or a model.
        num_envs: K, at least 1.
        render_mode: "ansi", "rgb_array" or None.
        on_extrapolation: As in ``SurrogateExposureEnv``.
        **fields: As there.

    Attributes:
        model: The fitted model.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | SurrogateModel,
        num_envs: int = 1,
        render_mode: str | None = None,
        *,
        on_extrapolation: OnExtrapolation = "truncate",
        **fields: Any,
    ) -> None:
        self.model = _opened(file)
        super().__init__(_changed(self.model.config, fields), num_envs, render_mode)
        self.on_extrapolation = _checked_policy(on_extrapolation)

    @property
    def population(self) -> SurrogatePopulation:
        """The K runs."""
        if self._population is None:
            self._population = SurrogatePopulation(self.model, self.config, self.num_envs, self.on_extrapolation)
        assert isinstance(self._population, SurrogatePopulation)
        return self._population

    def step(
        self, actions: Batch
    ) -> tuple[Batch, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Makes a window of every run that goes on, and starts new runs in place of the others.

        Args, returns and errors are those of ``TeacherExposureVectorEnv.step``; also raises ExtrapolationError, as
        ``SurrogateExposureEnv.step``.
        """
        if not self._is_started.all():
            raise NoEpisodeError(RESET_FIRST)
        is_going = self._is_running.copy()
        going = np.flatnonzero(is_going)
        ratios = self._checked_actions(actions, going.tolist())
        rewards = np.zeros(self.num_envs)
        truncations = np.zeros(self.num_envs, dtype=np.bool_)
        infos: dict[str, Any] = {}
        if going.size:
            values = self.population.advance(ratios, going)
            infos = self._window_infos(values, is_going)
            rewards[is_going] = infos["reward/total"][is_going]
            truncations[going] = self.population.num_windows[going] >= self.config.windows
            if self.on_extrapolation == "truncate":
                truncations |= infos[IS_EXTRAPOLATING]
        if not is_going.all():
            self._restart(np.flatnonzero(~is_going), infos)
        self._is_running = ~truncations
        return self._observations(), rewards, np.zeros(self.num_envs, dtype=np.bool_), truncations, infos

    def snapshot(self, index: int) -> tuple[SurrogateState, bool]:
        """Returns a copy of run ``index``: what ``snapshot`` of the scalar environment returns."""
        return self.population.snapshot(index), bool(self._is_running[index])

    def restore(self, index: int, snapshot: tuple[SurrogateState, bool]) -> None:
        """Puts run ``index`` into the state of a snapshot; if it had ended, the next step starts a new one."""
        state, is_running = snapshot
        self.population.restore(index, state)
        self._is_running[index], self._is_started[index] = is_running, True

    def _window_infos(self, values: Array, is_going: NDArray[np.bool_]) -> dict[str, Any]:
        """Returns the infos of the runs that made a window, in the form of ``vector.vector_infos``."""
        infos: dict[str, Any] = {}
        nowhere = np.zeros(self.num_envs, dtype=np.bool_)
        for position, name in enumerate(column_names(self.config)):
            is_integer = name in _INTEGER_COLUMNS
            column = np.zeros(self.num_envs, dtype=np.int64) if is_integer else np.full(self.num_envs, np.nan)
            column[is_going] = values[:, position]
            infos[name] = column
            infos[f"_{name}"] = nowhere.copy() if name in _NULL_COLUMNS else is_going.copy()
        reasons = np.array(self.population.reasons, dtype=object)
        reasons[~is_going] = None
        infos[IS_EXTRAPOLATING] = np.array([reason is not None for reason in reasons])
        infos[f"_{IS_EXTRAPOLATING}"] = is_going.copy()
        if infos[IS_EXTRAPOLATING].any():
            infos[REASON], infos[f"_{REASON}"] = reasons, infos[IS_EXTRAPOLATING].copy()
        return infos

    def _restart(self, ended: NDArray[np.int64], infos: dict[str, Any]) -> None:
        """Starts new runs, and puts the infos of their resets among those of the windows."""
        infos.setdefault("probe/nll", np.full(self.num_envs, np.nan))
        infos["seed"] = np.zeros(self.num_envs, dtype=np.int64)
        is_ended = np.zeros(self.num_envs, dtype=np.bool_)
        is_ended[ended] = True
        infos["_seed"] = is_ended
        infos["_probe/nll"] = infos.get("_probe/nll", np.zeros(self.num_envs, dtype=np.bool_)) | is_ended
        for index in ended.tolist():
            first = self._start(index, None)
            infos["seed"][index], infos["probe/nll"][index] = first["seed"], first["probe/nll"]

    def _start(self, index: int, seed: int | None) -> dict[str, Any]:
        seed = draw_seed(self._generators[index]) if seed is None else seed
        statistics = self.population.reset(index, seed)
        self._is_started[index] = self._is_running[index] = True
        return {"seed": seed, "probe/nll": statistics.probe_nll_ema}

    def _observations(self) -> Batch:
        return self.population.observations()


def _opened(file: str | os.PathLike[str] | SurrogateModel) -> SurrogateModel:
    return file if isinstance(file, SurrogateModel) else SurrogateModel.load(os.fspath(file))


def _changed(config: EnvConfig, fields: dict[str, Any]) -> EnvConfig:
    """Returns the configuration with some reward fields changed.

    Raises:
        ConfigError: If another field is given a value that the runs did not have.
    """
    changed = config.replace(**fields)
    different = [
        f"{field.name} ({getattr(config, field.name)!r} there, {getattr(changed, field.name)!r} asked for)"
        for field in dataclasses.fields(config)
        if field.name not in REWARD_FIELDS and getattr(config, field.name) != getattr(changed, field.name)
    ]
    if different:
        raise ConfigError(
            f"surrogate: expected the configuration of the runs that it was fitted on, got other values of "
            f"{', '.join(different)}; leave them out ({', '.join(REWARD_FIELDS)} may differ), or fit one on such runs."
        )
    return changed


def _checked_policy(on_extrapolation: OnExtrapolation) -> OnExtrapolation:
    if on_extrapolation not in ("truncate", "warn", "raise"):
        raise ConfigError(f"on_extrapolation: expected 'truncate', 'warn' or 'raise', got {on_extrapolation!r}.")
    return on_extrapolation


def _warn() -> None:
    warnings.warn(
        "surrogate: a window lies outside of what the surrogate was fitted on, so its numbers mean little; "
        "info['surrogate/reason'] says why.",
        ExtrapolationWarning,
        stacklevel=4,
    )


def make_vector(num_envs: int = 1, **arguments: Any) -> SurrogateExposureVectorEnv:
    """Vector entry point of ``ATESD-Surrogate-v0``."""
    return SurrogateExposureVectorEnv(num_envs=num_envs, **arguments)
