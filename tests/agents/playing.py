"""What the tests of controllers share: observations, the windows that an agent made, and a student that breaks."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from agents.credit import CreditSettings
from atesd_env.envs.observation import FEATURE_NAMES

FORGETFUL = ("ucb", "thompson", "linucb")
BANDITS = (*(f"{name}{option}" for name in FORGETFUL for option in ("", ":discount=0.95", ":window=50")), "exp3s")
"""The bandits' specs: those that can forget in three forms."""
ABLATION: dict[str, CreditSettings] = {
    "one-step": {"gamma": 0.7, "lookahead": 1, "grounded_weight": 0.0},
    "delayed": {"gamma": 1.0, "lookahead": 3, "grounded_weight": 0.0},
    "discounted": {"gamma": 0.7, "lookahead": 3, "grounded_weight": 0.0},
    "grounded": {"gamma": 0.7, "lookahead": 3, "grounded_weight": 0.2},
}
"""What each row of the paper's ablation makes of gamma=0.7, lookahead=3, grounded_weight=0.2."""


def observed(count: int = 1, seed: int = 0) -> np.ndarray:
    """Returns random observations [count, num_features]."""
    return np.random.default_rng(seed).random((count, len(FEATURE_NAMES))).astype(np.float32)


def observed_with(feature: str, *values: float) -> np.ndarray:
    """Returns observations [n, num_features] whose only non-zero feature is this one."""
    batch = np.zeros((len(values), len(FEATURE_NAMES)), dtype=np.float32)
    batch[:, FEATURE_NAMES.index(feature)] = values
    return batch


def transitions_of(agent: Any, num_windows: int, **options: Any) -> list[Any]:
    """Lets an agent learn and returns its transitions."""
    seen: list[Any] = []
    agent.learn(num_windows, callback=lambda names, _: seen.append(names["transition"]), **options)
    return seen


def actions_of(agent: Any, num_windows: int, **options: Any) -> np.ndarray:
    """Lets an agent learn and returns its actions [num_windows, groups]."""
    return np.asarray([transition.action for transition in transitions_of(agent, num_windows, **options)])


class BreaksInWindow4(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A student that breaks: the row of that window has no measurements, and its reward is a penalty of -3."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, _, truncated, info = super().step(action)
        if info["window"] < 4:
            return observation, reward, False, truncated, info
        missing = dict.fromkeys(("reward/progress", "probe/grounded"))
        return observation, -3.0, True, False, {**info, **missing, "reward/total": -3.0}
