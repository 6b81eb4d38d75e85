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
from agents.options import checked_count, checked_ratio
from atesd_env.envs.observation import FEATURE_NAMES
from atesd_env.errors import ConfigError

_PROGRESS = FEATURE_NAMES.index("progress")
_PROGRESS_TOLERANCE = 1e-6


class Schedule(Agent):
    """A controller that looks at nothing but the run's progress; a subclass says what it does in ``ratios_at``."""

    def ratios_at(self, progress: NDArray[np.float64], *, deterministic: bool) -> NDArray[np.float64] | float:
        """Returns the ratios at a progress in [0, 1], [..., 1]: [..., groups], or what broadcasts to it."""
        raise NotImplementedError

    def predict(
        self,
        observation: NDArray[np.float32],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.float32], Any]:
        """Returns the ratios that ``ratios_at`` gives, float32 [groups] or [n, groups]."""
        progress = np.asarray(observation, dtype=np.float64)[..., _PROGRESS, None]
        ratios = self.ratios_at(progress, deterministic=deterministic)
        return np.broadcast_to(ratios, (*progress.shape[:-1], self.groups)).astype(np.float32), state


class FixedSchedule(Schedule):
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
        self.ratio = checked_ratio("ratio", ratio)

    def ratios_at(self, progress: NDArray[np.float64], *, deterministic: bool) -> NDArray[np.float64] | float:
        """Returns the fixed ratio."""
        return self.ratio


class RandomSchedule(Schedule):
    """Ratios drawn uniformly from [0, 1], anew in each window and for each group (the paper's random exposure)."""

    def ratios_at(self, progress: NDArray[np.float64], *, deterministic: bool) -> NDArray[np.float64] | float:
        """Returns random ratios, [..., groups]; their mean, 0.5, if deterministic."""
        return 0.5 if deterministic else self.rng.random((*progress.shape[:-1], self.groups))


class LinearSchedule(Schedule):
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
        self.start = checked_ratio("start", start)
        self.end = checked_ratio("end", end)

    def ratios_at(self, progress: NDArray[np.float64], *, deterministic: bool) -> NDArray[np.float64] | float:
        """Returns ``start + (end - start) * progress``, [..., 1]."""
        return self.start + (self.end - self.start) * progress


class CosineSchedule(LinearSchedule):
    """A ratio that moves along half a cosine with the run's progress: slowly at both ends, fastest in the middle.

    Arguments and errors: those of ``LinearSchedule``.
    """

    def ratios_at(self, progress: NDArray[np.float64], *, deterministic: bool) -> NDArray[np.float64] | float:
        """Returns ``cosine_ratio(progress, start, end)``, [..., 1]."""
        return cosine_ratio(progress, self.start, self.end)


class StagedSchedule(Schedule):
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
        self.ratios = tuple(checked_ratio("ratios", ratio) for ratio in ratios)

    def ratios_at(self, progress: NDArray[np.float64], *, deterministic: bool) -> NDArray[np.float64] | float:
        """Returns the stage's ratio, [..., 1]."""
        # Progress is float32: one third of the way is a little less than 1/3 or a little more.
        stages = np.floor(progress * len(self.ratios) + _PROGRESS_TOLERANCE).astype(int)
        return np.asarray(np.take(self.ratios, stages, mode="clip"))


class BinomialSchedule(Schedule):
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
        self.start, self.end = checked_ratio("start", start), checked_ratio("end", end)
        self.after = checked_ratio("after", after)
        self.annealed_ratio = checked_ratio("annealed_ratio", annealed_ratio)
        if self.annealed_ratio == 0.0:
            raise ConfigError(
                f"annealed_ratio: expected a share of the run above 0, got {annealed_ratio!r}; pass a number above 0."
            )
        self.num_segments = checked_count("num_segments", num_segments, least=1)

    def mean_ratio(self, progress: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns p at each progress in [0, 1]."""
        annealed = progress / self.annealed_ratio
        is_annealed = annealed < 1.0 - _PROGRESS_TOLERANCE
        return np.where(is_annealed, cosine_ratio(np.minimum(annealed, 1.0), self.start, self.end), self.after)

    def ratios_at(self, progress: NDArray[np.float64], *, deterministic: bool) -> NDArray[np.float64] | float:
        """Returns random ratios, [..., groups]; their mean p, [..., 1], if deterministic."""
        means = self.mean_ratio(progress)
        if deterministic:
            return means
        shown = self.rng.binomial(self.num_segments, means, (*means.shape[:-1], self.groups))
        return np.asarray(shown / self.num_segments)


def cosine_ratio(progress: NDArray[np.float64], start: float, end: float) -> NDArray[np.float64]:
    """Returns ``end + (start - end) (1 + cos(pi progress)) / 2``: ``start`` at progress 0, ``end`` at 1.

    >>> cosine_ratio(np.array([0.0, 0.5, 1.0]), 1.0, 0.0)
    array([1. , 0.5, 0. ])
    """
    return np.asarray(end + 0.5 * (start - end) * (1.0 + np.cos(np.pi * progress)), dtype=np.float64)
