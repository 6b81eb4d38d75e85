"""The contract of a baseline, and the one that trains nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import gymnasium
import numpy as np

from atesd.experiments.baselines.environment import BaselineEnv, WindowTraining
from atesd_env.errors import ConfigError

Callback = Callable[[dict[str, Any], dict[str, Any]], bool | None]
"""Called after each window; returning False stops."""


class Baseline:
    """A way to train a student that takes no reveal ratio; it stands where an agent stands in a run.

    Args:
        env: A ``BaselineEnv``, wrapped or not.
        seed: Seed of the run: problems and starting adapter are those of a controller's run with this seed.

    Raises:
        ConfigError: If the environment is another one.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], seed: int = 0) -> None:
        inner = getattr(env, "unwrapped", env)
        if not isinstance(inner, BaselineEnv):
            raise ConfigError(
                f"agent: expected a controller, which takes reveal ratios, got the baseline {type(self).__name__}, which takes "
                "none; name it in `atesd run` or `atesd compare` (in Python: atesd.experiments.execute)."
            )
        self.env = env
        self.measured = inner
        self.seed = seed

    def learn(self, total_timesteps: int, callback: Callback | None = None) -> Self:
        """Trains one student for some windows.

        Args:
            total_timesteps: Windows to make.
            callback: Called after each window.
        """
        raise NotImplementedError

    def finish_window(self, training: WindowTraining, callback: Callback | None) -> bool:
        """Measures what was trained, which writes the window's row; returns whether to go on."""
        self.measured.training = training
        _, _, terminated, truncated, info = self.env.step(np.zeros(self.env.action_space.shape, dtype=np.float32))
        wants_more = callback is None or callback({"self": self, "infos": [info]}, {}) is not False
        return wants_more and not (terminated or truncated)


class BaseModel(Baseline):
    """No training at all: what the base model (or the starting adapter) scores, measured in every window."""

    def learn(self, total_timesteps: int, callback: Callback | None = None) -> Self:
        self.env.reset(seed=self.seed)
        for _ in range(total_timesteps):
            if not self.finish_window(WindowTraining(), callback):
                break
        return self
