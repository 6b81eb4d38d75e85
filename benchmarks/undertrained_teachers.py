"""Another source of bases: the packaged student's recipe, broken off early. Does the ratio matter behind a teacher that is bad at sums?

For each number of updates: the packaged student pretrained for so long, how it answers as a teacher by reveal ratio, and the accuracy that
fixed ratios and random end at, on sums of 4 and of 5 numbers.

Example: python -m benchmarks.undertrained_teachers --updates 300 600 --seeds 0 1 2 3
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from typing import Any

import torch

from atesd_env.config import EnvConfig, preset_of
from atesd_env.pretrain.measured import conduct
from atesd_env.pretrain.tiny import PretrainSettings, pretrain
from atesd_env.student.loading import load_student
from benchmarks.common import save
from benchmarks.ratios_side_by_side import RATIOS, SCHEDULES, summary, trained_side_by_side

EPISODE = {"learning_rate": 0.003, "windows": 6, "hold_window": 4, "probe_size": 64, "probe_accuracy_every": 0}
"""What the bench's instances have, but for the base and its sums."""


def measured(student: str, num_addends: int, seeds: list[int], num_heldout: int) -> dict[str, Any]:
    """Returns how a base teaches sums of one length: the teacher's accuracy by ratio, and what students end at by schedule and seed."""
    config = preset_of(
        EnvConfig, "ATESD-Tiny-v0", student=student, min_addends=num_addends, max_addends=num_addends, **EPISODE
    )
    teacher = load_student(EnvConfig(student=student))
    runs = trained_side_by_side(config, SCHEDULES, seeds, num_heldout)
    return {
        "addends": num_addends,
        "teacher_accuracy": {f"{ratio:g}": conduct(teacher, num_addends, ratio, 200).accuracy for ratio in RATIOS},
        "summary": summary(runs),
        "runs": [{name: run[name] for name in ("schedule", "seed", "accuracy")} for run in runs],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--updates", type=int, nargs="+", default=[300, 600], help="lengths of pretraining; the packaged one is 900"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3], help="seeds of the runs, at least 2")
    parser.add_argument("--heldout", type=int, default=200, help="held-out sums")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bases = []
    for num_updates in arguments.updates:
        model, tokenizer = pretrain(dataclasses.replace(PretrainSettings(), num_updates=num_updates))
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            lines = [measured(folder, num_addends, arguments.seeds, arguments.heldout) for num_addends in (4, 5)]
        bases.append({"num_updates": num_updates, "lines": lines})
    save("undertrained_teachers", {"heldout_problems": arguments.heldout, "seeds": arguments.seeds, "bases": bases})


if __name__ == "__main__":
    main()
