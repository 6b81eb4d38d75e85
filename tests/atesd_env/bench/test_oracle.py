"""The oracle's search against all schedules there are, and its schedules as files and as an agent's decisions."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from atesd_env.bench import InstanceSet, best_schedule, oracle_schedule, oracle_schedules
from atesd_env.bench.oracle import (
    Prefix,
    Schedule,
    best_of,
    followed_to_the_end,
    grid_of_actions,
    kept,
    random_schedule,
)
from atesd_env.bench.schedules import schedules_file, write_schedules
from atesd_env.envs.contract import Students
from atesd_env.errors import ConfigError, DataError
from tests.atesd_env.bench.sets import toy_set

CARD = {"command": "python -m benchmarks.x", "commit": "abc1234", "seeds": [0], "windows_spent": 9}


def toy_students(**fields: Any) -> Students:
    env: Any = gymnasium.make("ATESD-Toy-v0", toy_noise=0.1, **fields).unwrapped
    env.reset(seed=0)
    students: Students = env.population
    return students


def ending(students: Students, ratios: Any, seeds: list[int]) -> tuple[float, float]:
    """Returns mean probe accuracy and NLL after a schedule [windows][groups]."""
    followed = students.twin(len(seeds))
    for index, seed in enumerate(seeds):
        followed.reset(index, seed)
    for action in ratios:
        followed.window(np.array([action] * len(seeds)))
    accuracy = float(np.mean([run.rows[-1]["probe/accuracy"] for run in followed.runs]))
    return accuracy, float(np.mean([run.probe_nll for run in followed.runs]))


@pytest.mark.parametrize(
    ("fields", "actions"),
    [
        ({"toy_kind": "drift", "toy_best_ratio": 0.1, "toy_final_ratio": 0.9}, grid_of_actions((0.0, 0.5, 1.0), 1)),
        ({"toy_best_ratio": 0.4, "groups": 2, "toy_group_spread": 0.6}, grid_of_actions((0.1, 0.7), 2)),
        ({"toy_kind": "delayed", "toy_best_ratio": 0.4}, grid_of_actions((0.1, 0.4, 0.9), 1)),
    ],
)
def test_the_best_of_all_schedules_is_found(fields: dict[str, Any], actions: list[tuple[float, ...]]):
    students, seeds = toy_students(windows=6, **fields), [0, 1]
    found, spent = best_schedule(students, actions, seeds, stages=3, width=len(actions))
    all_there_are = [
        (*ending(students, [a for a in stages for _ in range(2)], seeds), stages)
        for stages in itertools.product(actions, repeat=3)
    ]
    accuracy, nll, stages = max(all_there_are, key=lambda one: (one[0], -one[1]))
    assert found.ratios == tuple(action for action in stages for _ in range(2))
    assert (found.accuracy, found.nll) == pytest.approx((accuracy, nll))
    assert spent == len(actions) * len(seeds) * 2 * (1 + 2 * len(actions))


def test_schedules_drawn_at_random_are_as_many_as_the_budget_pays_for_and_the_best_is_taken():
    """With a budget for all there are, each is drawn once: what is found is what the oracle finds."""
    students, actions, seeds = toy_students(windows=4, toy_best_ratio=0.6), grid_of_actions((0.0, 0.5, 1.0), 1), [0, 1]
    best, _ = best_schedule(students, actions, seeds, stages=2, width=3)
    every = random_schedule(students, actions, seeds, stages=2, budget=99, rng=np.random.default_rng(3))
    assert every == (best, 9 * 4 * 2)
    few = random_schedule(students, actions, seeds, stages=2, budget=31, rng=np.random.default_rng(0))
    assert few[1] == 3 * 4 * 2
    assert (few[0].accuracy, few[0].nll) == pytest.approx(ending(students, few[0].ratios, seeds))
    assert followed_to_the_end(students, [few[0].ratios, best.ratios], seeds) == [few[0], best]


def test_the_students_that_are_asked_stay_as_they_are():
    students = toy_students(windows=4)
    before = students.snapshot(0)
    best_schedule(students, [(0.0,), (1.0,)], [5], stages=2, width=1)
    assert students.snapshot(0) == before


def test_of_prefixes_that_end_alike_only_the_best_goes_on():
    ends = ((0.5, 1.0), (0.5, 2.0), (1.0, 3.0), (0.0, 4.0))
    prefixes = [Prefix(((nll / 9,), (end,)), [], nll) for end, nll in ends]
    assert [one.nll for one in kept(prefixes, 2)] == [1.0, 3.0]
    assert [one.nll for one in kept(prefixes, 9)] == [1.0, 3.0, 4.0]


def test_accuracy_counts_before_nll():
    right, likely, unmeasured = Schedule((), 0.8, 0.3), Schedule((), 0.7, 0.1), Schedule((), np.nan, 0.2)
    assert best_of([likely, right, right._replace(nll=0.4)]) == right
    assert best_of([unmeasured._replace(nll=0.3), unmeasured]) is unmeasured


@pytest.mark.parametrize(
    ("actions", "seeds", "stages", "width"), [([], [0], 1, 1), ([(0.0,)], [], 1, 1), ([(0.0,)], [0], 9, 1)]
)
def test_a_search_of_nothing_is_refused(actions: Any, seeds: Any, stages: int, width: int):
    with pytest.raises(ConfigError, match="oracle: expected actions, seeds, a width"):
        best_schedule(toy_students(windows=4), actions, seeds, stages=stages, width=width)


@pytest.fixture
def mine(tmp_path: Path) -> InstanceSet:
    toy_set().save(tmp_path / "mine.json")
    return InstanceSet.from_file(tmp_path / "mine.json")


SCHEDULES: dict[str, dict[str, Any]] = {
    "low": {"ratios": [[0.1], [0.2], [0.3]], **CARD},
    "both": {"ratios": [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]], **CARD},
}


def test_schedules_come_back(mine: InstanceSet):
    assert oracle_schedules(mine) == {}
    write_schedules(mine, SCHEDULES)
    assert oracle_schedules(mine) == SCHEDULES
    assert oracle_schedule(mine, "both").tolist() == SCHEDULES["both"]["ratios"]


def test_what_is_no_schedule_of_the_set_is_refused(mine: InstanceSet):
    with pytest.raises(ConfigError, match="did you mean 'low'"):
        write_schedules(mine, {"lwo": SCHEDULES["low"]})
    with pytest.raises(ConfigError, match="schedules: expected the entries ratios, command"):
        write_schedules(mine, {"low": {"ratios": []}})
    write_schedules(mine, {"low": SCHEDULES["both"]})
    with pytest.raises(DataError, match=r"for 3 windows and 1 groups of 'low', got an array of shape \(3, 2\)"):
        oracle_schedule(mine, "low")
    with pytest.raises(ConfigError, match="expected a schedule of 'high', got those of low"):
        oracle_schedule(mine, "high")
    path = schedules_file(mine)
    path.write_text(path.read_text().replace(mine.fingerprint, "0" * 16))
    with pytest.raises(DataError, match="got those of '0000000000000000'; search for them again"):
        oracle_schedules(mine)
    path.write_text("{")
    with pytest.raises(DataError, match=r"mine\.oracle\.json"):
        oracle_schedules(mine)
