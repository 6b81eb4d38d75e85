"""How the closed-form learners learn: pure functions over S students and their G difficulty groups, float64 [S, G].

One student with one group may be plain numbers instead: the same arithmetic and bits, many times faster. Exponentials and powers
are taken entry by entry with Python's own: numpy's vector instructions round differently, and student k of a batch shall be the
student alone, bit for bit.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atesd_env.config import ToyConfig
from atesd_env.envs.observation import Number, each
from atesd_env.simulated.many_streams import first_normals
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


def plain(values: Any) -> Any:
    """Returns an array as it is, but one of a single entry, or a number, as a plain number."""
    return values.item() if isinstance(values, np.ndarray) and values.size == 1 else values


def power(base: Any, exponent: Any) -> Any:
    """Returns ``base ** exponent``, entry by entry with Python's bits; one of the two may be an array."""
    is_array = isinstance(base, np.ndarray), isinstance(exponent, np.ndarray)
    if not any(is_array):
        return base**exponent
    array = base if is_array[0] else exponent
    bases, exponents = (
        v.ravel().tolist() if is_one else itertools.repeat(v)
        for v, is_one in zip((base, exponent), is_array, strict=True)
    )
    return np.fromiter(map(pow, bases, exponents), np.float64, array.size).reshape(array.shape)


def bump(ratio: Any, peak: Any) -> Any:
    """Returns how well a reveal ratio suits a learner that ``peak`` suits best, in (0, 1].

    >>> bump(0.4, peak=0.4)
    1.0
    """
    return each(math.exp, -0.5 * power((ratio - peak) / BUMP_WIDTH, 2))


def share_left(nll: Number) -> Number:
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


@functools.lru_cache(maxsize=1024)
def _peaks(ratio: float, spread: float, groups: int) -> Any:
    return plain(_spread_ratios(ratio, spread, groups))


def fastest_ratios(nll: Any, config: ToyConfig) -> Any:
    """Returns the ratios that learn fastest in the next window, [S, G]; for kind "delayed", those that train the skill.

    Args:
        nll: Noise-free probe NLL before the window.
        config: The environment's configuration.
    """
    start = _peaks(config.toy_best_ratio, config.toy_group_spread, config.groups)
    if config.toy_kind != "drift":
        return start + 0.0 * nll
    final = _peaks(config.toy_final_ratio, config.toy_group_spread, config.groups)
    return start + (final - start) * (1.0 - share_left(nll))


def next_levels(nll: Any, skill: Any, ratios: Any, config: ToyConfig) -> tuple[Any, Any]:
    """Returns (nll, skill) after one more hold window.

    Args:
        nll: Noise-free probe NLL before the window.
        skill: Skill before it, 0..1; only kind "delayed" has one, elsewhere it stays as it is.
        ratios: Reveal ratios, each in [0, 1].
        config: The environment's configuration.
    """
    num_updates = config.hold_window
    suits = bump(ratios, fastest_ratios(nll, config))
    if config.toy_kind == "delayed":
        tempted = bump(ratios, _peaks(config.toy_tempting_ratio, config.toy_group_spread, config.groups))
        speed = IMMEDIATE_SHARE * tempted + (1.0 - IMMEDIATE_SHARE) * skill
        keep = power(1.0 - BEST_RATE, num_updates * speed)
        skill = suits + (skill - suits) * skill_kept(config)
    else:
        keep = 1.0 - BEST_RATE * suits
        if num_updates > 1:
            keep = power(keep, num_updates)
    return FINAL_NLL + (nll - FINAL_NLL) * keep, skill


def skill_kept(config: ToyConfig) -> float:
    """Returns the share of a difference in skill that is left after a hold window."""
    return float((1.0 - SKILL_RATE) ** config.hold_window)


def noise(seeds: Any, windows: Any, nll: Any, config: ToyConfig) -> Any:
    """Returns the error of each student's probe measurement, [S], normal with the configured standard deviation.

    It depends on the run and the window only: two actions in one window meet the same standard normal number.

    Args:
        seeds: Seed of each student's run, [S], or of the one.
        windows: Number of each student's window, [S], or of the one's; 0 is the measurement before the first.
        nll: Noise-free probe NLL, mean over groups, [S], or a number.
        config: The environment's configuration.
    """
    if config.toy_noise == 0.0 and config.toy_relative_noise == 0.0:
        return 0.0 * nll
    if isinstance(windows, int):
        return (config.toy_noise + config.toy_relative_noise * nll) * _normal(seeds, windows)
    if len(windows) <= _FEW:
        normals = np.array([_normal(int(seed), int(window)) for seed, window in zip(seeds, windows, strict=True)])
    else:
        normals = first_normals(seeds, "toy noise", np.asarray(windows))
    return (config.toy_noise + config.toy_relative_noise * nll) * normals


def _normal(seed: int, window: int) -> float:
    if window == 0:  # many runs are only begun
        return numpy_stream(seed, "toy noise", 0).standard_normal()
    block, place = divmod(window - 1, _BLOCK)
    return _normals(seed, block)[place]


_BLOCK = 128
_FEW = 32  # students, up to which blocks of windows are faster than a window of all


@functools.lru_cache(maxsize=256)
def _normals(seed: int, block: int) -> list[float]:
    """Returns the normal numbers of ``_BLOCK`` windows of a run: together they cost what twenty cost alone."""
    windows = np.arange(_BLOCK) + block * _BLOCK + 1
    normals: list[float] = first_normals([seed] * _BLOCK, "toy noise", windows).tolist()
    return normals


def group_mean(levels: Any) -> Any:
    """Returns the mean over groups, [S], or the number itself where levels are one."""
    return np.add.reduce(levels, axis=1) / levels.shape[1] if isinstance(levels, np.ndarray) else levels
