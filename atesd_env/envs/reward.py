"""The reward of a window. Discounting belongs to the return, which agents compute (agents/credit.py)."""

from __future__ import annotations

from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Reward = TypeVar("Reward", float, NDArray[np.float64])
"""A reward, or one for each student."""


def learning_progress(nll_before: float, nll_after: float, kind: Literal["positive", "signed"] = "positive") -> float:
    """Returns the learning progress of a window in nats per token.

    Args:
        nll_before: Probe NLL before the window.
        nll_after: Probe NLL after it.
        kind: "positive" is the paper's ``max(0, before - after)``; "signed" is the difference itself.

    >>> learning_progress(2.0, 2.5), learning_progress(2.0, 2.5, "signed")
    (0.0, -0.5)
    """
    drop = nll_before - nll_after
    return max(0.0, drop) if kind == "positive" else drop


def window_reward(progress: Reward, grounded: Reward, grounded_weight: float) -> Reward:
    """Returns ``progress + grounded_weight * grounded`` (paper: R = G_lp + lambda_gt G_gt, here for one window), a number or [K].

    Args:
        progress: Learning progress of the window.
        grounded: Teacher-grounded score: the exposed teacher's mean log-probability of the reference solutions.
        grounded_weight: The paper's lambda_gt.
    """
    return progress + grounded_weight * grounded
