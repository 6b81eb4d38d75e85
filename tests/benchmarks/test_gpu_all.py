"""The one command for a GPU: every step works in small on a CPU, and what goes wrong in one costs no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_all import SkippedError, Step, main, measure_all
from benchmarks.gpu_window import PHASES, Preset
from docs.generator.measured_tables import gpu_table


def test_every_step_works_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What needs a GPU, or two, says so."""
    out = tmp_path / "gpu.json"
    main(["--small", "--out", str(out)])
    steps = json.loads(out.read_text())["steps"]
    assert {name: step["skipped"][:5] for name, step in steps.items() if "skipped" in step} == {
        "gpu_tests": "no GP",
        "nccl": "needs",
    }
    assert [name for name, step in steps.items() if "error" in step] == []
    assert list(steps)[:3] == ["card", "gpu_tests", "tiny"]
    one, more = steps["update"], steps["students_2"]
    assert more["sampled_tokens"] == 2 * one["sampled_tokens"] > 0
    assert one["sec"] == pytest.approx(sum(stage["sec"] for stage in one["stages"].values()))
    assert all(
        one["stages"][name]["share_of_matrix_rate"] > 0 for name in ("rollout", "teacher", "student", "backward")
    )
    planned = {name: stage["planned_bytes"] for name, stage in one["stages"].items()}
    always = sum(Preset(tmp_path, small=True).plan(1).fixed.values())
    assert planned["optimizer"] == always < min(planned[name] for name in PHASES)
    assert max(planned.values()) <= one["planned_bytes"]
    assert all(stage["peak_bytes"] is None for stage in one["stages"].values()), "the device is the CPU"
    assert steps["tiny"]["distance_of_changes"] == 0.0, "the device is the CPU"
    table = gpu_table(json.loads(out.read_text()))
    assert all(name in table for name in steps)
    assert (
        f"{steps['peft']['sec'] / min(step['sec'] for step in steps.values() if step.get('students') == 1):.1f} times our"
        in table
    )


def test_a_failure_is_recorded_and_a_cut_leaves_what_was_done(tmp_path: Path):
    made: list[str] = []

    def step(name: str, seconds: float, error: BaseException | None = None) -> Step:
        def measure() -> dict[str, Any]:
            made.append(name)
            if error is not None:
                raise error
            return {"sec": seconds}

        return Step(name, measure, lambda found: found["first"]["sec"] * seconds if found else seconds)

    steps = [
        step("first", 3.0),
        step("fails", 1.0, RuntimeError("out of memory")),
        step("no such device", 1.0, SkippedError("none")),
        step("too long", 30.0),
        step("second", 15.0),
        step("cut", 1.0, KeyboardInterrupt()),
    ]
    out = tmp_path / "gpu.json"
    with pytest.raises(KeyboardInterrupt):
        measure_all(steps, out, minutes=1.0)
    found = json.loads(out.read_text())["steps"]
    assert made == ["first", "fails", "no such device", "second", "cut"]
    assert list(found) == [*made[:3], "too long", "second"]
    assert found["fails"]["error"] == "RuntimeError: out of memory"
    assert found["no such device"]["skipped"] == "none"
    assert found["too long"]["skipped"].startswith("expected to take 90 s; ")
    assert found["second"]["sec"] == 15.0
