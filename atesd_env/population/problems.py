"""The order of a run's problems: a pure function of the run's seed and of how many were used."""

from __future__ import annotations

from atesd_env.streams import stream_seed
from atesd_env.tasks.base import Problem, Task


def problem_at(task: Task, seed: int, number: int) -> Problem:
    """Returns problem ``number`` (from 0) in the order that the run of a seed trains on."""
    return task.training_problem(stream_seed(seed, "problems"), number)


def next_problems(task: Task, seed: int, num_used: int, num_problems: int) -> tuple[list[Problem], list[Problem]]:
    """Returns the next problems of a run, and for each of them another one (for the control ``exposure="other"``).

    Args:
        task: Where they come from.
        seed: Seed of the run.
        num_used: Problems that the run has used.
        num_problems: How many follow.
    """
    drawn = [problem_at(task, seed, num_used + offset) for offset in range(num_problems + 2)]
    # Two problems on, where the next one is the same problem (the seam between two passes over the data).
    others = [
        following if following.id != one.id else second
        for one, following, second in zip(drawn, drawn[1:], drawn[2:], strict=False)
    ]
    return drawn[:num_problems], others
