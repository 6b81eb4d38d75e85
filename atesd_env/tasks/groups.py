"""Difficulty groups: which reveal ratio a problem gets when there is one for each group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atesd_env.tasks.base import Problem, Task

_SAMPLE_SEED = 0
_SAMPLE_SIZE = 512


@dataclass(frozen=True)
class DifficultyGroups:
    """Cuts the range of difficulty into groups of about equal size; group 0 is the easiest.

    Attributes:
        edges: Increasing difficulties; a problem's group is the number of edges at or below its difficulty.
    """

    edges: tuple[float, ...]

    @classmethod
    def from_task(cls, task: Task, num_groups: int) -> DifficultyGroups:
        """Returns quantile groups of a fixed sample of the task's training problems, the same for every run."""
        if num_groups == 1:
            return cls(())
        sample = sorted(task.training_problem(_SAMPLE_SEED, index).difficulty for index in range(_SAMPLE_SIZE))
        return cls(tuple(sample[len(sample) * group // num_groups] for group in range(1, num_groups)))

    def group(self, problem: Problem) -> int:
        """Returns the group that a problem belongs to, 0 .. len(edges)."""
        return sum(problem.difficulty >= edge for edge in self.edges)

    def ratios(self, problems: Sequence[Problem], reveal_ratios: NDArray[np.float64]) -> list[float]:
        """Returns each problem's reveal ratio, given one for each group."""
        return [float(reveal_ratios[self.group(problem)]) for problem in problems]
