"""What would each reveal ratio do from here? One state, several ratios: each followed for some windows, or only looked at.

The oracle that controllers can be measured against, and what some of them decide by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from atesd_env.envs.actions import checked_ratios
from atesd_env.envs.columns import group_columns
from atesd_env.envs.contract import ExposureScores, Students
from atesd_env.errors import ConfigError, NoEpisodeError

OUTCOMES = ("probe/nll", "probe/accuracy", "student/mismatch", "reward/progress", "reward/total")
"""Columns of the window's row that a counterfactual reports."""


def counterfactual(
    env: Any, ratios: Sequence[Any], windows: int, *, student: int = 0, gamma: float | None = None
) -> pd.DataFrame:
    """Follows each reveal ratio for some windows from the environment's present state, which it leaves as it is.

    The branches are a population of their own, one student for each ratio, all in the present state and with its seed: they
    meet the same problems and the same random numbers, so that differences between ratios are paired. A branch ends where
    the episode would: after the episode's last window, or when its student breaks.

    Cost: ``len(ratios) * windows`` windows of a student, sampled together, and in their first update, where they are the same, once;
    the memory of ``len(ratios)`` adapters and optimizers and of one rollout batch for all; no second base model, because the frozen
    weights are shared. The probe is measured after each window, its accuracy in the windows where the environment measures it.

    Args:
        env: A scalar or vector environment, wrapped or not, in a running episode. What wrappers do to actions and rewards
            plays no part.
        ratios: Reveal ratios, [N], or [N, groups] with several difficulty groups; at least one.
        windows: Windows to follow, at least 1.
        student: Which student of a vector environment.
        gamma: Discount of the return, in [0, 1]; None takes the configuration's.

    Returns:
        A tidy frame, one line for each ratio and window, sorted so. Columns: ``branch`` (position in ``ratios``),
        ``reveal_ratio`` (mean over groups; ``exposure/reveal_ratio_<g>`` follow if there are several), ``offset`` (windows
        since the present state, from 1), ``window`` (its number in the episode), ``OUTCOMES`` (NaN where not measured),
        ``return`` (rewards from the present state up to this window, the one at offset i times ``gamma ** (i - 1)``),
        ``terminated`` and ``truncated``.

    Raises:
        ConfigError: If a ratio, ``windows``, ``student`` or ``gamma`` cannot be used.
        NoEpisodeError: If no episode is running.
    """
    base = env.unwrapped
    config = base.config
    if windows < 1:
        raise ConfigError(f"windows: expected at least 1, got {windows!r}; pass the number of windows to follow.")
    gamma = config.gamma if gamma is None else gamma
    if not 0.0 <= gamma <= 1.0:
        raise ConfigError(f"gamma: expected a discount in [0, 1], got {gamma!r}; pass None for the configuration's.")
    checked = _checked_all(ratios, base.num_ratios)
    students = branches(env, len(checked), student)
    lines: list[dict[str, Any]] = []
    returns = np.zeros(len(checked))
    going = list(range(len(checked)))
    for offset in range(1, windows + 1):
        if not going:
            break
        rows = students.window(checked[going], going)
        results = [students.window_result(one, row) for one, row in zip(going, rows, strict=True)]
        for branch, (reward, terminated, truncated, info) in zip(going, results, strict=True):
            returns[branch] += gamma ** (offset - 1) * reward
            ended = {"return": float(returns[branch]), "terminated": terminated, "truncated": truncated}
            lines.append({"branch": branch, **_described(checked[branch], offset, info), **ended})
        going = [line["branch"] for line in lines[-len(going) :] if not (line["terminated"] or line["truncated"])]
    return pd.DataFrame(lines).sort_values(["branch", "offset"], ignore_index=True)


def _described(ratio: NDArray[np.float64], offset: int, info: dict[str, Any]) -> dict[str, Any]:
    """Returns what a line says of one window of a branch."""
    groups = {column.name: float(part) for column, part in zip(group_columns(len(ratio)), ratio, strict=False)}
    outcomes = {name: np.nan if info[name] is None else info[name] for name in OUTCOMES}
    return {"reveal_ratio": float(ratio.mean()), **groups, "offset": offset, "window": info["window"], **outcomes}


def branches(env: Any, num_branches: int, student: int = 0) -> Students:
    """Returns a population whose students are all in the environment's present state, with its seed.

    What they do later leaves the environment as it is. Arguments and errors: those of ``counterfactual``.
    """
    population = _asked(env, student, "branches")
    state = population.snapshot(student)
    students = population.twin(num_branches, student)
    for branch in range(num_branches):
        students.restore(branch, state)
    return students


def exposure_scores(
    env: Any,
    ratios: Sequence[float],
    *,
    student: int = 0,
    with_mismatch: bool = True,
    num_problems: int | None = None,
    by_problem: bool = False,
) -> ExposureScores:
    """Returns what each ratio shows, on the probe or the next window's problems, before anything is trained on it.

    The run goes on to the bit as it would.

    The teacher-grounded score needs a forward pass of the teacher for each ratio, once in a run where the teacher is
    fixed; the mismatch one rollout for each problem, the same for all ratios, and a pass of the teacher for each.

    Args:
        env: A scalar or vector environment, wrapped or not, in a running episode; of language models or closed forms.
        ratios: Reveal ratios, [N]; each is asked for all difficulty groups.
        student: Which student of a vector environment.
        with_mismatch: Measure the mismatch too.
        num_problems: Problems that it is measured on, the first ones, at least 1; None is all.
        by_problem: Ask of each problem of the next window, in the order of an action with ``action_ratios="problem"``, instead of the
            probe's groups.

    Raises:
        ConfigError: If a ratio, ``num_problems`` or ``student`` cannot be used, or the students have no such teacher.
        NoEpisodeError: If no episode is running.
        EngineError: If the rollout engine fails.
    """
    if num_problems is not None and num_problems < 1:
        raise ConfigError(f"num_problems: expected at least 1, got {num_problems!r}; pass None for the whole probe.")
    population = _asked(env, student, "exposure_scores")
    checked = _checked_all(ratios, groups=1)[:, 0]
    return population.exposure_scores(student, checked, with_mismatch, num_problems, by_problem)


def _checked_all(ratios: Sequence[Any], groups: int) -> NDArray[np.float64]:
    """Returns the ratios that are asked about, [N, groups]."""
    if len(ratios) == 0:
        raise ConfigError("ratios: expected at least one reveal ratio, got none; pass some, such as [0.0, 1.0].")
    return np.stack([checked_ratios(ratio, groups) for ratio in ratios])


def _asked(env: Any, student: int, what: str) -> Students:
    """Returns the students of an environment, of which one that is running is asked about."""
    base = env.unwrapped
    is_running = np.atleast_1d(base.is_running)
    if not 0 <= student < len(is_running):
        raise ConfigError(
            f"student: expected a student in 0..{len(is_running) - 1}, got {student!r}; count the students from 0."
        )
    if not is_running[student]:
        raise NoEpisodeError(
            f"{what}: expected a running episode, but none was started or it has ended; call reset() first."
        )
    population: Students = base.population
    return population
