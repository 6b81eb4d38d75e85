"""``ATESD-Surrogate-v0``: an environment fitted to logged runs, thousands of windows a second.

For trying and training controllers, not for judging them: it is as good as its model, it knows only where its runs have
been, and its students never break. It says so where it is asked beyond that.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from atesd_env.config import RunConfig, SurrogateConfig, check_same_config
from atesd_env.envs.actions import checked_ratios
from atesd_env.envs.contract import RESET_FIRST, checked_render_mode, draw_seed, first_result, make_spaces
from atesd_env.envs.observation import FEATURE_NAMES
from atesd_env.envs.render import render
from atesd_env.errors import ConfigError, NoEpisodeError
from atesd_env.files.checkpoint import Checkpoint, opened_checkpoint, write_checkpoint
from atesd_env.population.vector import Batch, TeacherExposureVectorEnv
from atesd_env.simulated.surrogate_model import Array, SurrogateModel
from atesd_env.simulated.surrogate_population import (
    IS_EXTRAPOLATING,
    REASON,
    ExtrapolationWarning,
    OnExtrapolation,
    SurrogatePopulation,
    SurrogateState,
    column_names,
    from_checkpoint,
    row_of,
    to_checkpoint,
)

__all__ = ["ExtrapolationWarning", "SurrogateExposureEnv", "SurrogateExposureVectorEnv", "make_vector"]

REWARD_FIELDS = RunConfig.names("is_reward")
"""Configuration fields that may differ from those of the runs: they are no part of what was fitted."""


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
        **fields: Fields of the runs' configuration: ``REWARD_FIELDS`` may be changed, others must be those of the runs.

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
        """Starts a new run.

        Args:
            seed: The run's seed; the same seed and actions give the same run. None draws one.
            options: ``{"state": path}`` goes on where ``save_state`` (or a run's checkpoint) was, instead.

        Returns:
            The first observation, and ``info`` with the run's seed and the base model's probe NLL.
        """
        super().reset(seed=seed)
        if options and options.get("state") is not None:
            self.load_state(options["state"])
        else:
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
        info: dict[str, Any] = {**row_of(column_names(self.config), values), IS_EXTRAPOLATING: reason is not None}
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

    def checkpoint(self) -> Checkpoint:
        """Returns the run's state and the configuration in a form that files can hold.

        Raises:
            NoEpisodeError: If no episode was started.
        """
        state = self.population.snapshot(0)
        if not self._is_running and not len(state.values):
            raise NoEpisodeError("state: expected an episode, but none was started; call reset() first.")
        return to_checkpoint(state, is_running=self._is_running)

    def save_state(self, path: str | os.PathLike[str]) -> None:
        """Writes the run's state to a file, for ``load_state`` and ``reset(options={"state": path})``.

        Raises:
            NoEpisodeError: If no episode was started.
            RunFilesError: If it cannot be written.
        """
        write_checkpoint(Path(path), self.checkpoint())

    def load_state(self, state: str | os.PathLike[str] | Checkpoint) -> None:
        """Goes on where ``save_state`` was, with the same surrogate; the next windows repeat bit for bit.

        Raises:
            ConfigError: If it was saved under another configuration.
            RunFilesError: If the file cannot be read, or is not whole.
        """
        checkpoint = opened_checkpoint(state)
        check_same_config(self.config, checkpoint.description.get("config", {}))
        self.restore(from_checkpoint(checkpoint, self.config))


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

    def _make_population(self) -> SurrogatePopulation:
        return SurrogatePopulation(self.model, self.config, self.num_envs, self.on_extrapolation)

    def snapshot(self, index: int) -> tuple[SurrogateState, bool]:
        """Returns a copy of run ``index``: what ``snapshot`` of the scalar environment returns."""
        return self.population.snapshot(index), bool(self._is_running[index])

    def restore(self, index: int, snapshot: tuple[SurrogateState, bool]) -> None:
        """Puts run ``index`` into the state of a snapshot; if it had ended, the next step starts a new one."""
        state, is_running = snapshot
        self.population.restore(index, state)
        self._is_running[index], self.is_started[index] = is_running, True

    def save_adapter(self, index: int, directory: Path) -> None:
        """Raises ConfigError: a surrogate's students have no adapters."""
        raise ConfigError(
            "save_adapter: expected a language model as student, got a surrogate, which has no adapter; "
            "save an adapter of the environment that it was fitted on."
        )

    def _first_infos(self, students: Sequence[int]) -> dict[str, Any]:
        infos: dict[str, Any] = self.population.first_infos(students)
        return infos

    def _train(self, ratios: Array, students: Sequence[int]) -> tuple[Array, Any, NDArray[np.bool_], dict[str, Any]]:
        infos = self.population.window_infos(ratios, students)
        truncations = infos["window"] >= self.config.windows
        if self.on_extrapolation == "truncate":
            truncations |= infos[IS_EXTRAPOLATING]
        return infos["reward/total"], False, truncations, infos

    def _observations(self) -> Batch:
        observations: Batch = self.population.observations()
        return observations


def _opened(file: str | os.PathLike[str] | SurrogateModel) -> SurrogateModel:
    return file if isinstance(file, SurrogateModel) else SurrogateModel.load(os.fspath(file))


def surrogate_config(file: str | os.PathLike[str], **changes: Any) -> SurrogateConfig:
    """Returns the configuration of a fitted surrogate, for runs and trainings of it.

    Args:
        file: File of ``atesd fit-surrogate``.
        **changes: ``on_extrapolation``, and any of ``REWARD_FIELDS``.

    Raises:
        ConfigError: If the file holds no surrogate, or a field is refused.
        RunFilesError: If the file cannot be read.
    """
    runs = SurrogateModel.load(os.fspath(file)).config
    shared = {name: getattr(runs, name) for name in RunConfig.names()}
    return SurrogateConfig(**shared, file=os.fspath(file)).replace(**changes)


def _changed(config: RunConfig, fields: dict[str, Any]) -> RunConfig:
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
        raise ConfigError(
            f"on_extrapolation: expected 'truncate', 'warn' or 'raise', got {on_extrapolation!r}; pass one of these."
        )
    return on_extrapolation


def make_vector(num_envs: int = 1, **arguments: Any) -> SurrogateExposureVectorEnv:
    """Vector entry point of ``ATESD-Surrogate-v0``."""
    return SurrogateExposureVectorEnv(num_envs=num_envs, **arguments)
