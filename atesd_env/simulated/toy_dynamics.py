"""How the closed-form learners learn: pure functions over S students and their G difficulty groups, float64 [S, G].

Exponentials and powers are taken entry by entry with Python's own ``math``: numpy's vector instructions round
differently on other processors and batch sizes, and student k of a batch shall be the student alone, bit for bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from atesd_env.config import ToyConfig
from atesd_env.envs.observation import Number, each
from atesd_env.streams import numpy_stream

Levels = NDArray[np.float64]
"""A number for each student and difficulty group, [S, G]."""

INITIAL_NLL = 4.0
"""Probe NLL before the first window, in nats per token."""
FINAL_NLL = 0.5
"""Probe NLL that the learner approaches and never passes."""
BEST_RATE = 0.02
"""Share of the distance to ``FINAL_NLL`` that one update covers at the best ratio."""
BUMP_WIDTH = 0.15
"""Standard deviation of the bump, as a reveal ratio: this far from the best ratio learning is 0.61 times as fast."""
IMMEDIATE_SHARE = 0.2
"""Kind "delayed": share of the speed that the window's own ratio decides; the skill decides the rest."""
SKILL_RATE = 0.5
"""Kind "delayed": share of the way to what is practised that the skill goes in one update."""


def bump(ratio: float, peak: float) -> float:
    """Returns how well a reveal ratio suits a learner that ``peak`` suits best, in (0, 1].

    >>> bump(0.4, peak=0.4)
    1.0
    """
    return math.exp(-0.5 * ((ratio - peak) / BUMP_WIDTH) ** 2)


def share_left(nll: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the share of the way from ``INITIAL_NLL`` to ``FINAL_NLL`` that a learner still has before it, 0..1."""
    return (nll - FINAL_NLL) / (INITIAL_NLL - FINAL_NLL)


def mismatch(ratio: Number, to_learn: Number) -> Number:
    """Returns the teacher-student mismatch, which grows with the ratio and falls with the share that is left to learn."""
    return (0.5 + 0.5 * ratio) * (0.5 + 0.5 * to_learn)


def grounded_score(ratio: Number) -> Number:
    """Returns the teacher-grounded score, which grows with the ratio."""
    return -0.3 + 0.1 * ratio


def group_ratios(ratio: float, config: ToyConfig) -> NDArray[np.float64]:
    """Returns a ratio of the configuration as it is for each group, [G]: spread evenly, kept inside [0, 1]. Read-only.

    The hardest group's is ``toy_group_spread`` above the easiest one's, the middle is ``ratio``; one group is the middle.
    """
    return _spread_ratios(ratio, config.toy_group_spread, config.groups)


@functools.lru_cache(maxsize=1024)
def _spread_ratios(ratio: float, spread: float, groups: int) -> NDArray[np.float64]:
    offsets = np.linspace(-0.5, 0.5, groups) if groups > 1 else np.zeros(1)
    ratios = np.clip(ratio + spread * offsets, 0.0, 1.0)
    ratios.flags.writeable = False
    return ratios


def fastest_ratios(nll: Levels, config: ToyConfig) -> Levels:
    """Returns the ratios that learn fastest in the next window, [S, G]; for kind "delayed", those that train the skill.

    Args:
        nll: Noise-free probe NLL before the window.
        config: The environment's configuration.
    """
    start = group_ratios(config.toy_best_ratio, config)
    if config.toy_kind != "drift":
        return start + np.zeros(nll.shape)
    return start + (group_ratios(config.toy_final_ratio, config) - start) * (1.0 - share_left(nll))


def next_levels(nll: Levels, skill: Levels, ratios: Levels, config: ToyConfig) -> tuple[Levels, Levels]:
    """Returns (nll, skill) after one more hold window.

    Args:
        nll: Noise-free probe NLL before the window.
        skill: Skill before it, 0..1; only kind "delayed" has one, elsewhere it stays as it is.
        ratios: Reveal ratios, each in [0, 1].
        config: The environment's configuration.
    """
    num_updates = config.hold_window
    suits = _bumps(ratios, fastest_ratios(nll, config))
    if config.toy_kind == "delayed":
        tempted = _bumps(ratios, group_ratios(config.toy_tempting_ratio, config) + np.zeros(nll.shape))
        speed = IMMEDIATE_SHARE * tempted + (1.0 - IMMEDIATE_SHARE) * skill
        keep = each(lambda value: float((1.0 - BEST_RATE) ** (num_updates * value)), speed)
        skill = suits + (skill - suits) * skill_kept(config)
    else:
        keep = each(lambda value: float((1.0 - BEST_RATE * value) ** num_updates), suits)
    return FINAL_NLL + (nll - FINAL_NLL) * keep, skill


def skill_kept(config: ToyConfig) -> float:
    """Returns the share of a difference in skill that is left after a hold window."""
    return float((1.0 - SKILL_RATE) ** config.hold_window)


def noise(seeds: Sequence[int], windows: Sequence[int], nll: NDArray[np.float64], config: ToyConfig) -> Levels:
    """Returns the error of each student's probe measurement, [S], normal with the configured standard deviation.

    It depends on the run and the window only: two actions in one window meet the same standard normal number.

    Args:
        seeds: Seed of each student's run.
        windows: Number of each student's window; 0 is the measurement before the first.
        nll: Noise-free probe NLL, mean over groups, [S].
        config: The environment's configuration.
    """
    if config.toy_noise == 0.0 and config.toy_relative_noise == 0.0:
        return np.zeros(len(seeds))
    normal = [
        numpy_stream(seed, "toy noise", window).standard_normal() for seed, window in zip(seeds, windows, strict=True)
    ]
    return np.asarray((config.toy_noise + config.toy_relative_noise * nll) * np.array(normal))


def group_mean(levels: Levels) -> NDArray[np.float64]:
    """Returns the mean over groups, [S]."""
    return np.asarray(np.add.reduce(levels, axis=1) / levels.shape[1])


def _bumps(ratios: Levels, peaks: Levels) -> Levels:
    values = map(bump, ratios.ravel().tolist(), peaks.ravel().tolist())
    return np.fromiter(values, np.float64, ratios.size).reshape(ratios.shape)
