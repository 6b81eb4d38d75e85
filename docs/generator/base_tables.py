"""Tables of the packaged bases with habits, made from the code and the committed output of ``benchmarks.packaged_bases``."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from atesd_env.pretrain.habits import HABITS, Habit
from docs.generator.markdown import markdown_table
from docs.generator.result_tables import measured, source


def habit_parameters_table() -> str:
    """Returns the habits with their parameters."""
    headers = ("habit", *(field.name for field in dataclasses.fields(Habit)))
    rows = [
        (f"`{name}`", *("never" if math.isinf(value) else f"{value:g}" for value in dataclasses.astuple(habit)))
        for name, habit in HABITS.items()
    ]
    return markdown_table(tuple(f"`{name}`" if name != "habit" else name for name in headers), rows)


def bases_table() -> str:
    """Returns each base's accuracy and the share of the steps that it writes, by reveal ratio."""
    return _by_ratio("accuracy", "steps_written", ".2f")


def habits_table() -> str:
    """Returns each base's share of right steps, and how often it teleports behind a mistake, by reveal ratio."""
    return _by_ratio("steps_right", "teleports", ".0%")


def undertrained_table() -> str:
    """Returns what fixed ratios end at behind teachers whose pretraining was broken off, and how often those are right themselves."""
    output = measured("undertrained_teachers")
    rows = []
    for base in output["bases"]:
        for line in base["lines"]:
            told, teacher = line["summary"], line["teacher_accuracy"]
            cells = [
                f"{100 * told['accuracy'][f'fixed:{ratio}']:.1f} ({100 * right:.0f})"
                for ratio, right in teacher.items()
            ]
            spread = "{mean:.1f} [{low:.1f}, {high:.1f}]".format(
                **{end: 100 * value for end, value in told["best_minus_worst"].items()}
            )
            updates, addends = str(base["num_updates"]), str(line["addends"])
            rows.append((updates, addends, *cells, f"{100 * told['accuracy']['random']:.1f}", spread))
    headers = (
        "updates",
        "numbers",
        *output["bases"][0]["lines"][0]["teacher_accuracy"],
        "random",
        "best minus worst, points",
    )
    return f"{markdown_table(headers, rows)}\n\n{len(output['seeds'])} seeds. {source(output)}"


def _by_ratio(share: str, bracketed: str, form: str) -> str:
    output = measured("packaged_bases")
    cells: dict[tuple[str, int], dict[float | None, dict[str, Any]]] = {}
    for line in output["lines"]:
        cells.setdefault((line["student"], line["addends"]), {})[line["reveal_ratio"]] = line
    ratios = next(iter(cells.values()))
    rows = [
        (
            f"`{name}`",
            str(addends),
            *(f"{100 * cell[share]:.0f} ({cell[bracketed]:{form}})" for cell in by_ratio.values()),
        )
        for (name, addends), by_ratio in cells.items()
    ]
    headers = ("base", "numbers", *("plain" if ratio is None else f"{ratio:g}" for ratio in ratios))
    return f"{markdown_table(headers, rows)}\n\n{source(output)}"
