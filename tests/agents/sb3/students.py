"""The students that the tests of Stable-Baselines3's agents train: closed forms with short runs, one or several."""

from __future__ import annotations

from typing import Any

import gymnasium

import atesd_env  # noqa: F401  (registers the ids)

WINDOWS = 4


def population(num_envs: int = 3, **fields: Any) -> Any:
    return gymnasium.make_vec("ATESD-Toy-v0", num_envs=num_envs, **{"windows": WINDOWS, **fields})


def single(**fields: Any) -> gymnasium.Env[Any, Any]:
    return gymnasium.make("ATESD-Toy-v0", **{"windows": WINDOWS, **fields})
