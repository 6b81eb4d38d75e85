"""Phases: what a run trains on changes, by the run's length and its seed alone; what it is measured on does not."""

from __future__ import annotations

import numpy as np
import pytest

from atesd_env.config import EnvConfig
from atesd_env.population.population import Population
from atesd_env.tasks.arithmetic import ArithmeticTask
from atesd_env.tasks.groups import DifficultyGroups
from atesd_env.tasks.phases import Phases
from atesd_env.tasks.registry import make_task


def lengths(task: ArithmeticTask, seed: int, number: int) -> list[float]:
    return [task.training_problem(seed, index).difficulty for index in range(number)]


def test_each_phase_has_its_equal_part_of_the_run():
    task = ArithmeticTask(3, 5, Phases(((3, 3), (4, 4), (5, 5)), num_problems=30))
    assert lengths(task, 7, 33) == [3] * 10 + [4] * 10 + [5] * 13


def test_a_phase_may_hold_several_lengths():
    task = ArithmeticTask(2, 5, Phases(((2, 3), (4, 5)), num_problems=200))
    found = lengths(task, 0, 200)
    assert set(found[:100]) == {2, 3}
    assert set(found[100:]) == {4, 5}


def test_a_phase_of_all_lengths_is_a_run_without_phases():
    plain, phased = ArithmeticTask(4, 5), ArithmeticTask(4, 5, Phases(((4, 5), (4, 5)), 40))
    assert [plain.training_problem(3, index) for index in range(40)] == [
        phased.training_problem(3, index) for index in range(40)
    ]


def test_the_change_is_drawn_from_the_seed_within_the_range_that_is_stated():
    phases = Phases(((4, 4), (5, 5)), num_problems=1000, jitter=0.2)
    changes = [phases.changes(seed)[0] for seed in range(400)]
    assert changes == [phases.changes(seed)[0] for seed in range(400)]
    assert min(changes) == pytest.approx(0.3, abs=0.01)
    assert max(changes) == pytest.approx(0.7, abs=0.01)
    assert np.mean(changes) == pytest.approx(0.5, abs=0.02)
    task = ArithmeticTask(4, 5, phases)
    assert lengths(task, 5, 1000).index(5) == np.ceil(changes[5] * 1000)


def test_probe_heldout_and_groups_are_of_all_phases():
    plain, phased = ArithmeticTask(4, 5), ArithmeticTask(4, 5, Phases(((4, 4), (5, 5)), 4000))
    assert phased.probe_problems(20) == plain.probe_problems(20)
    assert phased.heldout_problems(20) == plain.heldout_problems(20)
    assert DifficultyGroups.from_task(phased, 2) == DifficultyGroups.from_task(plain, 2)


def test_the_configuration_makes_the_task(tiny_config: EnvConfig):
    config = tiny_config.replace(phases="4,5", windows=2, hold_window=3, num_rollouts=4)
    task = make_task(config.replace(phase_jitter=0.25))
    assert isinstance(task, ArithmeticTask)
    assert task.phases == Phases(((4, 4), (5, 5)), 24, 0.25)
    assert make_task(tiny_config).phases is None


def test_a_run_that_goes_on_meets_the_phase_that_it_was_in(tiny_config: EnvConfig):
    """A stream and a stationary run side by side; the restored window trains on what it would have trained on."""
    config = tiny_config.replace(windows=4, hold_window=1, num_rollouts=4)
    population = Population(config, 2, instances=[{"phases": "4,5", "phase_jitter": 0.2}, {}])
    for student in range(2):
        population.reset(student, 5)
    ratios = np.full((2, 1), 0.5)
    population.window(ratios)
    kept = population.snapshot(0)
    rows = [population.window(ratios)[0] for _ in range(3)]
    assert [problem.difficulty for problem in population._next_problems(0)[0]] == [5] * 4
    population.restore(0, kept)
    assert [population.window(ratios[:1], [0])[0]["probe/nll"] for _ in range(3)] == [row["probe/nll"] for row in rows]
