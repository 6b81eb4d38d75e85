"""What an algorithm of Stable-Baselines3 does, as reveal ratios: a rescaled interval, a grid, or a grid's combinations.

An algorithm sees one of three action spaces, and each has exactly one meaning here:

- ``Box(-1, 1, (groups,))``: the interval is [0, 1] stretched, as Stable-Baselines3 recommends. In [0, 1] a fresh Gaussian
  (mean 0, standard deviation 1) would be clipped to "reveal nothing" half the time.
- ``MultiDiscrete([points] * groups)``: each group's ratio from a grid of ``points`` evenly spaced ratios, 0 and 1 among
  them.
- ``Discrete(points ** groups)``: the same, every combination of the groups' ratios being one action, for DQN. The first
  group's ratio changes slowest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from atesd_env.errors import ConfigError

MAX_COMBINATIONS = 1024
"""Most actions of a joint grid; each is an output of a network."""
_EASY_COMBINATIONS = 128  # as many as the default grid may have
_POINTS = (11, 5, 3, 2)


class Interval:
    """[0, 1] for each group, seen as [-1, 1].

    Args:
        groups: Difficulty groups.
    """

    def __init__(self, groups: int) -> None:
        self.space: spaces.Space[Any] = spaces.Box(-1.0, 1.0, (groups,), dtype=np.float32)
        self.points: int | None = None

    def ratios(self, actions: NDArray[Any]) -> NDArray[np.float32]:
        """Returns (a + 1) / 2 for actions a [K, groups]; NaN stays NaN, for the environment to refuse."""
        return (0.5 * (np.asarray(actions, dtype=np.float32) + 1.0)).astype(np.float32)


class Grid:
    """A grid of ratios for each group.

    Args:
        groups: Difficulty groups.
        points: Ratios of the grid, at least 2.
    """

    def __init__(self, groups: int, points: int) -> None:
        self.grid = grid_ratios(points)
        self.space: spaces.Space[Any] = spaces.MultiDiscrete([points] * groups)
        self.points: int | None = points

    def ratios(self, actions: NDArray[Any]) -> NDArray[np.float32]:
        """Returns the ratios at the positions [K, groups]."""
        return self.grid[np.asarray(actions, dtype=np.int64)]


class JointGrid:
    """All combinations of the groups' grids as one choice.

    Args:
        groups: Difficulty groups.
        points: Ratios of a group's grid, at least 2; None takes ``default_points``.

    Raises:
        ConfigError: If there are more than ``MAX_COMBINATIONS``.
    """

    def __init__(self, groups: int, points: int | None = None) -> None:
        points = default_points(groups) if points is None else points
        self.grid = grid_ratios(points)
        if points**groups > MAX_COMBINATIONS:
            raise ConfigError(
                f"grid: expected at most {MAX_COMBINATIONS} combinations of ratios, got {points} for each of {groups} groups, "
                f"{points**groups} in all; pass a smaller grid, or an agent that chooses each group's ratio for itself (ppo)."
            )
        self._shape = (points,) * groups
        self.space: spaces.Space[Any] = spaces.Discrete(points**groups)
        self.points: int | None = points

    def ratios(self, actions: NDArray[Any]) -> NDArray[np.float32]:
        """Returns the ratios of the combinations with the numbers [K]."""
        positions = np.unravel_index(np.asarray(actions, dtype=np.int64).reshape(-1), self._shape)
        return self.grid[np.stack(positions, axis=-1)]


ActionMap = Interval | Grid | JointGrid
"""How actions of an algorithm become reveal ratios [K, groups] of K students: the action ``space`` that it sees, of one
student, and ``points``, the ratios of each group's grid (None if there is no grid)."""


def grid_ratios(points: int) -> NDArray[np.float32]:
    """Returns ``points`` evenly spaced ratios from 0 to 1.

    Raises:
        ConfigError: If ``points`` is not a whole number from 2.

    >>> grid_ratios(5).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    if isinstance(points, bool) or not isinstance(points, int) or points < 2:
        raise ConfigError(f"grid: expected a whole number of ratios from 2, got {points!r}; pass grid=5, say.")
    return np.linspace(0.0, 1.0, points, dtype=np.float32)


def default_points(groups: int) -> int:
    """Returns the ratios of a group's grid that keep all combinations few: 11 for up to two groups, then 5, 3, 2.

    >>> [default_points(groups) for groups in (1, 2, 3, 4, 5)]
    [11, 11, 5, 3, 2]
    """
    return next((points for points in _POINTS if points**groups <= _EASY_COMBINATIONS), _POINTS[-1])
