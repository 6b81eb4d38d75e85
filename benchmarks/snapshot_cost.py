"""What states cost: a snapshot and its restore in memory, and a run's checkpoint on disk, against one window.

Claims: branching in memory costs less than 5% of a window; checkpoints after every window of ATESD-Tiny-v0 are cheap. Window,
snapshot, restore and file alternate in one run, so that the machine's other work hits all alike; medians are compared.

    python -m benchmarks.snapshot_cost --help
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import atesd_env  # noqa: F401  (registers the ids)
from atesd_env.files.checkpoint import read_checkpoint, write_numbered
from benchmarks.common import save


def seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    """Returns how long a call took, and what it returned."""
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result


def measure(env_id: str, windows: int, folder: Path) -> dict[str, Any]:
    """Returns medians in seconds, ratios to a window, and the size of a checkpoint, late in an episode of ``windows``."""
    env = gymnasium.make(env_id, windows=windows + 1)
    env.reset(seed=0)
    env.step(np.array([0.5], dtype=np.float32))  # the first window pays for what later ones find ready
    state: Any = env.unwrapped
    times: dict[str, list[float]] = {name: [] for name in ("window", "snapshot", "restore", "write", "read")}
    path = folder
    for number in range(2, windows + 2):
        spent, _ = seconds(lambda: env.step(np.array([0.5], dtype=np.float32)))
        times["window"].append(spent)
        spent, snapshot = seconds(state.snapshot)
        times["snapshot"].append(spent)
        spent, _ = seconds(lambda kept=snapshot: state.restore(kept))
        times["restore"].append(spent)
        spent, path = seconds(lambda window=number: write_numbered(folder, window, state.checkpoint()))
        times["write"].append(spent)
        spent, _ = seconds(lambda file=path: read_checkpoint(file))
        times["read"].append(spent)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    return {
        "env_id": env_id,
        "windows": windows,
        "median_sec": medians,
        "branch_share_of_a_window": (medians["snapshot"] + medians["restore"]) / medians["window"],
        "checkpoint_share_of_a_window": medians["write"] / medians["window"],
        "checkpoint_bytes": path.stat().st_size,
    }


def main() -> None:
    """Measures and writes ``results/snapshot_cost.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="ATESD-Tiny-v0")
    parser.add_argument("--windows", type=int, default=9)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        save("snapshot_cost", measure(arguments.env, arguments.windows, Path(folder)))


if __name__ == "__main__":
    main()
