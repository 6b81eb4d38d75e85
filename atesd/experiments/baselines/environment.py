"""What a baseline is played in: a student that somebody else trains, measured window by window as a controller's is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from atesd_env.config import EnvConfig
from atesd_env.envs.columns import COLUMNS, HEALTH_COLUMNS, Row, group_columns
from atesd_env.envs.contract import Observation, make_spaces
from atesd_env.envs.observation import FEATURE_NAMES
from atesd_env.envs.reward import learning_progress
from atesd_env.errors import ConfigError, NoEpisodeError
from atesd_env.population.collapse import collapse_reason
from atesd_env.population.environments import TeacherExposureEnv
from atesd_env.population.population import Population


@dataclass(frozen=True)
class WindowTraining:
    """What a baseline did in one window.

    Attributes:
        num_updates: Optimizer steps.
        num_trained_tokens: Answer tokens that the updates learned from.
        measured: The row's columns (``COLUMNS``) that have a meaning for this baseline, as means over the updates. The loss
            is each baseline's own, so not to be compared with another's.
        rollout_sec: Wall time of sampling.
        update_sec: Wall time of everything else.
    """

    num_updates: int = 0
    num_trained_tokens: int = 0
    measured: Row = field(default_factory=dict)
    rollout_sec: float = 0.0
    update_sec: float = 0.0


class BaselineEnv(gymnasium.Env[Observation, np.ndarray[Any, Any]]):
    """One student that is trained between the steps; a step measures it and makes the window's row.

    The action means nothing. Observations are zeros, since nothing decides by them. The reward of a step is the learning
    progress (``-collapse_nll`` if the student breaks). In the row, what needs a teacher or a reveal ratio is None, and so is
    ``reward/total``, which needs the teacher-grounded score.

    Args:
        env: The environment whose student, problems, probe and configuration are used.

    Attributes:
        config: The configuration.
        feature_names: Names of the observation's entries.
        training: What was done since the last step; the baseline sets it before it steps.
        num_trained_tokens: Answer tokens that the last window's updates learned from.
        timings: Seconds that the last window took, by column name.

    Raises:
        ConfigError: If the environment has no language model as its student.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own convention)

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        inner = env.unwrapped
        if not isinstance(inner, TeacherExposureEnv):
            raise ConfigError(
                f"baseline: expected an environment whose student is a language model, got {type(inner).__name__}, which "
                "has none to train; choose another --env, such as ATESD-Tiny-v0."
            )
        self._inner = inner
        self.config: EnvConfig = inner.config
        self.feature_names = FEATURE_NAMES
        self.observation_space, self.action_space = make_spaces(inner.config)
        self.training: WindowTraining | None = None
        self.num_trained_tokens = 0
        self.timings: dict[str, float] = {}

    @property
    def population(self) -> Population:
        """The population of one that is measured; its adapter is what the baseline trains."""
        return self._inner.population

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts a new run from the base model; arguments as those of ``TeacherExposureEnv.reset``."""
        self.training = None
        self._inner.reset(seed=seed, options=options)
        return self._observation(), self.population.first_info(0)

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Measures the student as ``training`` has left it.

        Raises:
            NoEpisodeError: If nothing was trained since the last step.
        """
        if self.training is None:
            raise NoEpisodeError("step: expected a baseline that trained a window, got none; set training first.")
        started = time.perf_counter()
        training, self.training = self.training, None
        row = self._row(training)
        run = self.population.runs[0]
        run.rows.append(row)
        probe_sec = time.perf_counter() - started
        self.num_trained_tokens = training.num_trained_tokens
        self.timings = {
            "time/rollout_sec": training.rollout_sec,
            "time/update_sec": training.update_sec,
            "time/probe_sec": probe_sec,
            "time/window_sec": training.rollout_sec + training.update_sec + probe_sec,
            "time/controller_sec": 0.0,
        }
        terminated = run.broken is not None
        truncated = not terminated and len(run.rows) >= self.config.windows
        reward = -self.config.collapse_nll if terminated else float(row["reward/progress"] or 0.0)
        info: dict[str, Any] = dict(row) | ({"termination_reason": run.broken} if terminated else {})
        return self._observation(), reward, terminated, truncated, info

    def _row(self, training: WindowTraining) -> Row:
        population, run = self.population, self.population.runs[0]
        number = len(run.rows) + 1
        run.num_updates += training.num_updates
        nll_before = run.probe_nll
        probed = population.measure_probe(0, number)
        run.broken = collapse_reason(run.probe_nll, run.initial_nll, self.config.collapse_nll)
        row: Row = {column.name: None for column in (*COLUMNS, *group_columns(self.config.groups), *HEALTH_COLUMNS)}
        return row | {
            "window": number,
            "update": run.num_updates,
            "rollout/num_tokens": 0,
            **training.measured,
            **probed,
            "reward/progress": learning_progress(nll_before, run.probe_nll, self.config.progress),
        }

    def save_adapter(self, directory: Path) -> None:
        """Writes the student's adapter as a plain peft adapter directory."""
        self.population.save_adapter(0, directory)

    def _observation(self) -> Observation:
        return np.zeros(len(FEATURE_NAMES), dtype=np.float32)
