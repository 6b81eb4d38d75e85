"""The packaged student "tiny-lists": what it does as a teacher before training, and what it learns, by reveal ratio.

Trained and measured are programs of three operations, for 20 windows; all ratios of a seed begin with the same adapter and meet
the same problems and random numbers.

Example: python -m benchmarks.lists_student --seeds 0 1
"""

from __future__ import annotations

import argparse
import time

import torch

from atesd_env.config import EnvConfig, preset_of
from atesd_env.pretrain.measured import shares_right
from atesd_env.student.loading import load_student
from atesd_env.tasks.lists import ListsTask
from benchmarks.common import save
from benchmarks.ratios_side_by_side import RATIOS, trained_side_by_side

FIELDS = {
    "student": "tiny-lists",
    "task": "lists",
    "min_level": 3,
    "max_level": 3,
    "windows": 20,
    "hold_window": 3,
    "num_rollouts": 8,
    "learning_rate": 3e-3,
}
NUM_HELDOUT = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="seeds of the runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = preset_of(EnvConfig, "ATESD-Tiny-v0", probe_size=32, probe_accuracy_every=0, **FIELDS)
    started = time.process_time()
    student = load_student(config)
    teacher = [
        {"operations": length, "reveal_ratio": ratio, "accuracy": accuracy, "steps_right": steps_right}
        for length in (1, 2, 3)
        for ratio in (None, *RATIOS)
        for accuracy, steps_right in [shares_right(student, ListsTask(length, length), ratio, NUM_HELDOUT)]
    ]
    runs = trained_side_by_side(config, [f"fixed:{ratio:g}" for ratio in RATIOS], arguments.seeds, NUM_HELDOUT)
    save(
        "lists_student",
        {
            "fields": FIELDS,
            "heldout_problems": NUM_HELDOUT,
            "cpu_sec": round(time.process_time() - started),
            "teacher": teacher,
            "runs": runs,
        },
    )


if __name__ == "__main__":
    main()
