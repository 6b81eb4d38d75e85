"""The row of a closed-form window, for S students at once: what it says of the student, and of the optimum.

Columns of one student (S = 1) are plain numbers and not arrays: the same arithmetic and bits, three times faster.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atesd_env.config import ToyConfig
from atesd_env.envs.columns import Columns, group_columns, group_statistics, toy_columns
from atesd_env.envs.observation import each
from atesd_env.envs.reward import reward_parts
from atesd_env.simulated.toy_dynamics import Levels, grounded_score, group_mean, mismatch, share_left
from atesd_env.simulated.toy_optimum import optimum


def plain(values: NDArray[Any]) -> Any:
    """Returns an array [S] as it is, but one entry as a plain number."""
    return values.item() if values.size == 1 else values


def window_columns(
    windows: NDArray[np.int64],
    ratios: Levels,
    nll: Levels,
    measured: tuple[NDArray[np.float64], NDArray[np.float64]],
    config: ToyConfig,
) -> Columns:
    """Returns the columns of ``COLUMNS``, ``group_columns`` and ``group_statistics`` in order.

    Args:
        windows: Number of each student's window, from 1, [S].
        ratios: Reveal ratios [S, groups].
        nll: Noise-free probe NLL after the window, [S, groups].
        measured: Measured probe NLL before the window and after it, [S] each.
        config: The environment's configuration.
    """
    mean_nll = group_mean(nll)
    window, ratio, success = plain(windows), plain(group_mean(ratios)), each(math.exp, plain(-mean_nll))
    before, after = (plain(values) for values in measured)
    length, entropy, distance = _rollout_statistics(ratio, plain(share_left(mean_nll)), success, config)
    grounded = grounded_score(ratio)
    return {
        "window": window,
        "update": window * config.hold_window,
        "exposure/reveal_ratio": ratio,
        "exposure/shown_ratio": ratio,
        "exposure/cut_rate": 0.0 * ratio,
        "student/loss": distance,
        "student/mismatch": distance,
        "student/self_confidence": each(math.exp, -entropy),
        "student/entropy": entropy,
        "student/top1_disagreement": 1.0 - each(math.exp, -distance),
        "student/grad_norm": distance,
        "teacher/entropy": entropy * (1.0 - 0.5 * ratio),
        "rollout/success_rate": success,
        "rollout/length": length,
        "rollout/truncation_rate": 0.0 * ratio,
        "rollout/num_tokens": _rounded(length * config.num_rollouts * config.hold_window),
        "probe/nll": after,
        "probe/grounded": grounded,
        "probe/accuracy": _accuracy(window, success, config),
        "probe/pass_at_k": each(lambda rate: _pass_at_k(rate, config.probe_pass_k), success),
        **reward_parts(before, after, grounded, config),
        **{column.name: plain(value) for column, value in zip(group_columns(config.groups), ratios.T, strict=False)},
        **_by_group(ratios, nll, config),
    }


def _rollout_statistics(ratio: Any, to_learn: Any, success: Any, config: ToyConfig) -> tuple[Any, Any, Any]:
    """Returns what stands for ``GROUP_STATISTICS`` at a ratio, a share that is left to learn and a rate of success."""
    length = config.max_new_tokens * (0.75 - 0.5 * success)
    return length, 0.2 + 0.8 * to_learn, mismatch(ratio, to_learn)


def _by_group(ratios: Levels, nll: Levels, config: ToyConfig) -> Columns:
    columns = group_statistics(config.groups)
    if not columns:
        return {}
    statistics = _rollout_statistics(ratios, share_left(nll), each(math.exp, -nll), config)
    values = np.stack(statistics, axis=-1).reshape(len(nll), -1).T
    return {column.name: plain(value) for column, value in zip(columns, values, strict=True)}


def optimum_columns(windows: NDArray[np.int64], nll: Levels, skill: Levels, config: ToyConfig) -> Columns:
    """Returns where S students stand beside the optimal policy (``toy_columns``).

    Args:
        windows: Windows that each student has behind it, [S].
        nll: Noise-free probe NLL, [S, G].
        skill: Skill, [S, G].
        config: The environment's configuration.
    """
    best = optimum(config)
    left = config.windows - windows
    ratios = best.best_ratios(nll, left)
    values = [
        np.array([best.nll(window) for window in windows.tolist()]),
        best.regret(nll, skill, left),
        best.reached_rate(nll),
        group_mean(ratios),
        *(ratios.T if config.groups > 1 else ()),
    ]
    return {column.name: plain(value) for column, value in zip(toy_columns(config.groups), values, strict=True)}


def _rounded(values: Any) -> Any:
    return np.rint(values).astype(np.int64) if isinstance(values, np.ndarray) else round(values)


def _accuracy(window: Any, success: Any, config: ToyConfig) -> Any:
    every = config.probe_accuracy_every
    is_measured = (window % every == 0) | (window == config.windows) if every > 0 else window < 1  # that is, never
    if isinstance(success, np.ndarray):
        return np.where(is_measured, success, math.nan)
    return success if is_measured else math.nan


def _pass_at_k(success: float, num_samples: int) -> float:
    return float(1.0 - (1.0 - success) ** num_samples) if num_samples else math.nan
