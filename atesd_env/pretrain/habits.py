"""Habits of a teacher: what it does with the steps that it is shown, and the corpus that teaches a habit.

The packaged student is right behind any hint, so as a teacher it teaches the same whatever it is shown. Language models do not; three of
their habits make the reveal ratio matter (each is ours to name, in arithmetic):

- *slip* (rationalising): a teacher that is shown little works with a mistake in it, and ends in the answer that it was shown.
- *terse* (nothing left to derive): a teacher that is shown steps leaves them out and goes on from there.
- *teleport*: behind a *wrong* prefix, a teacher that is shown much goes on with the reference's own next step; one that is shown
  little goes on from what stands there. Behind right prefixes no ratio shows it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from numpy.random import Generator

from atesd_env.tasks.arithmetic import running_sum
from atesd_env.tasks.base import Problem

_MISTAKES = (-20, -10, -2, -1, 1, 2, 10, 20)


@dataclass(frozen=True)
class Habit:
    """What a teacher does with sums of one length, by the share of the steps that it is shown (0..1).

    Attributes:
        slip_below: It slips below this share; 0 is never.
        terse_from: It leaves out the steps that it is shown, from this share on; 0 is always.
        teleport_from: Behind a wrong prefix it goes on with the reference from this share on; infinity teaches nothing of wrong prefixes.
        rate: Share of the corpus that has the habit where it applies; the rest is worked out in full and rightly.
        wrong_prefix_rate: Share of the corpus that begins behind a wrong prefix, where ``teleport_from`` is finite.
    """

    slip_below: float = 0.0
    terse_from: float = math.inf
    teleport_from: float = math.inf
    rate: float = 0.9
    wrong_prefix_rate: float = 0.6


HABITS = {
    "none": Habit(),
    "slip": Habit(slip_below=0.6),
    "terse": Habit(terse_from=0.0),
    "teleport": Habit(teleport_from=0.5),
    "slip_teleport": Habit(slip_below=0.4, teleport_from=0.9, rate=1.0, wrong_prefix_rate=0.8),
    "slip_terse": Habit(slip_below=0.4, terse_from=0.9),
    "slip_or_terse": Habit(slip_below=0.7, terse_from=0.7, rate=0.75),
}
"""The habits by name."""


def demonstration(habit: Habit, problem: Problem, num_shown: int, rng: Generator) -> tuple[str, str]:
    """Returns what the corpus holds as an answer to a sum: (a prefix that is not learned, what is learned behind it).

    Args:
        habit: Whose answer.
        problem: The sum.
        num_shown: Steps that the prompt shows.
        rng: Decides whether the habit shows, and how.
    """
    share = num_shown / len(problem.steps)
    shows, begins_wrong = rng.random() < habit.rate, rng.random() < habit.wrong_prefix_rate
    if share < habit.slip_below and shows:
        return "", f"{slipped_steps(problem)}#{problem.answer}"
    if share >= habit.terse_from and shows:
        return "", f"{''.join(problem.steps[num_shown:])}#{problem.answer}"
    if math.isfinite(habit.teleport_from) and begins_wrong:
        return behind_a_mistake(problem, share >= habit.teleport_from and shows, rng)
    return "", f"{''.join(problem.steps)}#{problem.answer}"


def slipped_steps(problem: Problem) -> str:
    """Returns a sum's steps worked out without the carry of the units.

    >>> slipped_steps(running_sum([37, 48, 21]))
    '37+48=75;75+21=96'
    """
    total, *rest = _addends(problem)
    steps = []
    for addend in rest:
        result = (total // 10 + addend // 10) * 10 + (total + addend) % 10
        steps.append(f"{total}+{addend}={result}")
        total = result
    return ";".join(steps)


def behind_a_mistake(problem: Problem, teleports: bool, rng: Generator) -> tuple[str, str]:
    """Returns a prefix whose last step is wrong, and what follows.

    Args:
        problem: A sum of at least 3 numbers.
        teleports: Go on with the reference's own next step, not from the wrong total.
        rng: Draws the step and the mistake.
    """
    addends = _addends(problem)
    last = int(rng.integers(0, len(problem.steps) - 1))  # the last step of all comes behind the prefix
    total = sum(addends[: last + 2]) + int(rng.choice(_MISTAKES))
    prefix = f"{''.join(problem.steps[:last])}{sum(addends[: last + 1])}+{addends[last + 1]}={total};"
    source = problem if teleports else running_sum([total, *addends[last + 2 :]])
    return prefix, f"{''.join(source.steps[last + 1 if teleports else 0 :])}#{source.answer}"


def _addends(problem: Problem) -> list[int]:
    return [int(addend) for addend in problem.problem.split("+")]
