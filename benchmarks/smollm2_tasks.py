"""What SmolLM2-135M makes of a task: four windows of one update at reveal ratio 0.5, one seed, and a rollout of each to read.

Enough to see that everything runs, too little to say anything about ratios. The rows of `choice` are the sample of AQuA in tests/data.

Example: python -m benchmarks.smollm2_tasks choice
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from atesd_env.config import EnvConfig, preset_of
from atesd_env.population.population import Population
from benchmarks.common import save

FIELDS: dict[str, dict[str, Any]] = {
    "choice": {"data_path": "tests/data/aqua_sample.jsonl"},
    "engram": {"data_path": None, "min_level": 1, "max_level": 1},
}
SHARED = {"windows": 4, "hold_window": 1, "num_rollouts": 2, "probe_size": 4, "max_new_tokens": 64}
REVEAL_RATIO = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=FIELDS)
    task = parser.parse_args().task
    fields = {"task": task, **FIELDS[task], **SHARED}
    started = time.process_time()
    path = fields.get("data_path") and str(Path(__file__).parents[1] / fields["data_path"])
    population = Population(preset_of(EnvConfig, "ATESD-SmolLM2-135M-v0", **(fields | {"data_path": path})))
    population.reset(0, seed=0)
    windows = []
    for _ in range(SHARED["windows"]):
        (row,) = population.window(np.array([[REVEAL_RATIO]]))
        sample = population.samples(0, 1)[0].as_row()
        kept = ("problem", "num_shown", "num_steps", "rollout", "answer", "is_correct")
        names = ("probe/nll", "student/mismatch", "rollout/success_rate", "rollout/length")
        windows.append({**{name: row[name] for name in names}, "sample": {name: sample[name] for name in kept}})
    save(
        f"smollm2_{task}",
        {
            "fields": fields,
            "reveal_ratio": REVEAL_RATIO,
            "cpu_sec": round(time.process_time() - started, 1),
            "windows": windows,
        },
    )


if __name__ == "__main__":
    main()
