"""The profile of a window takes functions of the package apart by their names: all of them must still be met."""

from __future__ import annotations

from atesd_env.config import EnvConfig
from benchmarks.profile_window import STAGES, measure, operations


def test_every_stage_of_an_update_is_met():
    config = EnvConfig(hold_window=1, num_rollouts=2, max_new_tokens=8, probe_size=1, probe_accuracy_every=0)
    seconds, students, stages = measure(config, windows=1)
    assert set(seconds) == {*STAGES, "total"}
    assert all(seconds[stage] > 0 for stage in STAGES)
    assert min(operations(students, stages).values()) > 0
