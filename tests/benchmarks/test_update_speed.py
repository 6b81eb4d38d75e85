"""Checkouts that take turns: each is a process of its own, whose updates are those that the package makes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from atesd_env.config import preset
from atesd_env.population.population import Population
from benchmarks.common import FAST
from benchmarks.update_speed import Way, take_turns

ROOT = Path(__file__).parents[2]


def test_ways_take_turns_and_make_the_packages_updates():
    ways = [Way(ROOT, "ATESD-Tiny-v0", 1, fields) for fields in ({"num_rollouts": 2}, {"num_rollouts": 2, **FAST})]
    take_turns(ways, updates=1)
    config = preset(
        "ATESD-Tiny-v0", hold_window=1, windows=10_000, probe_size=1, probe_accuracy_every=0, num_rollouts=2
    )
    students = Population(config)
    students.reset(0, 0)
    for _ in range(2):
        students.window(np.ones((1, 1)))
    expected = hashlib.sha256(students.adapters.flat.detach().numpy().tobytes()).hexdigest()
    assert ways[0].adapters == expected
    assert ways[1].adapters != expected, "other last bits"
    assert [len(way.seconds) for way in ways] == [1, 1]
    assert all(way.seconds[0] > 0 for way in ways)
