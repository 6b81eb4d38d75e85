"""The order of a run's problems, and the other problem that a control shows."""

from __future__ import annotations

import dataclasses

import pytest

from atesd_env.errors import DataError
from atesd_env.population.problems import next_problems, problem_at
from atesd_env.tasks.arithmetic import ArithmeticTask
from atesd_env.tasks.base import Problem


class ThreeInARing(ArithmeticTask):
    """Three problems whose passes end and begin with the same one: 0 1 2, 2 1 0, 0 1 2, ..."""

    def training_problem(self, seed: int, index: int) -> Problem:
        place = index % 6
        return Problem(str(min(place, 5 - place)), "", ("",), "", 1.0)


def test_a_run_goes_on_where_it_stopped():
    task = ArithmeticTask()
    first, _ = next_problems(task, 7, 0, 5)
    second, _ = next_problems(task, 7, 5, 3)
    assert first + second == [problem_at(task, 7, number) for number in range(8)]
    assert first != next_problems(task, 8, 0, 5)[0]


def test_the_other_problem_is_the_next_one_and_never_the_same():
    problems, others = next_problems(ThreeInARing(), 0, 1, 6)
    assert [problem.id for problem in problems] == ["1", "2", "2", "1", "0", "0"]
    assert [other.id for other in others] == ["2", "1", "1", "0", "1", "1"]


def test_a_wrong_answer_comes_from_the_next_problem_with_another_one():
    class SameAnswers(ThreeInARing):
        """Answers 5, 5.0 and 7: two spellings of one, as a task may know."""

        def training_problem(self, seed: int, index: int) -> Problem:
            problem = super().training_problem(seed, index)
            return dataclasses.replace(problem, answer={"0": "5", "1": "5.0", "2": "7"}[problem.id])

        def same_answer(self, first: str, second: str) -> bool:
            return float(first) == float(second)

    problems, others = next_problems(SameAnswers(), 0, 0, 6, "wrong_answer")
    assert [problem.id for problem in problems] == ["0", "1", "2", "2", "1", "0"]
    assert [other.answer for other in others] == ["7", "7", "5.0", "5.0", "7", "7"]
    with pytest.raises(DataError, match=r"exposure: expected data with several answers .*, got '' again"):
        next_problems(ThreeInARing(), 0, 0, 1, "wrong_answer")
