"""The reward of a window. Discounting belongs to the return, which agents compute (agents/credit.py)."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from atesd_env.config import RunConfig

Reward = TypeVar("Reward", float, NDArray[np.float64])
"""A reward, or one for each student."""


def learning_progress(
    nll_before: Reward, nll_after: Reward, kind: Literal["positive", "signed"] = "positive"
) -> Reward:
    """Returns the learning progress of a window in nats per token, a number or [K].

    Args:
        nll_before: Probe NLL before the window.
        nll_after: Probe NLL after it.
        kind: "positive" is the paper's ``max(0, before - after)``; "signed" is the difference itself.

    >>> learning_progress(2.0, 2.5), learning_progress(2.0, 2.5, "signed")
    (0.0, -0.5)
    """
    drop = nll_before - nll_after
    if kind == "signed":
        return drop
    return np.where(drop > 0.0, drop, 0.0) if isinstance(drop, np.ndarray) else max(0.0, drop)


def window_reward(progress: Reward, grounded: Reward, grounded_weight: float) -> Reward:
    """Returns ``progress + grounded_weight * grounded`` (paper: R = G_lp + lambda_gt G_gt, here for one window), a number or [K].

    Args:
        progress: Learning progress of the window.
        grounded: Teacher-grounded score: the exposed teacher's mean log-probability of the reference solutions.
        grounded_weight: The paper's lambda_gt.
    """
    return progress + grounded_weight * grounded


def reward_parts(nll_before: Any, nll_after: Any, grounded: Any, config: RunConfig) -> dict[str, Any]:
    """Returns a window's columns ``reward/progress`` and ``reward/total``, numbers or [K]."""
    progress = learning_progress(nll_before, nll_after, config.progress)
    return {"reward/progress": progress, "reward/total": window_reward(progress, grounded, config.grounded_weight)}
