"""Difficulty groups: about equal, ordered, none empty, the same for every run."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atesd_env.errors import ConfigError
from atesd_env.tasks.arithmetic import ArithmeticTask, running_sum
from atesd_env.tasks.base import Problem
from atesd_env.tasks.groups import DifficultyGroups, quantile_edges


def problem_of(difficulty: float) -> Problem:
    return Problem("p", "p", ("s",), "a", difficulty)


class Spread(ArithmeticTask):
    """A task of about 80 different difficulties: the sum itself."""

    def training_problem(self, seed: int, index: int) -> Problem:
        problem = super().training_problem(seed, index)
        return Problem(problem.id, problem.problem, problem.steps, problem.answer, float(problem.answer))


def test_terciles_are_about_equal_on_problems_of_another_seed():
    """A share of 2000 has a standard deviation of 1 point, edges from 512 add 2: off by 10 has odds below 1e-4."""
    task = Spread(2, 5)
    groups = DifficultyGroups.from_task(task, 3)
    counts = Counter(groups.group(task.training_problem(99, index)) for index in range(2000))
    assert sorted(counts) == [0, 1, 2]
    assert all(abs(count / 2000 - 1 / 3) < 0.1 for count in counts.values())


def test_groups_are_monotone_in_difficulty_and_all_are_used():
    task = Spread(2, 5)
    for num_groups in (1, 2, 3, 4, 16):
        groups = DifficultyGroups.from_task(task, num_groups)
        assert len(groups.edges) == num_groups - 1
        assert list(groups.edges) == sorted(set(groups.edges))
        assigned = [groups.group(problem_of(difficulty)) for difficulty in np.arange(0.0, 600.0, 0.5)]
        assert assigned == sorted(assigned)
        assert sorted(set(assigned)) == list(range(num_groups))


@pytest.mark.parametrize("bounds", [(4, 5), (2, 3), (19, 20)])
def test_two_lengths_make_two_groups(bounds: tuple[int, int]):
    """Quantiles alone would put both lengths into one group whenever the shorter one is drawn a little more often."""
    groups = DifficultyGroups.from_task(ArithmeticTask(*bounds), 2)
    assert [groups.group(running_sum([10] * length)) for length in bounds] == [0, 1]


def test_four_lengths_in_two_and_four_groups():
    task = ArithmeticTask(2, 5)
    problems = [running_sum([10] * length) for length in (2, 3, 4, 5)]
    assert [DifficultyGroups.from_task(task, 2).group(problem) for problem in problems] == [0, 0, 1, 1]
    assert [DifficultyGroups.from_task(task, 4).group(problem) for problem in problems] == [0, 1, 2, 3]


@pytest.mark.parametrize(("bounds", "num_groups", "most"), [((4, 5), 3, 2), ((4, 4), 2, 1), ((2, 5), 16, 4)])
def test_more_groups_than_difficulties_are_refused(bounds: tuple[int, int], num_groups: int, most: int):
    """An action with a ratio that reaches no problem would look like a choice and be none."""
    with pytest.raises(ConfigError) as caught:
        DifficultyGroups.from_task(ArithmeticTask(*bounds), num_groups)
    assert f"groups: expected at most {most}," in str(caught.value)
    assert f"got {num_groups}; lower groups" in str(caught.value)


def test_one_group_holds_everything():
    groups = DifficultyGroups.from_task(ArithmeticTask(4, 4), 1)
    assert groups.edges == ()
    assert {groups.group(problem_of(difficulty)) for difficulty in (-1e9, 0.0, 1e9)} == {0}


def test_groups_are_the_same_for_every_run():
    task = Spread(2, 5)
    first = DifficultyGroups.from_task(task, 4)
    task.training_problem(12, 34)
    assert DifficultyGroups.from_task(task, 4) == first == DifficultyGroups.from_task(Spread(2, 5), 4)


def test_a_problem_on_an_edge_belongs_to_the_harder_group():
    groups = DifficultyGroups((2.0, 4.0))
    assert [groups.group(problem_of(difficulty)) for difficulty in (1.9, 2.0, 3.9, 4.0, 9.0)] == [0, 1, 1, 2, 2]


def test_each_problem_gets_its_groups_ratio():
    groups = DifficultyGroups((2.0, 4.0))
    problems = [problem_of(difficulty) for difficulty in (5.0, 1.0, 3.0, 1.0)]
    ratios = groups.ratios(problems, np.array([0.1, 0.5, 0.9]))
    assert ratios == [0.9, 0.1, 0.5, 0.1]
    assert all(type(ratio) is float for ratio in ratios)


# The edges


@pytest.mark.parametrize(
    ("difficulties", "num_groups", "edges"),
    [
        ([1, 2, 3, 4, 5, 6], 3, (3, 5)),
        ([1, 2, 3, 4, 5, 6], 2, (4,)),
        ([1, 1, 1, 1, 1, 2], 2, (2,)),
        ([1, 2, 2, 2, 2, 2], 2, (2,)),
        ([1, 2, 2, 2, 2, 3], 3, (2, 3)),
        ([5, 1, 4, 2, 3], 5, (2, 3, 4, 5)),
        ([7, 7, 7], 1, ()),
    ],
)
def test_edges_by_hand(difficulties: list[float], num_groups: int, edges: tuple[float, ...]):
    assert quantile_edges(difficulties, num_groups) == edges


@settings(derandomize=True, database=None, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(1, 6))
def test_no_group_is_empty_and_order_does_not_matter(difficulties: list[int], num_groups: int):
    if len(set(difficulties)) < num_groups:
        with pytest.raises(ConfigError, match="groups: expected at most"):
            quantile_edges(difficulties, num_groups)
        return
    edges = quantile_edges(difficulties, num_groups)
    assert edges == quantile_edges(sorted(difficulties, reverse=True), num_groups)
    groups = DifficultyGroups(tuple(float(edge) for edge in edges))
    assert {groups.group(problem_of(difficulty)) for difficulty in difficulties} == set(range(num_groups))


@pytest.mark.parametrize("num_groups", [2, 3, 4, 7, 16])
def test_different_difficulties_are_shared_out_to_within_one_problem(num_groups: int):
    for size in (16, 100, 101, 512):
        edges = quantile_edges(list(range(size)), num_groups)
        sizes = [last - first for first, last in itertools.pairwise((0, *edges, size))]
        assert max(sizes) - min(sizes) <= 2
        assert min(sizes) >= 1
