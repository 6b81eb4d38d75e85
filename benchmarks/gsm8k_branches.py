"""What SmolLM2-135M shows of the bench's findings on GSM8K: branches of one run, a reveal ratio each.

A run makes four windows at ratio 0.5. From the state that it is in then, five branches make four more, each at a ratio of its own:
they meet the same problems and random numbers, and in their first window score the very same rollouts. Nothing can be won in eight updates.

Example: python -m benchmarks.gsm8k_branches --seeds 0 1
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atesd_env.config import EnvConfig, preset_of
from atesd_env.population.population import Population
from benchmarks.common import kept, save

RATIOS = (0.0, 0.25, 0.5, 0.75, 1.0)
COMMON_RATIO, COMMON_WINDOWS = 0.5, 4
FIELDS = {"windows": 8, "hold_window": 1, "num_rollouts": 2, "max_new_tokens": 48, "probe_size": 4}
COLUMNS = ("probe/nll", "probe/grounded", "student/mismatch", "rollout/length", "rollout/success_rate")


def branches(population: Population, seed: int) -> dict[str, Any]:
    """Returns what the windows of a run and of its branches showed, by column: the run's first, then each branch's, by ratio.

    Args:
        population: As many students as there are ratios.
        seed: Of the run.
    """
    started = time.process_time()
    population.reset(0, seed)
    for _ in range(COMMON_WINDOWS):
        population.window(np.array([[COMMON_RATIO]]), [0])
    state = population.snapshot(0)
    for index in range(len(RATIOS)):
        population.restore(index, state)
    for _ in range(population.config.windows - COMMON_WINDOWS):
        population.window(np.array(RATIOS)[:, None])
    rows = {f"{ratio:g}": run.rows for ratio, run in zip(RATIOS, population.runs, strict=True)}
    return {
        "initial_nll": population.runs[0].initial_nll,
        "branches": {ratio: {name: [row[name] for row in its] for name in COLUMNS} for ratio, its in rows.items()},
        "cpu_sec": round(time.process_time() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="seeds of the runs, 3 CPU minutes each")
    parser.add_argument("--runs", type=Path, help="folder of a file for each seed: what was broken off goes on there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = arguments.runs or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    population = Population(preset_of(EnvConfig, "ATESD-SmolLM2-135M-v0", **FIELDS), len(RATIOS))
    made = {
        str(seed): kept(folder / f"{seed}.json", {"seed": seed}, lambda seed=seed: branches(population, seed))
        for seed in arguments.seeds
    }
    names = ("initial_nll", "branches", "cpu_sec")
    runs = {seed: {name: part[name] for name in names} for seed, part in made.items()}
    save("gsm8k_branches", {"fields": FIELDS, "common_windows": COMMON_WINDOWS, "runs": runs})


if __name__ == "__main__":
    main()
