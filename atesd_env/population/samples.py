"""Rollouts for people to read, with both prompts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from atesd_env.exposure import PromptBuilder
from atesd_env.population.batch import Batch


@dataclass(frozen=True)
class Sample:
    """One rollout.

    Attributes:
        problem_id: The problem's name.
        problem: Its text.
        student_prompt: What the student was given, with the chat template.
        teacher_prompt: What the teacher was given: the same, and what the reveal ratio shows.
        reveal_ratio: The ratio that was asked for, 0..1.
        num_shown: Steps of the reference solution in the teacher's prompt.
        num_steps: Steps that the reference solution has.
        rollout: The student's text.
        answer: The right answer.
        is_correct: Whether the rollout's answer is right.
        remark: Why, where the task says more (a program's failing test); "" else.
    """

    problem_id: str
    problem: str
    student_prompt: str
    teacher_prompt: str
    reveal_ratio: float
    num_shown: int
    num_steps: int
    rollout: str
    answer: str
    is_correct: bool
    remark: str = ""

    def as_row(self) -> dict[str, Any]:
        """Returns its fields; a remark that says nothing is left out."""
        row = dataclasses.asdict(self)
        return row if self.remark else {name: value for name, value in row.items() if name != "remark"}


def readable(batch: Batch, builder: PromptBuilder, num_samples: int) -> list[Sample]:
    """Returns a batch's first rollouts, at most ``num_samples`` of them."""
    rows = zip(batch.problems, batch.reveal_ratios, batch.teacher_prompts, batch.texts, batch.is_correct, strict=True)
    return [
        Sample(
            problem_id=problem.id,
            problem=problem.problem,
            student_prompt=builder.student_text(problem),
            teacher_prompt=prompt.text,
            reveal_ratio=ratio,
            num_shown=prompt.num_shown,
            num_steps=prompt.num_steps,
            rollout=text,
            answer=problem.answer,
            is_correct=is_correct,
            remark=builder.task.remark(text, problem),
        )
        for problem, ratio, prompt, text, is_correct in list(rows)[:num_samples]
    ]
