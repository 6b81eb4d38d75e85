r"""Tasks whose rollouts end in a boxed final answer: the wording of both requests, and grading by the last box."""

from __future__ import annotations

from atesd_env.tasks.base import Problem, Task
from atesd_env.tasks.grading.answers import answers_match, judged, last_boxed
from atesd_env.tasks.wording import student_request, teacher_request

CLOSING_REQUEST = "Work it out step by step, and give the final answer at the end inside \\boxed{}."
"""The last words of both requests."""


class BoxedTask(Task):
    r"""Reasoning that ends in ``\boxed{}``; answers are compared by the rules of `atesd_env.tasks.grading.answers`."""

    closing_request: str = CLOSING_REQUEST

    def student_request(self, problem: Problem) -> str:
        return student_request(problem.problem, self.closing_request)

    def teacher_request(self, problem: Problem, shown_steps: tuple[str, ...], shown_answer: str | None) -> str:
        reasoning = "".join(shown_steps).strip()
        answer = [] if shown_answer is None else [_final_answer(shown_answer)]
        shown = [*([reasoning] if reasoning else []), *answer]
        return teacher_request(problem.problem, shown, self.closing_request)

    def reference_completion(self, problem: Problem) -> str:
        """Returns the whole solution; a line with the boxed final answer is added if it has no box."""
        solution = "".join(problem.steps).strip()
        return solution if last_boxed(solution) else f"{solution}\n{_final_answer(problem.answer)}"

    def extract_answer(self, text: str) -> str | None:
        r"""Returns the content of the last ``\boxed{}``; nothing else counts as an answer."""
        return last_boxed(text)

    def is_correct(self, text: str, problem: Problem) -> bool:
        return answers_match(self.extract_answer(text), problem.answer)

    def judge(self, text: str, problem: Problem) -> bool | None:
        return judged(self.extract_answer(text), problem.answer)

    def same_answer(self, first: str, second: str) -> bool:
        return answers_match(first, second)


def _final_answer(answer: str) -> str:
    return f"Final answer: \\boxed{{{answer}}}"
