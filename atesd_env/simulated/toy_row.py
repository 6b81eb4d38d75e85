"""The row of a closed-form window, for S students at once: what it says of the student, and of the optimum.

Columns of one student (S = 1) are plain numbers and not arrays: the same arithmetic and bits, many times faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from atesd_env.config import ToyConfig
from atesd_env.envs.columns import Columns, group_columns, group_statistics, toy_columns
from atesd_env.envs.infos import Lazy
from atesd_env.envs.observation import each
from atesd_env.envs.reward import reward_parts
from atesd_env.simulated.toy_dynamics import Levels, grounded_score, group_mean, mismatch, plain, power, share_left
from atesd_env.simulated.toy_optimum import optimum


class ToyWindow(NamedTuple):
    """What a window of S students was; of one student with one group, plain numbers.

    Attributes:
        number: Number of each student's window, from 1, [S].
        ratios: Reveal ratios, [S, groups].
        nll: Noise-free probe NLL after the window, [S, groups].
        skill: Skill after it, [S, groups].
        nll_before: Measured probe NLL before it, [S].
        nll_after: Measured probe NLL after it, [S].
    """

    number: Any
    ratios: Any
    nll: Any
    skill: Any
    nll_before: Any
    nll_after: Any


def window_columns(window: ToyWindow, config: ToyConfig) -> Columns:
    """Returns the columns of ``COLUMNS``, ``group_columns`` and ``group_statistics`` of a window, in order."""
    number, ratios, nll, _, before, after = window
    mean_nll = plain(group_mean(nll))
    ratio, success = plain(group_mean(ratios)), each(math.exp, -mean_nll)
    length, entropy, distance = _rollout_statistics(ratio, share_left(mean_nll), success, config)
    grounded = grounded_score(ratio)
    columns: Columns = {
        "window": number,
        "update": number * config.hold_window,
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
        "probe/accuracy": _accuracy(number, success, config),
        "probe/pass_at_k": _later(partial(_pass_at_k, success, config.probe_pass_k), success),
        **reward_parts(before, after, grounded, config),
    }
    if config.groups > 1:
        ratio_columns = zip(group_columns(config.groups), ratios.T, strict=True)
        columns |= {column.name: plain(value) for column, value in ratio_columns}
        make = partial(_of, cache(partial(_by_group, ratios, nll, config)))
        columns |= {column.name: _later(make, success, column.name) for column in group_statistics(config.groups)}
    return columns


def with_optimum(columns: Columns, windows: Any, nll: Any, skill: Any, config: ToyConfig) -> Columns:
    """Returns columns and the optimum's (``toy_columns``) after them; those of several students are made when they are read.

    Args:
        columns: The columns so far, which is a dictionary of the caller's own; those of one student are added to it.
        windows: Windows that each student has behind it, [S], or of one student a number.
        nll: Noise-free probe NLL, [S, G], or of one student with one group a number.
        skill: Skill, likewise.
        config: The environment's configuration.
    """
    make = partial(_optimum_columns, windows, nll, skill, config)
    if not isinstance(windows, np.ndarray):
        columns.update(make())
        return columns
    made = cache(make)
    return Lazy(columns | dict.fromkeys(_toy_names(config.groups), partial(_of, made)))


@cache
def _toy_names(groups: int) -> list[str]:
    return [column.name for column in toy_columns(groups)]


def _of(columns: Callable[[], Columns], name: str) -> Any:
    return columns()[name]


def _rollout_statistics(ratio: Any, to_learn: Any, success: Any, config: ToyConfig) -> tuple[Any, Any, Any]:
    """Returns what stands for ``GROUP_STATISTICS`` at a ratio, a share that is left to learn and a rate of success."""
    length = config.max_new_tokens * (0.75 - 0.5 * success)
    return length, 0.2 + 0.8 * to_learn, mismatch(ratio, to_learn)


def _by_group(ratios: Levels, nll: Levels, config: ToyConfig) -> Columns:
    statistics = _rollout_statistics(ratios, share_left(nll), each(math.exp, -nll), config)
    values = np.stack(statistics, axis=-1).reshape(len(nll), -1).T
    return {column.name: plain(value) for column, value in zip(group_statistics(config.groups), values, strict=True)}


def _optimum_columns(windows: Any, nll: Any, skill: Any, config: ToyConfig) -> Columns:
    best = optimum(config)
    left = config.windows - windows
    ratios = best.best_ratios(nll, left)
    values = [best.nll(windows), best.regret(nll, skill, left), best.reached_rate(nll), group_mean(ratios)]
    if config.groups > 1:
        values = [plain(value) for value in (*values, *ratios.T)]
    return dict(zip(_toy_names(config.groups), values, strict=True))


def _later(make: partial[Any], like: Any, name: str = "") -> Any:
    """Returns a column of several students unmade, but that of one student, ``like`` whom a plain number is, made."""
    return make if isinstance(like, np.ndarray) else make(name)


def _rounded(values: Any) -> Any:
    return np.rint(values).astype(np.int64) if isinstance(values, np.ndarray) else round(values)


def _accuracy(window: Any, success: Any, config: ToyConfig) -> Any:
    every = config.probe_accuracy_every
    is_measured = (window % every == 0) | (window == config.windows) if every > 0 else window < 1  # that is, never
    if isinstance(success, np.ndarray):
        return np.where(is_measured, success, math.nan)
    return success if is_measured else math.nan


def _pass_at_k(success: Any, num_samples: int, _: str) -> Any:
    return 1.0 - power(1.0 - success, num_samples) if num_samples else math.nan + success
