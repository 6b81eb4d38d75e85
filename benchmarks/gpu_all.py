"""Everything that is to be measured on a GPU, in one command of a few minutes that needs nothing from a hub.

The output is written anew after each step, whole or not at all, so that a run that is cut leaves what was done. A step that fails is
recorded with its error, and the next one goes on; one that would not fit into the minutes or the memory left is skipped, with the reason.

    python -m benchmarks.gpu_all --minutes 8 --out gpu.json
    python -m benchmarks.gpu_all --small --out gpu.json      # on a CPU: that every step works, no measurement of anything

For the page about paper scale: write to ``benchmarks/results/gpu.json``, then ``python -m docs.generator.tables``.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from atesd_env.files.atomic import write_atomically
from benchmarks.common import provenance
from benchmarks.gpu_window import Preset, card, device_name, divergence_costs, random_model
from benchmarks.peft_update import peft_update
from benchmarks.tiny_agreement import SMALL, tiny_agreement

Results = Mapping[str, Mapping[str, Any]]
ROOT = Path(__file__).parents[1]


class SkippedError(Exception):
    """A step that this machine cannot make; the message says why."""


@dataclass(frozen=True)
class Step:
    """One part of the output.

    Attributes:
        name: Its key.
        measure: Makes it.
        expected: Seconds that it will take, from what was measured before.
    """

    name: str
    measure: Callable[[], dict[str, Any]]
    expected: Callable[[Results], float]


def measure_all(steps: Sequence[Step], out: Path, minutes: float) -> dict[str, Any]:
    """Makes the steps one after the other; returns what was written last."""
    began = time.monotonic()
    found: dict[str, Any] = {**provenance(), "minutes": minutes, "steps": {}}
    for step in steps:
        started = time.monotonic()
        left, expected = 60 * minutes - (started - began), step.expected(found["steps"])
        try:
            if expected > left:
                raise SkippedError(f"expected to take {expected:.0f} s; {max(0.0, left):.0f} s are left")
            result = step.measure()
        except SkippedError as reason:
            result = {"skipped": str(reason)}
        except Exception as error:  # whatever it is, what comes after it is measured
            result = {"error": f"{type(error).__name__}: {error}"[:2000]}
        found["steps"][step.name] = {**result, "step_sec": time.monotonic() - started}
        write_atomically(out, f"{json.dumps(found, indent=2)}\n".encode())
        print(f"{step.name}: {result.get('skipped') or result.get('error') or 'done'}", flush=True)
        if torch.cuda.is_available():
            gc.collect()
            torch.cuda.empty_cache()
    return found


def steps_of(preset: Callable[[], Preset], *, small: bool) -> list[Step]:
    """Returns all steps in their order.

    Args:
        preset: The large student, which is made at the first call.
        small: Whether the steps have a CPU's size.
    """
    scale = 0.0 if small else 1.0

    def update(students: int, **ways: bool) -> Callable[[], dict[str, Any]]:
        def measure() -> dict[str, Any]:
            _check_memory(preset().plan(students).peak)
            return preset().update(students, **ways)

        return measure

    def of_update(students: int) -> Callable[[Results], float]:
        """Expects what the last update took, its rollouts once and the rest for each student, and a quarter for the short one before it."""

        def expected(found: Results) -> float:
            updates = [step for name, step in found.items() if "students" in step]
            if not updates:
                return 90 * scale * students
            sec, rollouts = updates[-1]["sec"], updates[-1]["stages"]["rollout"]["sec"]
            return float(1.25 * (rollouts + (sec - rollouts) * students / updates[-1]["students"]))

        return expected

    return [
        Step("card", card, lambda _: 5 * scale),
        Step("gpu_tests", _gpu_tests, lambda _: 60 * scale),
        Step("tiny", lambda: tiny_agreement(**(SMALL if small else {})), lambda _: 20 * scale),
        Step("update", update(1, triton=False), lambda _: 90 * scale),
        Step("divergence", lambda: divergence_costs(preset().config, small=small), lambda _: 30 * scale),
        Step("update_cuda_graph", update(1, triton=False, cuda_graph=True), of_update(1)),
        Step("update_cuda_graph_triton", update(1, cuda_graph=True), of_update(1)),
        *(
            Step(f"students_{number}", update(number, cuda_graph=True), of_update(number))
            for number in ((2,) if small else (4, 16))
        ),
        Step("peft", lambda: _peft(preset()), lambda found: 2 * found.get("update", {}).get("sec", 90 * scale)),
        Step("nccl", _nccl, lambda _: 60 * scale),
    ]


def _check_memory(planned: int) -> None:
    """Refuses what the plan says will not fit."""
    there = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else planned
    if planned > there:
        raise SkippedError(f"planned to need {planned / 1e9:.1f} GB; the device has {there / 1e9:.1f} GB")


def _gpu_tests() -> dict[str, Any]:
    if not torch.cuda.is_available():
        raise SkippedError("no GPU")
    command = [sys.executable, "-m", "pytest", "-rfE", "-m", "gpu", "tests/gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=180)
    lines = done.stdout.strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"passed": done.returncode == 0, "summary": lines[-1] if lines else done.stderr[-500:], "failed": failed}


def _peft(preset: Preset) -> dict[str, Any]:
    model = random_model(preset.model_config, preset.config.dtype)
    lengths = (preset.student_prompt_tokens, preset.teacher_prompt_tokens)
    return peft_update(model, preset.config, *lengths, pad_token_id=0)


def _nccl() -> dict[str, Any]:
    """One run on two devices: that it ends, and its rows."""
    if torch.cuda.device_count() < 2:
        raise SkippedError(f"needs two devices; there are {torch.cuda.device_count()}")
    with tempfile.TemporaryDirectory() as folder:
        run = ["-m", "atesd", "run", "--env", "ATESD-Tiny-v0", "--agent", "fixed:1", "--seeds", "0", "--windows", "2"]
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *run, "--out", folder]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=180)
        if done.returncode != 0:
            raise RuntimeError(done.stderr[-1500:])
        (rows,) = Path(folder).glob("*/trajectory.jsonl")
        return {"rows": [json.loads(line) for line in rows.read_text().splitlines()]}


def main(arguments: list[str] | None = None) -> None:
    """Measures, and writes the output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="no step is begun that is expected to end later")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file that is written")
    parser.add_argument("--small", action="store_true", help="a narrow model and short rows")
    typed = parser.parse_args(arguments)
    if device_name() == "cpu" and not typed.small:
        parser.error("expected a GPU, found none; --small tries every step on a CPU")
    made: list[Preset] = []
    with tempfile.TemporaryDirectory() as folder:

        def preset() -> Preset:
            if not made:
                made.append(Preset(Path(folder), small=typed.small))
            return made[0]

        measure_all(steps_of(preset, small=typed.small), typed.out, typed.minutes)


if __name__ == "__main__":
    main()
