"""``python -m atesd_env.pretrain``: rebuilds a packaged student, and tells how close the rebuild is."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from atesd_env.config import EnvConfig
from atesd_env.config.checks import checked_seed
from atesd_env.errors import AtesdError
from atesd_env.files.atomic import new_folder
from atesd_env.pretrain.bases import Recipe, build
from atesd_env.pretrain.measured import conduct, largest_difference, shares_right
from atesd_env.pretrain.tiny import RECIPES, pretrain
from atesd_env.student.model import wrap_student
from atesd_env.student.packaged import HABITS_DIRECTORY, PACKAGED_STUDENTS, TINY_DIRECTORY, WHOLE_STUDENTS, merge
from atesd_env.tasks.lists import ListsTask

RATIOS = (None, 0.0, 0.25, 0.5, 0.75, 1.0)


def main() -> None:
    """Parses, builds, writes a model directory, compares."""
    parser = argparse.ArgumentParser(
        prog="python -m atesd_env.pretrain",
        description="Rebuild a packaged student. Example: python -m atesd_env.pretrain --student tiny-terse-slip-0 --out rebuilt",
    )
    parser.add_argument("--out", type=Path, required=True, help="directory that gets the model and its tokenizer")
    parser.add_argument(
        "--student",
        default="tiny",
        help='"tiny" (6 minutes on one core), "tiny-lists" (2 minutes), or a base with habits, tiny-HABIT-HABIT-SEED (1 minute): the '
        "habits on sums of 4 and of 5 numbers, and the seed of its corpus",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="with tiny, tiny-lists: seed of weights and batches; the packaged is 0"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    arguments = parser.parse_args()
    console = Console()
    quiet = arguments.quiet or not console.is_terminal
    torch.set_num_threads(1)  # sums over several threads round differently, and hundreds of updates magnify that
    if quiet:
        transformers_logging.disable_progress_bar()
    try:
        rebuild(arguments.student, checked_seed(arguments.seed), arguments.out, quiet, console)
    except AtesdError as error:
        parser.error(str(error))


def rebuild(name: str, seed: int, out: Path, quiet: bool, console: Console) -> None:
    """Builds a student, writes it to ``out`` and prints how it compares with the packaged one.

    Raises:
        ConfigError: If there is no recipe of this name.
    """
    if name in RECIPES:
        model, tokenizer = pretrain(dataclasses.replace(RECIPES[name], seed=seed), quiet=quiet)
        rebuilt, packaged = model.state_dict(), WHOLE_STUDENTS[name] / "model.safetensors"
    else:
        rebuilt, packaged = build(Recipe.of(name), quiet=quiet), HABITS_DIRECTORY / f"{name}.safetensors"
        model = AutoModelForCausalLM.from_pretrained(TINY_DIRECTORY, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(TINY_DIRECTORY, trust_remote_code=False)
        merge(model, rebuilt)
    with new_folder(out) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if name not in RECIPES:
            save_file(rebuilt, folder / f"{name}.safetensors")  # as it is packaged
    if name in PACKAGED_STUDENTS:
        console.print(
            f"largest difference of a weight to the packaged student: {largest_difference(rebuilt, packaged):.2e}"
        )
    console.print(conduct_table(model.float(), tokenizer, name))


def conduct_table(model: Any, tokenizer: Any, name: str, num_problems: int = 64) -> Table:
    """Returns accuracy by length and reveal ratio, in brackets the share of steps: of sums those written, of lists those right."""
    student = wrap_student(model, tokenizer, name, EnvConfig())
    of_lists = name == "tiny-lists"

    def cell(length: int, ratio: float | None) -> str:
        if of_lists:
            return "{:.2f} ({:.1f})".format(*shares_right(student, ListsTask(length, length), ratio, num_problems))
        found = conduct(student, length, ratio, num_problems)
        return f"{found.accuracy:.2f} ({found.steps_written:.1f})"

    headers = ("operations" if of_lists else "addends", "no hint", *(f"{ratio:g}" for ratio in RATIOS[1:]))
    table = Table(*headers, title=f"{name} as a teacher, by reveal ratio")
    for length in (1, 2, 3) if of_lists else (3, 4, 5):
        table.add_row(str(length), *(cell(length, ratio) for ratio in RATIOS))
    return table


if __name__ == "__main__":
    main()
