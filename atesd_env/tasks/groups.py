"""Difficulty groups: which reveal ratio a problem gets when there is one for each group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atesd_env.errors import ConfigError
from atesd_env.tasks.base import Problem, Task

_SAMPLE_SIZE = 512


@dataclass(frozen=True)
class DifficultyGroups:
    """Cuts the range of difficulty into groups of about equal size; group 0 is the easiest, and none is empty.

    Attributes:
        edges: Increasing difficulties; a problem's group is the number of edges at or below its difficulty.
    """

    edges: tuple[float, ...]

    @classmethod
    def from_task(cls, task: Task, num_groups: int) -> DifficultyGroups:
        """Returns quantile groups of a fixed sample of the task's training problems, the same for every run.

        Problems of one difficulty stay in one group, so groups are only as equal as the difficulties allow.

        Raises:
            ConfigError: If the problems have fewer different difficulties than there are groups.
        """
        if num_groups == 1:
            return cls(())
        sample = [task.typical_problem(index).difficulty for index in range(_SAMPLE_SIZE)]
        return cls(quantile_edges(sample, num_groups))

    def group(self, problem: Problem) -> int:
        """Returns the group that a problem belongs to, 0 .. len(edges)."""
        return sum(problem.difficulty >= edge for edge in self.edges)

    def ratios(self, problems: Sequence[Problem], reveal_ratios: NDArray[np.float64]) -> list[float]:
        """Returns each problem's reveal ratio, given one for each group."""
        return [float(reveal_ratios[self.group(problem)]) for problem in problems]


def quantile_edges(difficulties: Sequence[float], num_groups: int) -> tuple[float, ...]:
    """Returns the edges that cut ``difficulties`` into groups, none empty, each edge as near its quantile as it can be.

    Args:
        difficulties: One for each problem of a sample.
        num_groups: How many groups, at least 1.

    Raises:
        ConfigError: If there are fewer different difficulties than groups.

    >>> quantile_edges([1, 1, 1, 2, 3, 4], num_groups=3)
    (2, 3)
    """
    counts = sorted(Counter(difficulties).items())
    if len(counts) < num_groups:
        raise ConfigError(
            f"groups: expected at most {len(counts)}, as many as the problems have different difficulties, got "
            f"{num_groups}; lower groups or use problems of more difficulties."
        )
    num_below = np.cumsum([count for _, count in counts])
    edges: list[float] = []
    cut = 0  # the edge is the difficulty that starts the next group
    for group in range(1, num_groups):
        last = len(counts) - (num_groups - group)  # leaves one difficulty for each group to come
        target = len(difficulties) * group / num_groups
        cut = min(range(cut + 1, last + 1), key=lambda i: abs(num_below[i - 1] - target))
        edges.append(counts[cut][0])
    return tuple(edges)
