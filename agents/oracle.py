"""The oracle's schedule of an instance of the bench, as a controller: what others are measured against."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from agents.planner import Planner
from atesd_env.bench.schedules import oracle_schedule
from atesd_env.errors import ConfigError


class OracleSchedule(Planner):
    """Shows what the oracle's schedule of the present instance says: found beforehand on other seeds, blind to the run.

    Args:
        env: An environment of the bench (``ATESD-Bench-v0``), scalar, or a vector for ``predict``.
        seed: Seed of the run; there is no randomness in the decisions.

    Raises:
        ConfigError: If the environment is none of the bench, or its set has no schedule of the instance.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], seed: int = 0) -> None:
        super().__init__(env, seed, every=1)
        self._schedules: dict[str, NDArray[np.float64]] = {}  # of the instances that were met
        if not hasattr(env.unwrapped, "instance_set"):
            raise ConfigError(
                f"oracle: expected an environment of the bench, got {type(env.unwrapped).__name__}; make ATESD-Bench-v0, or give a "
                "schedule of your own: staged:0:0.5:1."
            )

    def plan(self, student: int, ratios: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the ratios of the student's next window, [groups]; those of groups that its instance lacks are 0."""
        env: Any = self.env.unwrapped
        instance = env.population.instance_of(student)
        if instance not in self._schedules:
            self._schedules[instance] = oracle_schedule(env.instance_set, instance)
        now = self._schedules[instance][len(env.population.runs[student].rows)]
        return np.pad(now, (0, self.groups - len(now)))
