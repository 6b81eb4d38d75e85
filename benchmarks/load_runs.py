"""How long does `analysis.load_runs` take? Made-up run folders with every column of a real row, numbers at full length.

Claim: 1,000 runs of 200 windows are one frame in under 5 seconds. Reading the files' bytes and parsing them with Python's
own `json` alternate with the loader in one run, as the two floors that it can be compared with.

    python -m benchmarks.load_runs --help
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from analysis import load_runs
from atesd_env.config import preset
from atesd_env.envs.columns import COLUMNS, TIME_COLUMNS
from atesd_env.files.run_folder import RunWriter
from benchmarks.common import save

AGENTS = ("beta", "fixed:0", "fixed:0.5", "fixed:1", "random")
AGENT_COLUMNS = ("agent/c1", "agent/c2", "agent/mean", "agent/entropy", "agent/num_updates")


def write_runs(folder: Path, num_runs: int, windows: int) -> int:
    """Writes run folders and returns their bytes."""
    rng = np.random.default_rng(0)
    names = [column.name for column in (*COLUMNS[1:], *TIME_COLUMNS)] + list(AGENT_COLUMNS)
    config = preset("ATESD-Tiny-v0", windows=windows)
    for number in range(num_runs):
        agent, seed = AGENTS[number % len(AGENTS)], number // len(AGENTS)
        description = {"env_id": "ATESD-Tiny-v0", "agent": agent, "seed": seed, "config": config}
        values = rng.random((windows, len(names))).tolist()
        with RunWriter(folder / f"{agent.replace(':', '-')}-seed{seed}", description) as writer:
            for window, line in enumerate(values, start=1):
                row: dict[str, Any] = {"window": window, **dict(zip(names, line, strict=True))}
                row |= {"probe/accuracy": line[0] if window % 10 == 0 else None, "probe/pass_at_k": None}
                row |= {"status": "truncated" if window == windows else "running", "reason": None}
                writer.write_row(row)
    return sum(path.stat().st_size for path in folder.glob("*/*"))


def read_bytes(folder: Path) -> None:
    """Reads the files and does nothing with them."""
    for path in folder.glob("*/trajectory.jsonl"):
        path.read_bytes()


def parse_lines(folder: Path) -> None:
    """Parses each line and forgets it."""
    for path in folder.glob("*/trajectory.jsonl"):
        for line in path.read_bytes().splitlines():
            json.loads(line)


def measure(num_runs: int, windows: int, repeats: int) -> dict[str, Any]:
    """Returns medians in seconds."""
    ways: dict[str, Callable[[Path], Any]] = {
        "read_bytes": read_bytes,
        "parse_lines": parse_lines,
        "load_runs": load_runs,
        "load_runs_with_config": lambda folder: load_runs(folder, config=("learning_rate", "lora_r", "windows")),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        num_bytes = write_runs(folder, num_runs, windows)
        for _ in range(repeats):
            for way, function in ways.items():
                started = time.perf_counter()
                function(folder)
                times[way].append(time.perf_counter() - started)
        frame = load_runs(folder)
    medians = {way: statistics.median(values) for way, values in times.items()}
    return {
        "runs": num_runs,
        "windows": windows,
        "rows": len(frame),
        "columns": len(frame.columns),
        "megabytes": num_bytes / 1e6,
        "median_sec": medians,
        "lowest_sec": {way: min(values) for way, values in times.items()},
        "load_runs_over_parse_lines": medians["load_runs"] / medians["parse_lines"],
        "frame_megabytes": float(frame.memory_usage(deep=True).sum()) / 1e6,
    }


def main() -> None:
    """Measures and writes ``results/load_runs.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--windows", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    save("load_runs", measure(arguments.runs, arguments.windows, arguments.repeats))


if __name__ == "__main__":
    main()
