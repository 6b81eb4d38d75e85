"""What a task must offer: problems with worked solutions cut into steps, the two requests, and grading."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from atesd_env.errors import DataError


@dataclass(frozen=True)
class Problem:
    r"""One problem with its reference solution, already cut into steps.

    Attributes:
        id: Unique within its task; names the problem in messages and logs.
        problem: The text that the student sees.
        steps: The reference reasoning; ``"".join(steps)`` is the whole of it (separators stay with the step before).
        answer: The final answer, without ``\boxed{}`` or other decoration.
        difficulty: Larger is harder; only its order matters (arithmetic: number of addends; math: level, or number of
            steps where the data has no level).
        views: Other versions of the reference, (name, steps) each, such as a gist; most data has none.
    """

    id: str
    problem: str
    steps: tuple[str, ...]
    answer: str
    difficulty: float
    views: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def seen_as(self, view: str | None) -> Problem:
        """Returns the problem with another version of the reference in the place of its steps; None is the reference itself.

        Raises:
            DataError: If it has no view of that name.
        """
        if view is None:
            return self
        steps = dict(self.views).get(view)
        if steps is None:
            raise DataError(
                f"problem {self.id!r}: expected a view {view!r} of its solution (view, action_views), got {[*dict(self.views)]}; add it to "
                "the row's `views`, or name another."
            )
        return dataclasses.replace(self, steps=steps)

    @property
    def what_counts(self) -> tuple[str, ...]:
        """Returns what a rollout is compared with."""
        return (self.answer,)


class Task(ABC):
    """A source of problems, the wording of both requests, and a judge of answers.

    Training problems, probe problems and held-out problems never overlap.
    """

    @abstractmethod
    def training_problem(self, seed: int, index: int) -> Problem:
        """Returns training problem number ``index`` (from 0, without end) of the order that ``seed`` fixes."""

    def typical_problem(self, index: int) -> Problem:
        """Returns problem ``index`` of a fixed sample, the same for every run, of all that a run may train on."""
        return self.training_problem(0, index)

    @abstractmethod
    def probe_problems(self, num_problems: int) -> list[Problem]:
        """Returns the fixed probe: always the same problems, whatever the seed of a run."""

    @abstractmethod
    def heldout_problems(self, num_problems: int) -> list[Problem]:
        """Returns problems that are neither trained on nor in the probe, for a final evaluation."""

    def restrict(self, keep: Callable[[Problem], bool]) -> int:
        """Drops the problems that ``keep`` refuses, such as over-long ones; returns how many.

        A generated task, whose problems all fit, need not override it.
        """
        return 0

    @abstractmethod
    def student_request(self, problem: Problem) -> str:
        """Returns the user message that the student answers (before the chat template)."""

    @abstractmethod
    def teacher_request(self, problem: Problem, shown_steps: tuple[str, ...], shown_answer: str | None) -> str:
        """Returns the user message that the teacher answers: the problem, what is shown, the same closing words.

        Args:
            problem: The problem that the student solves.
            shown_steps: The steps that are shown, possibly none (of this problem, or of another one as a control).
            shown_answer: The final answer, which is always shown; None only in the control that withholds it.
        """

    @abstractmethod
    def reference_completion(self, problem: Problem) -> str:
        """Returns the whole reference solution, final answer included, as an assistant's answer."""

    @abstractmethod
    def extract_answer(self, text: str) -> str | None:
        """Returns the final answer that a rollout states, or None if it states none."""

    @abstractmethod
    def is_correct(self, text: str, problem: Problem) -> bool:
        """Returns whether a rollout's final answer is the problem's answer."""

    def judge(self, text: str, problem: Problem) -> bool | None:
        """Returns what ``is_correct`` does, and None where it would give False because the comparison took too long."""
        return self.is_correct(text, problem)

    def remark(self, text: str, problem: Problem) -> str:
        """Returns why a rollout is judged as it is, for people (of a program its failing test); "" where there is no more to say."""
        return ""

    def same_answer(self, first: str, second: str) -> bool:
        """Returns whether two final answers mean the same, as a majority vote counts them."""
        return first == second
