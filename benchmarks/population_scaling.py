"""Time and memory of a student's window against the number of students, and memory over many windows.

Each K runs in a process of its own, so that its peak memory is its own; the windows are of one update without a probe. The
picture shows time and memory a student. ``--flat`` runs one population for many windows and fits a line to its resident
memory: the slope says whether anything is kept. ``--paired`` compares students that meet the same problems, which share what is the same,
with the same students made to do everything by themselves: CPU time, in turn, from the same states.

Examples:
    OMP_NUM_THREADS=2 python -m benchmarks.population_scaling
    OMP_NUM_THREADS=2 python -m benchmarks.population_scaling --flat --windows 200
    OMP_NUM_THREADS=1 python -m benchmarks.population_scaling --paired
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np

from atesd_env.config import preset
from atesd_env.envs.branch import counterfactual
from atesd_env.population.environments import TeacherExposureVectorEnv
from atesd_env.population.probe import Probe
from benchmarks.common import save

SIZES = (1, 2, 4, 8, 16, 32, 64)
GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
PICTURE = Path(__file__).parent.parent / "docs" / "results" / "population_scaling.png"


def make_env(num_students: int, num_workers: int, **fields: Any) -> TeacherExposureVectorEnv:
    """Returns a population of packaged students, reset."""
    config = preset(
        "ATESD-Tiny-v0",
        **{"hold_window": 1, "windows": 10_000, "probe_size": 1, "probe_accuracy_every": 0, **fields},
    )
    env = TeacherExposureVectorEnv(config, num_students, workers=num_workers)
    env.reset(seed=0)
    return env


def resident_mebibytes() -> float:
    """Returns the resident memory of this process now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure_here(num_students: int, num_workers: int, windows: int) -> dict[str, float]:
    """Returns seconds a window and student, and peak memory of this process and its children together."""
    env = make_env(num_students, num_workers)
    actions = np.full((num_students, 1), 0.5, dtype=np.float32)
    seconds = []
    for _ in range(windows + 1):
        started = time.perf_counter()
        env.step(actions)
        seconds.append((time.perf_counter() - started) / num_students)
    env.close()
    peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "students": num_students,
        "workers": num_workers,
        "sec_per_student": float(np.median(seconds[1:])),
        # Of children, the system tells the largest one's peak; all of them have the same work.
        "peak_mebibytes": peaks[0] + num_workers * peaks[1] * (num_workers > 1),
    }


def measure(num_students: int, num_workers: int, windows: int) -> dict[str, float]:
    """Runs ``measure_here`` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.population_scaling", "--one", str(num_students), str(num_workers)]
    output = subprocess.run([*command, "--windows", str(windows)], check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return result


def draw(lines: list[dict[str, float]]) -> None:
    """Draws time and memory a student against K, for each number of processes."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for workers, marker, style in ((1, "o", "-"), (2, "s", "--")):
        part = [line for line in lines if line["workers"] == workers]
        sizes = [line["students"] for line in part]
        name = f"{workers} process" + ("es" if workers > 1 else "")
        left.plot(sizes, [line["sec_per_student"] for line in part], marker=marker, linestyle=style, label=name)
        right.plot(sizes, [line["peak_mebibytes"] for line in part], marker=marker, linestyle=style, label=name)
    left.set_ylabel("seconds a student and update")
    right.set_ylabel("peak memory, MiB")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(SIZES, [str(size) for size in SIZES])
        axes.set_xlabel("students K")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    left.legend()
    figure.savefig(PICTURE, dpi=150)


def main() -> None:
    """Measures and writes ``results/population_scaling.json`` and a picture, or ``results/memory_over_windows.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=7, help="timed windows; one before them is not counted")
    parser.add_argument("--flat", action="store_true", help="memory over many windows instead")
    parser.add_argument("--paired", action="store_true", help="what students of the same problems save instead")
    parser.add_argument("--one", type=int, nargs=2, metavar=("K", "WORKERS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure_here(*arguments.one, arguments.windows)))
        return
    if arguments.flat:
        save("memory_over_windows", memory_over_windows(arguments.windows))
        return
    if arguments.paired:
        save("paired_students", {"rounds": arguments.windows, "cases": paired(arguments.windows)})
        return
    plans = [(size, workers) for size in SIZES for workers in (1, 2) if size >= 2 * (workers - 1)]
    lines = []
    for size, workers in plans:
        lines.append(measure(size, workers, arguments.windows))
        print(lines[-1], flush=True)
    draw(lines)
    save("population_scaling", {"windows": arguments.windows, "lines": lines})


def memory_over_windows(windows: int) -> dict[str, Any]:
    """Runs four students, with probe and episodes of 20 windows, and returns the slope of their memory in MiB a window."""
    env = make_env(4, 1, windows=20, probe_size=32, probe_accuracy_every=5, num_rollouts=8)
    rng = np.random.default_rng(0)
    resident = []
    for _ in range(windows):
        env.step(rng.random((4, 1), dtype=np.float32))
        resident.append(resident_mebibytes())
    settled = resident[windows // 4 :]  # the first windows fill caches and the allocator's pools
    slope, _ = np.polyfit(np.arange(len(settled)), settled, 1)
    return {
        "windows": windows,
        "students": 4,
        "mebibytes_per_window": float(slope),
        "first_mebibytes": resident[0],
        "settled_mebibytes": settled[0],
        "last_mebibytes": resident[-1],
        "largest_mebibytes": max(resident),
    }


def paired(rounds: int) -> list[dict[str, Any]]:
    """Returns the CPU time of students that share and of the same ones apart, one line for each case."""
    lines = []
    for hold_window in (1, 3):
        env = make_env(1, 1, hold_window=hold_window, probe_size=32)
        env.step(np.full((1, 1), 0.5, dtype=np.float32))
        name = f"counterfactual, 5 ratios, 2 windows of {hold_window} updates"
        lines.append({"case": name, **_in_turn(lambda env=env: counterfactual(env, GRID, 2), rounds)})
    for num_seeds, num_ratios in ((1, 1), (1, 16), (4, 4), (16, 1)):
        env = make_env(16, 1)
        for index in range(16):
            env.population.reset(index, index % num_seeds)
        ratios = np.repeat(np.linspace(0.5, 1.0, num_ratios), 16 // num_ratios)[:, None]
        env.population.window(ratios)
        states = [env.population.snapshot(index) for index in range(16)]

        def turn(population: Any = env.population, states: Any = states, ratios: Any = ratios) -> None:
            for index, state in enumerate(states):
                population.restore(index, state)
            population.window(ratios)

        name = f"16 students of {num_seeds} seeds at {num_ratios} ratios, a window of 1 update"
        lines.append({"case": name, **_in_turn(turn, rounds)})
    return lines


def _in_turn(turn: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """Returns the median CPU seconds of a turn in which students share and one in which they do not, and their ratio."""
    meeting = patch("atesd_env.population.population.meeting", lambda students, *_: [[student] for student in students])
    seconds: dict[str, list[float]] = {"together": [], "apart": []}
    for _ in range(rounds + 1):
        for name in seconds:
            with ExitStack() as apart:
                if name == "apart":
                    apart.enter_context(meeting)
                    apart.enter_context(patch.object(Probe, "know"))
                started = time.process_time()
                turn()
                seconds[name].append(time.process_time() - started)
    together, alone = (float(np.median(of_kind[1:])) for of_kind in seconds.values())
    return {"sec_together": round(together, 4), "sec_apart": round(alone, 4), "ratio": round(together / alone, 3)}


if __name__ == "__main__":
    main()
