"""Controllers that learn nothing: a fixed ratio, a random one, and those that move with the run's progress.

Progress is the first feature of the observation: the first window of W is decided at 0, the last at (W - 1) / W, so what
a schedule has at progress 1 is reached in the limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from agents.base import Agent
from atesd_env.envs.observation import FEATURE_NAMES
from atesd_env.errors import ConfigError

_PROGRESS = FEATURE_NAMES.index("progress")
_PROGRESS_TOLERANCE = 1e-6


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
    """A ratio that moves in a straight line with the run's progress.

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
        return _spread(self.start + (self.end - self.start) * _progress_of(observation), self.groups), state

    def options(self) -> dict[str, Any]:
        return {"start": self.start, "end": self.end}


class CosineSchedule(LinearSchedule):
    """A ratio that moves along half a cosine with the run's progress: slowly at both ends, fastest in the middle.

    Arguments and errors: those of ``LinearSchedule``.
    """

    def predict(
        self,
        observation: NDArray[np.float32],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.float32], Any]:
        """Returns ``cosine_ratio(progress, start, end)``, float32 [groups] or [n, groups]."""
        return _spread(cosine_ratio(_progress_of(observation), self.start, self.end), self.groups), state


class StagedSchedule(Agent):
    """Several ratios, one after the other, in stages of equal length.

    Stage k of n (from 0) covers the progress from k/n up to, not including, (k + 1)/n. Two stages such as 0.5, 0.25 are
    QuestA's hints (arXiv 2507.13266), which it shows to the student.

    Args:
        env: The environment.
        seed: Seed of the run.
        ratios: Reveal ratios in [0, 1], at least one.

    Raises:
        ConfigError: If there is none, or one is outside [0, 1].
    """

    def __init__(self, env: gymnasium.Env[Any, Any], seed: int = 0, *, ratios: Sequence[float] = (0.5, 1.0)) -> None:
        super().__init__(env, seed)
        if isinstance(ratios, str) or not isinstance(ratios, Sequence) or not ratios:
            raise ConfigError(
                f"ratios: expected a list of at least one reveal ratio, got {ratios!r}; pass such a list."
            )
        self.ratios = tuple(_checked_ratio("ratios", ratio) for ratio in ratios)

    def predict(
        self,
        observation: NDArray[np.float32],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.float32], Any]:
        """Returns the stage's ratio, float32 [groups] or [n, groups]."""
        # Progress is float32: one third of the way is a little less than 1/3 or a little more.
        stages = np.floor(_progress_of(observation) * len(self.ratios) + _PROGRESS_TOLERANCE).astype(int)
        return _spread(np.asarray(self.ratios)[np.clip(stages, 0, len(self.ratios) - 1)], self.groups), state

    def options(self) -> dict[str, Any]:
        return {"ratios": list(self.ratios)}


class BinomialSchedule(Agent):
    """A random number of segments whose mean moves along a cosine: the hint schedule of UFT (arXiv 2505.16984).

    The ratio is K / n with K ~ Binomial(n, p), and p goes from ``start`` to ``end`` along half a cosine while the
    progress goes from 0 to ``annealed_ratio``; from there on p is ``after``. The defaults are UFT's: p from 0.95 to 0.05
    in 300 of 500 steps, then no hint. Three things differ: UFT shows its hint to the student, draws it for each problem
    (n is then the solution's own number of segments), and stands one step further on the cosine.

    Args:
        env: The environment.
        seed: Seed of the run and of the draws; each group draws for itself.
        start: Mean ratio p at progress 0, in [0, 1].
        end: Mean ratio p where the annealing ends, in [0, 1].
        annealed_ratio: Share of the run that is annealed, in (0, 1].
        after: Mean ratio p after it, in [0, 1].
        num_segments: Segments n of a draw, at least 1: the ratios are 0, 1/n .. 1. [ours]

    Raises:
        ConfigError: If an argument is out of range.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        seed: int = 0,
        *,
        start: float = 0.95,
        end: float = 0.05,
        annealed_ratio: float = 0.6,
        after: float = 0.0,
        num_segments: int = 5,
    ) -> None:
        super().__init__(env, seed)
        self.start, self.end = _checked_ratio("start", start), _checked_ratio("end", end)
        self.after = _checked_ratio("after", after)
        self.annealed_ratio = _checked_ratio("annealed_ratio", annealed_ratio)
        if self.annealed_ratio == 0.0:
            raise ConfigError(
                f"annealed_ratio: expected a share of the run above 0, got {annealed_ratio!r}; pass a number above 0."
            )
        if isinstance(num_segments, bool) or not isinstance(num_segments, int) or num_segments < 1:
            raise ConfigError(
                f"num_segments: expected a whole number from 1, got {num_segments!r}; pass such a number."
            )
        self.num_segments = num_segments

    def mean_ratio(self, progress: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns p at each progress in [0, 1]."""
        annealed = progress / self.annealed_ratio
        is_annealed = annealed < 1.0 - _PROGRESS_TOLERANCE
        return np.where(is_annealed, cosine_ratio(np.minimum(annealed, 1.0), self.start, self.end), self.after)

    def predict(
        self,
        observation: NDArray[np.float32],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.float32], Any]:
        """Returns random ratios, float32 [groups] or [n, groups]; their mean p if deterministic."""
        means = self.mean_ratio(_progress_of(observation))
        if deterministic:
            return _spread(means, self.groups), state
        shown = self.rng.binomial(self.num_segments, means[..., None], (*means.shape, self.groups))
        return (shown / self.num_segments).astype(np.float32), state

    def options(self) -> dict[str, Any]:
        names = ("start", "end", "annealed_ratio", "after", "num_segments")
        return {name: getattr(self, name) for name in names}


def cosine_ratio(progress: NDArray[np.float64], start: float, end: float) -> NDArray[np.float64]:
    """Returns ``end + (start - end) (1 + cos(pi progress)) / 2``: ``start`` at progress 0, ``end`` at 1.

    >>> cosine_ratio(np.array([0.0, 0.5, 1.0]), 1.0, 0.0)
    array([1. , 0.5, 0. ])
    """
    return np.asarray(end + 0.5 * (start - end) * (1.0 + np.cos(np.pi * progress)), dtype=np.float64)


def _progress_of(observation: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(observation, dtype=np.float64)[..., _PROGRESS]


def _spread(ratios: NDArray[np.float64], groups: int) -> NDArray[np.float32]:
    """Gives every group the same ratio: [...] -> float32 [..., groups]."""
    return np.repeat(np.asarray(ratios, dtype=np.float32)[..., None], groups, axis=-1)


def _checked_ratio(name: str, ratio: float) -> float:
    if isinstance(ratio, bool) or not isinstance(ratio, int | float | np.number) or not 0.0 <= ratio <= 1.0:
        raise ConfigError(f"{name}: expected a reveal ratio in [0, 1], got {ratio!r}; pass a number in that range.")
    return float(ratio)
