"""The order of a run's problems, and the other problem that a control shows."""

from __future__ import annotations

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
