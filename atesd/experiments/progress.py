"""How far long work has come: a bar on a terminal or in a notebook, a line a step elsewhere, nothing where the user wants it quiet.

All of it goes to stderr: stdout is for results.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from atesd.console import console, harmless, say

if TYPE_CHECKING:
    from rich.console import Console

Tell = Callable[[int, str], None]
"""Called with the steps made so far, and what to say beside their number."""
Begin = Callable[[str, int], Tell]
"""Begins a piece of work: what it is called, and the steps that it has."""


@contextmanager
def live_progress(*, quiet: bool, line_every_sec: float = 0.0) -> Iterator[Begin]:
    """Shows how far one or more pieces of work have come.

    Args:
        quiet: Show nothing.
        line_every_sec: Where there is no bar: least seconds between two lines of one piece of work. Its last step is
            always told.
    """
    # Here, not above: rich takes a while to import, and `--help` needs none of it.
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    stderr = console(stderr=True)
    has_lines = not quiet and not has_bars(stderr)
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}", markup=False),
        TimeRemainingColumn(),
        console=stderr,
        disable=quiet or not has_bars(stderr),
    )

    def begin(name: str, total: int) -> Tell:
        bar = bars.add_task(harmless(name), total=total, status="loading")
        told_sec = float("-inf")

        def tell(completed: int, status: str) -> None:
            nonlocal told_sec
            bars.update(bar, completed=completed, status=harmless(status))
            if has_lines and (completed >= total or time.monotonic() - told_sec >= line_every_sec):
                told_sec = time.monotonic()
                clock = time.strftime("%H:%M:%S")
                say(f"{clock} {name}: {completed}/{total}  {status}".rstrip(), error=True)

        return tell

    with bars:
        yield begin


def has_bars(console: Console) -> bool:
    """Returns whether a console can redraw a bar: a terminal, or a notebook that has the package ipywidgets."""
    return console.is_terminal or (console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None)


def window_report(tell: Tell) -> Callable[[dict[str, Any]], None]:
    """Returns what tells of each window its newest reveal ratio, probe NLL and accuracy."""

    def report(row: dict[str, Any]) -> None:
        said = {
            "ratio {:.2f}": row.get("exposure/reveal_ratio"),
            "probe NLL {:.3f}": row.get("probe/nll"),
            "accuracy {:.1%}": row.get("probe/accuracy"),
        }
        tell(
            row["window"],
            "  ".join(text.format(value) for text, value in said.items() if isinstance(value, int | float)),
        )

    return report
