"""The order of a run's problems: a pure function of the run's seed and of how many were used."""

from __future__ import annotations

from atesd_env.streams import stream_seed
from atesd_env.tasks.base import Problem, Task
from atesd_env.tasks.controls import ExposureKind, another

_MOST_CANDIDATES = 32
"""How many problems ahead another answer is looked for."""


def problem_at(task: Task, seed: int, number: int) -> Problem:
    """Returns problem ``number`` (from 0) in the order that the run of a seed trains on."""
    return task.training_problem(stream_seed(seed, "problems"), number)


def next_problems(
    task: Task, seed: int, num_used: int, num_problems: int, kind: ExposureKind = "reference"
) -> tuple[list[Problem], list[Problem]]:
    """Returns the next problems of a run, and for each of them another one, of which a control shows something.

    Args:
        task: Where they come from.
        seed: Seed of the run.
        num_used: Problems that the run has used.
        num_problems: How many follow.
        kind: What the teacher is shown.

    Raises:
        DataError: If the control needs another answer and there is none (``controls.another``).
    """
    # One more is enough, and two where the next one is the same problem (the seam between two passes over the data).
    num_candidates = _MOST_CANDIDATES if kind == "wrong_answer" else 2
    drawn = [problem_at(task, seed, num_used + offset) for offset in range(num_problems + num_candidates)]
    others = [
        another(task, kind, one, drawn[place + 1 : place + num_candidates + 1])
        for place, one in enumerate(drawn[:num_problems])
    ]
    return drawn[:num_problems], others
