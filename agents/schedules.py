"""Controllers that learn nothing: a fixed ratio, a random one, and one that moves with the run's progress."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from agents.base import Agent
from atesd_env.errors import ConfigError
from atesd_env.statistics import FEATURE_NAMES

_PROGRESS = FEATURE_NAMES.index("progress")


class FixedSchedule(Agent):
    """The same reveal ratio in every window; 1 is plain OPSD (arXiv 2601.18734).

    Args:
        env: The environment.
        seed: Seed of the run.
        ratio: The reveal ratio of every group, in [0, 1].

    Raises:
        ConfigError: If the ratio is outside [0, 1].
    """

    def __init__(self, env: gymnasium.Env[Any, Any], seed: int = 0, *, ratio: float = 1.0) -> None:
        super().__init__(env, seed)
        self.ratio = _checked_ratio("ratio", ratio)

    def predict(
        self,
        observation: NDArray[np.float32],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.float32], Any]:
        """Returns the fixed ratio, float32 [groups] or [n, groups]."""
        return _spread(np.full(np.shape(observation)[:-1], self.ratio), self.groups), state

    def options(self) -> dict[str, Any]:
        return {"ratio": self.ratio}


class RandomSchedule(Agent):
    """Ratios drawn uniformly from [0, 1], anew in each window and for each group (the paper's random exposure)."""

    def predict(
        self,
        observation: NDArray[np.float32],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.float32], Any]:
        """Returns random ratios, float32 [groups] or [n, groups]; the mean, 0.5, if deterministic."""
        shape = (*np.shape(observation)[:-1], self.groups)
        ratios = np.full(shape, 0.5) if deterministic else self.rng.random(shape)
        return ratios.astype(np.float32), state


class LinearSchedule(Agent):
    """A ratio that moves in a straight line with the run's progress, the first feature of the observation.

    The first window has ``start``; the last of W windows is decided at progress (W - 1) / W, so ``end`` is reached in
    the limit.

    Args:
        env: The environment.
        seed: Seed of the run.
        start: Reveal ratio at progress 0, in [0, 1].
        end: Reveal ratio at progress 1, in [0, 1].

    Raises:
        ConfigError: If a ratio is outside [0, 1].
    """

    def __init__(self, env: gymnasium.Env[Any, Any], seed: int = 0, *, start: float = 0.0, end: float = 1.0) -> None:
        super().__init__(env, seed)
        self.start = _checked_ratio("start", start)
        self.end = _checked_ratio("end", end)

    def predict(
        self,
        observation: NDArray[np.float32],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.float32], Any]:
        """Returns ``start + (end - start) * progress``, float32 [groups] or [n, groups]."""
        progress = np.asarray(observation, dtype=np.float64)[..., _PROGRESS]
        return _spread(self.start + (self.end - self.start) * progress, self.groups), state

    def options(self) -> dict[str, Any]:
        return {"start": self.start, "end": self.end}


def _spread(ratios: NDArray[np.float64], groups: int) -> NDArray[np.float32]:
    """Gives every group the same ratio: [...] -> float32 [..., groups]."""
    return np.repeat(np.asarray(ratios, dtype=np.float32)[..., None], groups, axis=-1)


def _checked_ratio(name: str, ratio: float) -> float:
    if isinstance(ratio, bool) or not isinstance(ratio, int | float | np.number) or not 0.0 <= ratio <= 1.0:
        raise ConfigError(f"{name}: expected a reveal ratio in [0, 1], got {ratio!r}.")
    return float(ratio)
