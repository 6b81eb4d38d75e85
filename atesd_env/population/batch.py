"""One student's rollouts of one update, with what its teacher is shown and how they were graded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from atesd_env.exposure import TeacherPrompt
from atesd_env.population.decision import Decision
from atesd_env.population.instance import Instance
from atesd_env.rollouts.sampling import Rollouts
from atesd_env.tasks.base import Problem

Answered = tuple[Instance, Sequence[Problem], Sequence[Problem], Rollouts, Sequence[str]]
"""What ``make_batch`` makes a batch of, apart from the decision."""


@dataclass(frozen=True)
class Batch:
    """B rollouts, row by row; in several processes this one's share of them.

    Attributes:
        problems: What was asked.
        groups: Each problem's difficulty group, from 0.
        reveal_ratios: The ratio of that group, or of the problem itself, 0..1.
        teacher_prompts: What the teacher is given.
        rollouts: What the student answered.
        texts: The same as text.
        is_correct: Whether the answers are right.
    """

    problems: Sequence[Problem]
    groups: Sequence[int]
    reveal_ratios: Sequence[float]
    teacher_prompts: Sequence[TeacherPrompt]
    rollouts: Rollouts
    texts: Sequence[str]
    is_correct: Sequence[bool]

    @property
    def shown(self) -> list[Sequence[int]]:
        """The teacher prompts' tokens."""
        return [prompt.token_ids for prompt in self.teacher_prompts]


def make_batch(
    instance: Instance,
    problems: Sequence[Problem],
    others: Sequence[Problem],
    rollouts: Rollouts,
    texts: Sequence[str],
    decision: Decision,
) -> Batch:
    """Exposes the teacher, and grades the answers.

    Args:
        instance: The student's.
        problems: B problems.
        others: For each of them another one.
        rollouts: B answers to the problems.
        texts: The same as text.
        decision: The update's.
    """
    groups = [instance.groups.group(problem) for problem in problems]
    by_problem = decision.reveal_ratios[groups] if decision.by_problem is None else decision.by_problem
    ratios: list[float] = by_problem.tolist()
    kind, builder = instance.config.exposure, instance.builder
    view = instance.config.views[decision.view]
    return Batch(
        problems,
        groups,
        ratios,
        [
            builder.teacher_prompt(problem.seen_as(view), ratio, kind, other.seen_as(view))
            for problem, ratio, other in zip(problems, ratios, others, strict=True)
        ],
        rollouts,
        texts,
        [instance.task.is_correct(text, problem) for text, problem in zip(texts, problems, strict=True)],
    )
