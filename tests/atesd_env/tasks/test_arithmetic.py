"""Running sums: right by construction, the same for the same (seed, index), and never in two splits."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from atesd_env.errors import ConfigError
from atesd_env.tasks.arithmetic import ArithmeticTask, running_sum, split_of
from atesd_env.tasks.base import Problem


def addends_of(problem: Problem) -> list[int]:
    return [int(addend) for addend in problem.problem.split("+")]


# Problems


@pytest.mark.parametrize("bounds", [(2, 2), (4, 5), (2, 5), (3, 20)])
def test_problems_are_sums_with_one_right_step_for_each_addition(bounds: tuple[int, int]):
    task = ArithmeticTask(*bounds)
    for problem in [*(task.training_problem(1, index) for index in range(100)), *task.probe_problems(20)]:
        addends = addends_of(problem)
        assert bounds[0] <= len(addends) <= bounds[1]
        assert all(10 <= addend <= 99 for addend in addends)
        assert problem.answer == str(sum(addends))
        assert problem.difficulty == len(addends)
        assert len(problem.steps) == len(addends) - 1
        sums = list(itertools.accumulate(addends))
        steps = [
            f"{before}+{addend}={after}" for before, addend, after in zip(sums, addends[1:], sums[1:], strict=False)
        ]
        assert "".join(problem.steps) == ";".join(steps)
        assert task.reference_completion(problem) == ";".join(steps) + f"#{sum(addends)}"


def test_the_packages_example():
    problem = running_sum([37, 48, 25])
    assert problem == Problem("37+48+25", "37+48+25", ("37+48=85;", "85+25=110"), "110", 3.0)
    assert ArithmeticTask().reference_completion(problem) == "37+48=85;85+25=110#110"


def test_requests_show_what_they_are_told_to():
    task = ArithmeticTask()
    problem = running_sum([37, 48, 25])
    assert task.student_request(problem) == "37+48+25"
    assert task.teacher_request(problem, (), "110") == "37+48+25|#110"
    assert task.teacher_request(problem, problem.steps[:1], "110") == "37+48+25|37+48=85;#110"
    assert task.teacher_request(problem, problem.steps, "110") == "37+48+25|37+48=85;85+25=110#110"


def test_a_problem_is_a_function_of_seed_and_index():
    task, twin = ArithmeticTask(2, 5), ArithmeticTask(2, 5)
    keys = [(seed, index) for seed in range(5) for index in range(20)]
    forwards = {key: task.training_problem(*key) for key in keys}
    backwards = {key: twin.training_problem(*key) for key in reversed(keys)}
    assert forwards == backwards
    assert len({problem.id for problem in forwards.values()}) > 90, "few of 100 draws out of millions may coincide"


def test_seeds_and_indices_give_different_orders():
    task = ArithmeticTask(4, 5)
    orders = [tuple(task.training_problem(seed, index).id for index in range(10)) for seed in range(30)]
    assert len(set(orders)) == 30
    assert all(len(set(order)) == 10 for order in orders)


def test_no_global_generator_is_read_or_set():
    before = (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    first = ArithmeticTask().training_problem(0, 0)
    random.random()
    assert ArithmeticTask().training_problem(0, 0) == first
    ArithmeticTask().probe_problems(3)
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


def test_numbers_of_addends_and_addends_are_uniform():
    """Chi-square on 4000 problems of seed 0 at the 1e-6 level each; the seed is fixed, so nothing can flake."""
    task = ArithmeticTask(2, 5)
    problems = [task.training_problem(0, index) for index in range(4000)]
    assert stats.chisquare(list(Counter(p.difficulty for p in problems).values())).pvalue > 1e-6
    tens = Counter(addend // 10 for problem in problems for addend in addends_of(problem))
    assert sorted(tens) == list(range(1, 10))
    assert stats.chisquare([tens[ten] for ten in range(1, 10)]).pvalue > 1e-6


# Splits


def test_training_probe_and_heldout_never_overlap_whatever_the_seed():
    """100 seeds x 30 problems of every length against probes and held-out sets of other lengths too."""
    tasks = [ArithmeticTask(*bounds) for bounds in ((2, 2), (2, 3), (4, 5), (2, 5))]
    used = {"training": set(), "probe": set(), "heldout": set()}
    for task in tasks:
        used["training"] |= {task.training_problem(seed, index).problem for seed in range(100) for index in range(30)}
        used["probe"] |= {problem.problem for problem in task.probe_problems(300)}
        used["heldout"] |= {problem.problem for problem in task.heldout_problems(300)}
    assert not used["training"] & used["probe"]
    assert not used["training"] & used["heldout"]
    assert not used["probe"] & used["heldout"]
    for split, texts in used.items():
        assert {split_of(text) for text in texts} == {split}
    assert len(used["training"]) > 5000


def test_every_two_addend_problem_has_one_use_and_all_of_a_small_split_can_be_asked_for():
    every = {f"{left}+{right}": split_of(f"{left}+{right}") for left in range(10, 100) for right in range(10, 100)}
    task = ArithmeticTask(2, 2)
    for split, problems in (("probe", task.probe_problems), ("heldout", task.heldout_problems)):
        members = {text for text, assigned in every.items() if assigned == split}
        assert 400 < len(members) < 620, "a sixteenth of 8100"
        assert {problem.problem for problem in problems(len(members))} == members


def test_the_probe_is_always_the_same_and_a_smaller_one_is_a_part_of_it():
    first = ArithmeticTask(4, 5)
    for seed in range(20):
        first.training_problem(seed, seed)
    probe = first.probe_problems(50)
    assert ArithmeticTask(4, 5).probe_problems(50) == probe
    assert first.probe_problems(10) == probe[:10]
    assert len({problem.id for problem in probe}) == 50
    assert first.heldout_problems(50) == ArithmeticTask(4, 5).heldout_problems(50)
    assert first.probe_problems(0) == []


def test_the_probe_of_the_tiny_preset_stays_what_it_was():
    """Published numbers are measured on these problems; changing them would make numbers incomparable."""
    begins = ["37+21+25+64+17", "27+77+98+35+41", "33+70+36+76+61"]
    assert [problem.problem for problem in ArithmeticTask(4, 5).probe_problems(3)] == begins


@pytest.mark.parametrize("split", ["probe", "heldout"])
def test_asking_for_more_problems_than_exist_is_refused_without_a_long_search(split: str):
    class Counting(ArithmeticTask):
        num_draws = 0

        def _draw(self, split, rng):
            self.num_draws += 1
            return super()._draw(split, rng)

    task = Counting(2, 2)
    ask = task.probe_problems if split == "probe" else task.heldout_problems
    with pytest.raises(ConfigError) as caught:
        ask(100_000)
    for part in (f"{split} problems", "expected 100000", "2 to 2 addends", "ask for fewer or allow more addends"):
        assert part in str(caught.value)
    assert task.num_draws < 15_000


@pytest.mark.parametrize("bounds", [(1, 3), (5, 4), (0, 0), (-2, 2)])
def test_wrong_bounds_are_refused(bounds: tuple[int, int]):
    with pytest.raises(
        ConfigError, match=rf"expected 2 <= min_addends <= max_addends, got {bounds[0]} and {bounds[1]}"
    ):
        ArithmeticTask(*bounds)


# Grading


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("37+48=85;85+25=110#110", "110"),
        ("#110", "110"),
        ("#99#110", "110"),
        ("##110", "110"),
        ("", None),
        ("110", None),
        ("37+48=85;85+25=110", None),
        ("37+48=85;85+25=110#", None),
        ("#110#", None),
        ("#110 ", None),
        ("# 110", None),
        ("#110\n", None),
        ("#-110", None),
        ("#11O", None),
        ("#1_10", None),
        ("#\N{FULLWIDTH DIGIT ONE}\N{FULLWIDTH DIGIT ONE}\N{FULLWIDTH DIGIT ZERO}", None),
        ("#\N{SUPERSCRIPT TWO}", None),
        ("#110;", None),
    ],
)
def test_the_answer_is_what_stands_behind_the_last_mark(text: str, answer: str | None):
    task = ArithmeticTask()
    assert task.extract_answer(text) == answer
    assert task.is_correct(text, running_sum([37, 48, 25])) == (answer == "110")


def test_only_the_right_answer_is_right():
    task = ArithmeticTask(2, 5)
    for index in range(50):
        problem = task.training_problem(0, index)
        assert task.is_correct(task.reference_completion(problem), problem)
        for wrong in (int(problem.answer) + 1, int(problem.answer) * 10, 0):
            assert not task.is_correct(f"#{wrong}", problem)
        assert not task.is_correct(f"#0{problem.answer}", problem), "a leading zero is not how sums are written"


def test_wrong_steps_before_a_right_answer_do_not_matter():
    assert ArithmeticTask().is_correct("37+48=86;86+25=111#110", running_sum([37, 48, 25]))


def test_nothing_is_dropped_by_a_restriction():
    """Generated problems have no end, so none is left out; an over-long one is refused when it is met."""
    assert ArithmeticTask().restrict(lambda problem: False) == 0
