"""Tasks in the notation of the packaged students: worked steps, then ``#`` and the final answer, a string of digits."""

from __future__ import annotations

from atesd_env.tasks.base import Problem, Task


class HashedTask(Task):
    """``problem`` is answered by ``steps#answer``; the teacher is given ``problem|shown steps#answer``."""

    def student_request(self, problem: Problem) -> str:
        return problem.problem

    def teacher_request(self, problem: Problem, shown_steps: tuple[str, ...], shown_answer: str | None) -> str:
        answer = "" if shown_answer is None else f"#{shown_answer}"
        return f"{problem.problem}|{''.join(shown_steps)}{answer}"

    def reference_completion(self, problem: Problem) -> str:
        return f"{''.join(problem.steps)}#{problem.answer}"

    def extract_answer(self, text: str) -> str | None:
        answer = text.rpartition("#")[2] if "#" in text else ""
        return answer if answer.isascii() and answer.isdigit() else None

    def is_correct(self, text: str, problem: Problem) -> bool:
        return self.extract_answer(text) == problem.answer
