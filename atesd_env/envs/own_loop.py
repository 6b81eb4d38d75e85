"""What a controller is told in a training loop of one's own: the observation and the reward, made of the same columns as a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from atesd_env.config import RunConfig
from atesd_env.envs.columns import Row
from atesd_env.envs.observation import RunningStatistics, advance, initial_statistics, observation
from atesd_env.envs.reward import reward_parts
from atesd_env.errors import ConfigError

MEASURED = (
    "exposure/reveal_ratio",
    "student/loss",
    "student/mismatch",
    "student/self_confidence",
    "student/entropy",
    "student/top1_disagreement",
    "student/grad_norm",
    "teacher/entropy",
    "rollout/success_rate",
    "rollout/length",
    "rollout/truncation_rate",
    "probe/nll",
    "probe/grounded",
)
"""The columns of a window that a loop of one's own must measure; the rest of the statistics is made of them."""


@dataclass(frozen=True)
class LoopStatistics:
    """What is known of a run before a window, and what the window before it was worth.

    Attributes:
        config: How long the run is, how it is averaged and how it is paid.
        running: The statistics behind the observation.
        probe_nll: Latest probe NLL, nats a token.
        row: The last window's columns, reward included; None before the first window.
    """

    config: RunConfig
    running: RunningStatistics
    probe_nll: float
    row: Row | None = None

    @classmethod
    def begin(cls, probe_nll: float, config: RunConfig | None = None, **fields: Any) -> Self:
        """Returns the statistics before the first window.

        Args:
            probe_nll: The base model's probe NLL, nats a token.
            config: A configuration whose windows, lengths and reward hold; None takes those of every run.
            **fields: Fields of it to change, such as ``windows=20`` and ``max_new_tokens=1024``.

        Raises:
            ConfigError: If a field is unknown, or a value is refused.
        """
        return cls((config or RunConfig()).replace(**fields), initial_statistics(float(probe_nll)), float(probe_nll))

    @property
    def observation(self) -> NDArray[np.float32]:
        """What a controller sees, float32 [num_features] (``observation.FEATURES``)."""
        return observation(self.running)

    @property
    def reward(self) -> float:
        """Reward of the last window, nats a token; 0 before the first."""
        return 0.0 if self.row is None else float(self.row["reward/total"] or 0.0)

    @property
    def is_last(self) -> bool:
        """Whether the run's windows are used up."""
        return self.running.num_windows >= self.config.windows

    def after(self, measured: Mapping[str, Any]) -> Self:
        """Returns the statistics after one more window.

        Args:
            measured: What was measured in it: ``MEASURED``, and whatever else is to stand in the row.

        Raises:
            ConfigError: If one of ``MEASURED`` is missing or no number.
        """
        for name in MEASURED:
            if not isinstance(measured.get(name), int | float | np.number):
                raise ConfigError(
                    f"{name}: expected a number that was measured in the window, got {measured.get(name)!r}; measure all of "
                    f"{', '.join(MEASURED)} (docs/your_own_loop.md)."
                )
        numbers = {name: float(measured[name]) for name in MEASURED}
        paid = reward_parts(self.probe_nll, numbers["probe/nll"], numbers["probe/grounded"], self.config)
        row = {**measured, **numbers, **paid, "window": self.running.num_windows + 1}
        running = advance(
            self.running,
            row,
            windows=self.config.windows,
            max_new_tokens=self.config.max_new_tokens,
            ema_coefficient=self.config.ema_coefficient,
        )
        return dataclasses.replace(self, running=running, probe_nll=numbers["probe/nll"], row=row)
