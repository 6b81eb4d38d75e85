"""What a controller sees on the bench: the observation of any run, and behind it what belongs to groups and instances.

Its shape is the same for all instances of a set: a group that an instance lacks reads 0, and a ratio for it is not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from atesd_env.config import RunConfig
from atesd_env.envs.columns import GROUP_STATISTICS
from atesd_env.envs.contract import Observation, StudentRun
from atesd_env.envs.observation import FEATURE_NAMES, observation, observation_bounds, squash


def _log_scaled(learning_rate: float) -> float:
    """Returns 0 at 1e-6 and below, 1 at 1e-1 and above."""
    return min(max((math.log10(max(learning_rate, 1e-6)) + 6.0) / 5.0, 0.0), 1.0)


CONTEXT: Mapping[str, tuple[str, Callable[[Any], float]]] = {
    "instance_learning_rate": ("learning_rate", _log_scaled),
    "instance_hold_window": ("hold_window", lambda value: squash(value / 4.0)),
    "instance_windows": ("windows", lambda value: squash(value / 10.0)),
    "instance_num_rollouts": ("num_rollouts", lambda value: squash(value / 16.0)),
    "instance_groups": ("groups", lambda value: value / 16.0),
    "instance_min_addends": ("min_addends", lambda value: value / 20.0),
    "instance_max_addends": ("max_addends", lambda value: value / 20.0),
    "instance_has_phases": ("phases", lambda value: float(value is not None)),
    "instance_reverse_kl": ("divergence", lambda value: float(value == "reverse_kl")),
    "instance_jsd": ("divergence", lambda value: float(value == "jsd")),
}
"""With ``context=True``, behind everything else: feature -> (field of the instance's configuration, scaling to [0, 1])."""


class BenchObservation:
    """The observation's layout in one set of instances.

    Args:
        groups: Most difficulty groups of an instance. Above 1, the last window's ``GROUP_STATISTICS`` of each follow the features
            of any run, group by group: mean length / max_new_tokens, and x/(1+x) of entropy and mismatch.
        context: Whether ``CONTEXT`` follows.

    Attributes:
        names: Names of the entries, in order.
        space: Box of the observation, [num_features].
    """

    def __init__(self, groups: int, *, context: bool) -> None:
        self._slots = groups if groups > 1 else 0
        self._context = tuple(CONTEXT) if context else ()
        by_group = [f"{name.replace('/', '_')}_{group}" for group in range(self._slots) for name in GROUP_STATISTICS]
        self.names: tuple[str, ...] = (*FEATURE_NAMES, *by_group, *self._context)
        low, high = observation_bounds()
        more = len(self.names) - len(FEATURE_NAMES)
        low, high = np.append(low, np.zeros(more)), np.append(high, np.ones(more))
        self.space = spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)

    def __call__(self, run: StudentRun, config: RunConfig) -> Observation:
        """Returns the observation of a run of an instance with this configuration, float32 [num_features]."""
        row = run.rows[-1] if self._slots and run.rows else {}
        more = [value for group in range(self._slots) for value in _of_group(row, group, config)]
        for field, scale in (CONTEXT[name] for name in self._context):
            more.append(scale(getattr(config, field)) if hasattr(config, field) else 0.0)
        return np.append(observation(run.statistics), np.array(more, dtype=np.float32))


def _of_group(row: Mapping[str, Any], group: int, config: RunConfig) -> tuple[float, float, float]:
    """Returns the scaled ``GROUP_STATISTICS`` of a group; 0 where it, or a measurement of it, is missing."""
    # The one group of an instance that has no others is the whole batch.
    suffix = f"_{group}" if config.groups > 1 else "" if group == 0 else None
    values = [0.0 if suffix is None else row.get(f"{name}{suffix}") or 0.0 for name in GROUP_STATISTICS]
    length, entropy, mismatch = (0.0 if math.isnan(value) else value for value in values)
    return min(length / config.max_new_tokens, 1.0), squash(entropy), squash(mismatch)
