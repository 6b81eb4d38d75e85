"""What each packaged base with habits does as a teacher before training, by reveal ratio: 200 held-out sums of 4 and of 5 numbers.

One of the bases is rebuilt from its recipe as well, and compared with the packaged one, weight by weight.

Example: python -m benchmarks.packaged_bases --problems 200
"""

from __future__ import annotations

import argparse
import dataclasses

import torch
from rich.progress import track

from atesd_env.config import EnvConfig
from atesd_env.pretrain.bases import Recipe, build
from atesd_env.pretrain.measured import conduct, largest_difference
from atesd_env.student.loading import load_student
from atesd_env.student.packaged import HABITS_DIRECTORY, PACKAGED_STUDENTS
from benchmarks.common import save

RATIOS = (None, 0.0, 0.25, 0.5, 0.75, 1.0)
"""None is the plain prompt: what the student itself does."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=200, help="held-out sums of each length")
    parser.add_argument(
        "--students",
        nargs="+",
        default=[name for name in PACKAGED_STUDENTS if name != "tiny-lists"],
        help="those that learn sums",
    )
    parser.add_argument("--rebuild", default="tiny-terse-slip-0", help="the base that is rebuilt")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rebuilt = build(Recipe.of(arguments.rebuild))
    difference = largest_difference(rebuilt, HABITS_DIRECTORY / f"{arguments.rebuild}.safetensors")
    lines = []
    for name in track(arguments.students, description="bases"):
        student = load_student(EnvConfig(student=name))
        for num_addends in (4, 5):
            for ratio in RATIOS:
                found = dataclasses.asdict(conduct(student, num_addends, ratio, arguments.problems))
                rounded = {key: round(value, 4) for key, value in found.items()}
                lines.append({"student": name, "addends": num_addends, "reveal_ratio": ratio, **rounded})
    save(
        "packaged_bases",
        {
            "heldout_problems": arguments.problems,
            "rebuilt": {"student": arguments.rebuild, "largest_difference_of_a_weight": difference},
            "lines": lines,
        },
    )


if __name__ == "__main__":
    main()
