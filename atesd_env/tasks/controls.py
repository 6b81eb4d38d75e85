"""What takes a reference solution's place in a control: does it matter what the teacher is shown?

Every control keeps the reveal ratio's meaning, the share of the steps that may be shown, and the two prompts' shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from atesd_env.errors import DataError
from atesd_env.tasks.base import Problem, Task

ExposureKind = Literal["reference", "none", "other", "other_matched", "wrong_answer", "no_answer", "answer_only"]
"""`reference`: the problem's own steps and answer. The others are controls:

- `none`: the problem alone (reference-free);
- `other`: another problem's steps and answer; `other_matched`: the same, cut to as many tokens as the reference would have;
- `wrong_answer`: the own steps up to the first that names the final answer, and another problem's answer;
- `no_answer`: these steps without any answer, at every ratio; `answer_only`: the answer without steps, at every ratio.
"""

WITH_ANOTHER: tuple[ExposureKind, ...] = ("other", "other_matched", "wrong_answer")
"""Kinds that show something of another problem."""

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3})")


class Source(NamedTuple):
    """What a reveal ratio shows a part of.

    Attributes:
        steps: The steps, of which it shows the first.
        answer: What is shown beside them at every ratio; None is nothing.
    """

    steps: tuple[str, ...]
    answer: str | None


def source(kind: ExposureKind, problem: Problem, other: Problem | None) -> Source:
    """Returns what a kind of exposure shows a part of.

    Args:
        kind: Any but "none", which shows nothing.
        problem: The problem that the student solves.
        other: Another one, for the kinds ``WITH_ANOTHER``.
    """
    if kind in ("reference", "answer_only"):
        return Source(problem.steps if kind == "reference" else (), problem.answer)
    if kind == "no_answer":
        return Source(steps_before_the_answer(problem), None)
    assert other is not None, f"{kind} needs another problem"
    return Source(steps_before_the_answer(problem) if kind == "wrong_answer" else other.steps, other.answer)


def steps_before_the_answer(problem: Problem) -> tuple[str, ...]:
    """Returns a problem's steps up to the first that names the final answer, or has a box.

    >>> steps_before_the_answer(Problem("p", "?", ("12*9 = 1,080.", "So 1,080 it is."), "108", 2.0))
    ('12*9 = 1,080.', 'So 1,080 it is.')
    >>> steps_before_the_answer(Problem("p", "?", ("12*90 is asked.", "12*90 = 1,080."), "1080", 2.0))
    ('12*90 is asked.',)
    """
    answer = re.compile(rf"(?<![\w.]){re.escape(_THOUSANDS.sub('', problem.answer))}(?!\w|\.\d)|\\boxed")
    named = (place for place, step in enumerate(problem.steps) if answer.search(_THOUSANDS.sub("", step)))
    return problem.steps[: next(named, len(problem.steps))]


def another(task: Task, kind: ExposureKind, problem: Problem, candidates: Iterable[Problem]) -> Problem:
    """Returns the first of some problems that can stand for another one in a kind of exposure.

    Args:
        task: Judges whether two answers are the same.
        kind: "wrong_answer" needs another answer, the others only another problem.
        problem: The problem that the student solves.
        candidates: Where to look, at least one; where all are the same problem, the last is taken.

    Raises:
        DataError: If "wrong_answer" finds no other answer.
    """
    last = problem
    for last in candidates:
        if last.id == problem.id:
            continue
        if kind != "wrong_answer" or not (
            last.answer == problem.answer or task.same_answer(last.answer, problem.answer)
        ):
            return last
    if kind == "wrong_answer":
        raise DataError(
            f"exposure: expected data with several answers (exposure 'wrong_answer' shows another problem's), got {problem.answer!r} "
            "again and again; choose another control."
        )
    return last


def others_around(task: Task, kind: ExposureKind, problems: Sequence[Problem]) -> list[Problem]:
    """Returns for each of some fixed problems the one of which a control shows something: the next that will do, in a circle.

    Raises:
        DataError: As ``another`` does.
    """
    if kind not in WITH_ANOTHER:
        return list(problems)
    around = [*problems, *problems]
    return [
        another(task, kind, problem, around[place + 1 : place + len(problems) + 1])
        for place, problem in enumerate(problems)
    ]
