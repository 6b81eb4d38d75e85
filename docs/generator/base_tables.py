"""Tables of the packaged bases with habits, made from the committed output of ``benchmarks.packaged_bases``."""

from __future__ import annotations

from typing import Any

from docs.generator.markdown import markdown_table
from docs.generator.result_tables import measured, source


def bases_table() -> str:
    """Returns each base's accuracy and the share of the steps that it writes, by reveal ratio."""
    return _by_ratio("accuracy", "steps_written", ".2f")


def habits_table() -> str:
    """Returns each base's share of right steps, and how often it teleports behind a mistake, by reveal ratio."""
    return _by_ratio("steps_right", "teleports", ".0%")


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
