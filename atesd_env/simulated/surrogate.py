"""``ATESD-Surrogate-v0``: an environment fitted to logged runs, thousands of windows a second.

For trying and training controllers, not for judging them: it is as good as its model, it knows only where its runs have
been, and its students never break. It says so where it is asked beyond that.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from atesd_env.config import RunConfig, SurrogateConfig
from atesd_env.envs.env import ExposureEnv
from atesd_env.envs.vector import ExposureVectorEnv
from atesd_env.errors import ConfigError
from atesd_env.simulated.surrogate_model import SurrogateModel
from atesd_env.simulated.surrogate_population import ExtrapolationWarning, OnExtrapolation, SurrogatePopulation

__all__ = ["ExtrapolationWarning", "SurrogateExposureEnv", "SurrogateExposureVectorEnv"]

REWARD_FIELDS = RunConfig.names("is_reward")
"""Configuration fields that may differ from those of the runs: they are no part of what was fitted."""


class SurrogateExposureEnv(ExposureEnv[SurrogatePopulation]):
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
        file: File of ``atesd fit-surrogate``, a packaged surrogate's name (``packaged_surrogates``), or a model.
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

    def __init__(
        self,
        file: str | os.PathLike[str] | SurrogateModel,
        render_mode: str | None = None,
        *,
        on_extrapolation: OnExtrapolation = "truncate",
        **fields: Any,
    ) -> None:
        self.model = _opened(file)
        self.on_extrapolation = _checked_policy(on_extrapolation)
        super().__init__(_changed(self.model.config, fields), render_mode)

    def _make_population(self) -> SurrogatePopulation:
        return SurrogatePopulation(self.model, self.config, 1, self.on_extrapolation)


class SurrogateExposureVectorEnv(ExposureVectorEnv[SurrogatePopulation]):
    """K runs of a surrogate side by side, all their windows made at once.

    Run k is the scalar environment reset with its seed, to rounding. ``infos`` also has ``surrogate/is_extrapolating`` and
    ``surrogate/reason``.

    Args:
        file: As there.
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
        self.on_extrapolation = _checked_policy(on_extrapolation)
        super().__init__(_changed(self.model.config, fields), num_envs, render_mode)

    def _make_population(self) -> SurrogatePopulation:
        return SurrogatePopulation(self.model, self.config, self.num_envs, self.on_extrapolation)


def _opened(file: str | os.PathLike[str] | SurrogateModel) -> SurrogateModel:
    return file if isinstance(file, SurrogateModel) else SurrogateModel.load(os.fspath(file))


def surrogate_config(file: str | os.PathLike[str], **changes: Any) -> SurrogateConfig:
    """Returns the configuration of a fitted surrogate, for runs and trainings of it.

    Args:
        file: File of ``atesd fit-surrogate``, or a packaged surrogate's name.
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
