"""Task `code`: programs that are right if they pass their tests, such as HumanEval's and MBPP+'s.

The steps of a reference solution are blocks of its program (`atesd_env.tasks.programs`). What every reveal ratio shows, 0 too, in the place
of a final answer, is the function's signature and the examples that the problem shows already, or nothing. A rollout states the last
block of code that it fences, which must define the function; it is run in isolation (`atesd_env.tasks.grading.programs`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from atesd_env.tasks.base import Problem
from atesd_env.tasks.data.code_rows import CodeRow, parse_code_row
from atesd_env.tasks.data.rows import DataRow, ParseRow
from atesd_env.tasks.from_rows import CutSteps, RowsTask, difficulty_of
from atesd_env.tasks.grading.programs import Verdict, check_installed, run_tests
from atesd_env.tasks.programs import program_of, split_program
from atesd_env.tasks.wording import student_request, teacher_request

ShownAnswer = Literal["examples", "nothing"]
"""What plays the part of the final answer: signature and visible examples, or nothing."""

CLOSING_REQUEST = "Write the whole function, with the imports that it needs, in one block that begins with ```python and ends with ```."
"""The last words of both requests."""


@dataclass(frozen=True, kw_only=True)
class CodeProblem(Problem):
    """A problem with its tests.

    Attributes:
        context: What of the problem itself is a program, and runs before a rollout's; perhaps "".
        tests: Assertions about the function, or a function ``check``.
        entry_point: The function's name.
    """

    context: str
    tests: str
    entry_point: str

    @property
    def what_counts(self) -> tuple[str, ...]:
        return (self.context, self.tests, self.entry_point)


class CodeTask(RowsTask):
    """Programs with tests (see `atesd_env.tasks.data.code_rows` for its rows).

    Args:
        data_path: As ``RowsTask`` has it.
        probe_data_path: As ``RowsTask`` has it.
        shown_answer: What every reveal ratio shows in the place of a final answer.
        **options: The others of ``RowsTask``.

    Raises:
        ConfigError: If the package pydantic-monty, in which programs run, is not installed; and as ``RowsTask`` does.
        DataError: As ``RowsTask`` does.
    """

    parse: ClassVar[ParseRow] = staticmethod(parse_code_row)
    steps: ClassVar[CutSteps] = staticmethod(split_program)

    def __init__(
        self,
        data_path: str | Path,
        probe_data_path: str | Path | None = None,
        *,
        shown_answer: ShownAnswer = "examples",
        **options: Any,
    ) -> None:
        check_installed()
        self._shown_answer = shown_answer
        super().__init__(data_path, probe_data_path, **options)

    @classmethod
    def as_problem(cls, row: DataRow, has_levels: bool) -> CodeProblem:
        assert isinstance(row, CodeRow)
        steps = split_program(row.solution)
        return CodeProblem(
            id=row.id,
            problem=row.problem,
            steps=steps,
            answer=row.answer,
            difficulty=difficulty_of(row, steps, has_levels),
            views=tuple((name, split_program(text)) for name, text in row.views),
            context=row.context,
            tests=row.tests,
            entry_point=row.entry_point,
        )

    def student_request(self, problem: Problem) -> str:
        return student_request(problem.problem, CLOSING_REQUEST)

    def teacher_request(self, problem: Problem, shown_steps: tuple[str, ...], shown_answer: str | None) -> str:
        shown = []
        if shown_steps:
            shown.append(_fenced("".join(shown_steps)))
        if shown_answer and self._shown_answer == "examples":
            shown.append(f"The function and what it returns:\n{shown_answer}")
        return teacher_request(problem.problem, shown, CLOSING_REQUEST)

    def reference_completion(self, problem: Problem) -> str:
        return _fenced("".join(problem.steps))

    def extract_answer(self, text: str) -> str | None:
        """Returns the program that a rollout states: its last closed block of Python."""
        return program_of(text)

    def is_correct(self, text: str, problem: Problem) -> bool:
        return self.verdict(text, problem).outcome == "passed"

    def judge(self, text: str, problem: Problem) -> bool | None:
        """Returns what ``is_correct`` does, and None for a program that was not executed."""
        outcome = self.verdict(text, problem).outcome
        return None if outcome == "not executed" else outcome == "passed"

    def remark(self, text: str, problem: Problem) -> str:
        """Returns the failing test and what came of it, "" where all passed."""
        verdict = self.verdict(text, problem)
        return f"{verdict.outcome}: {verdict.reason}" if verdict.reason else ""

    def verdict(self, text: str, problem: Problem) -> Verdict:
        """Returns what the tests say of a rollout."""
        assert isinstance(problem, CodeProblem)
        program = self.extract_answer(text)
        if program is None:
            return Verdict("failed", "no closed block of Python")
        return run_tests(program, problem.context, problem.tests, problem.entry_point)


def _fenced(program: str) -> str:
    return f"```python\n{program.strip(chr(10))}\n```"
