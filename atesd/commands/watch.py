"""``atesd watch``: how the runs of a folder stand, from their files alone, as a table for the terminal, live or once.

Only the end of a trajectory is read, so that looking on costs nothing that grows with a run. Runs of other processes and
other machines are seen too, as long as they write to the folder.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from analysis.load import run_folders
from analysis.samples import printable
from atesd.console import console as safe_console
from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.files.reading import json_value, open_regular, read_json
from atesd_env.files.run_folder import CONFIG_FILE, TRAJECTORY_FILE

State = Literal["running", "silent", "no row yet", "unreadable", "broke", "finished"]
"""How a run stands, as its files tell; in the order of the table."""
_ORDER: tuple[State, ...] = get_args(State)
_STYLES = dict(zip(_ORDER, ("cyan", "yellow", "dim", "red", "red", "green"), strict=True))

SILENT_AFTER_WINDOWS = 10.0
"""A run without a new row for as long as this many of its last window (and ``SILENT_AFTER_SEC``) is "silent"."""

SILENT_AFTER_SEC = 60.0
"""The least seconds without a new row that make a run "silent"."""

_TAIL_BYTES = 65_536
"""Bytes at the end of a trajectory that are read: some dozen rows."""


@dataclass(frozen=True)
class Command:
    """Show how the runs of a folder stand, live, until Ctrl-C; it only reads files."""

    runs: tyro.conf.Positional[Path]
    """Folder of runs; those that begin later appear."""
    once: bool = False
    """Print the table once and end."""
    every: float = 2.0
    """Seconds between two looks."""


def main(arguments: Sequence[str]) -> None:
    """``atesd watch``."""
    command = tyro.cli(Command, args=list(arguments), prog="atesd watch")
    if not command.every > 0:
        raise ConfigError(f"--every: expected seconds above 0, got {command.every}; correct it.")
    if not os.path.isdir(command.runs):
        raise RunFilesError(f"{command.runs}: expected a folder, got none; pass the folder given to --out.")
    watch(command.runs, once=command.once, every_sec=command.every)


@dataclass(frozen=True)
class RunStatus:
    """How a run stands.

    Attributes:
        name: The run folder's path below the folder that is watched.
        state: "running" until a row says otherwise, or "silent" where none came for long: killed, interrupted, or its machine
            is gone or busy. Files cannot tell which.
        agent: Spec of its agent; empty where that cannot be read.
        seed: Its seed, as text.
        window: Windows made.
        windows: Windows of the run; 0 where that cannot be read.
        reveal_ratio: Of the last window.
        probe_nll: Last measured.
        accuracy: Last measured among the last rows.
        window_sec: Seconds that the last window took.
        age_sec: Seconds since the last row was written.
        problem: Why it is unreadable.
    """

    name: str
    state: State
    agent: str = ""
    seed: str = ""
    window: int = 0
    windows: int = 0
    reveal_ratio: float | None = None
    probe_nll: float | None = None
    accuracy: float | None = None
    window_sec: float | None = None
    age_sec: float | None = None
    problem: str = ""


def run_statuses(root: Path) -> list[RunStatus]:
    """Returns how each run below a folder (or in it) stands, unfinished ones first.

    Damaged or vanishing files never end the watching; such a run is "unreadable".
    """
    statuses = [_run_status(folder, root) for folder in run_folders(root)]
    return sorted(statuses, key=lambda status: (_ORDER.index(status.state), status.name))


def _run_status(folder: Path, root: Path) -> RunStatus:
    name = folder.relative_to(root).as_posix() if folder != root else folder.resolve().name
    try:
        config = _config(folder / CONFIG_FILE)
        agent, seed, windows = str(config["agent"]), str(config["seed"]), int(config["config"]["windows"])
        rows = _last_rows(folder / TRAJECTORY_FILE)
        age_sec = max(0.0, time.time() - (folder / TRAJECTORY_FILE).stat().st_mtime)
        if not rows:
            return RunStatus(name, "no row yet", agent, seed, windows=windows, age_sec=age_sec)
        last = rows[-1]
        states: dict[Any, State] = {"truncated": "finished", "terminated": "broke"}
        seconds = [value for column, value in last.items() if column.startswith("time/") and _is_number(value)]
        whole = last.get("time/window_sec")
        window_sec = whole if _is_number(whole) else sum(seconds) if seconds else None
        is_silent = age_sec > max(SILENT_AFTER_SEC, SILENT_AFTER_WINDOWS * (window_sec or 0.0))
        return RunStatus(
            name=name,
            state=states.get(last.get("status"), "silent" if is_silent else "running"),
            agent=agent,
            seed=seed,
            window=int(last["window"]),
            windows=windows,
            reveal_ratio=_latest(rows[-1:], "exposure/reveal_ratio"),
            probe_nll=_latest(rows, "probe/nll"),
            accuracy=_latest(rows, "probe/accuracy"),
            window_sec=window_sec,
            age_sec=age_sec,
        )
    except KeyError as error:
        return RunStatus(name, "unreadable", problem=f"expected the field {error}, got none")
    except (OSError, ValueError, TypeError, OverflowError) as error:
        return RunStatus(name, "unreadable", problem=str(error))


def _config(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path.name}: expected JSON, got something else ({getattr(error, 'msg', error)})") from error
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict):
        raise ValueError(f"{path.name}: expected what a run writes, got something else")
    return config


def _last_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the whole rows at the end of a trajectory; an unfinished last line is left out."""
    with open_regular(path) as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - _TAIL_BYTES)
        file.seek(start)
        lines = file.read().split(b"\n")
    whole = lines[1:-1] if start else lines[:-1]  # the first one may be cut by where we began to read
    try:
        rows = [json_value(line) for line in whole if line.strip()]
    except ValueError as error:
        raise ValueError(
            f"{path.name}: expected JSON in each line, got something else ({getattr(error, 'msg', error)}); mend or leave "
            "out that run"
        ) from error
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError(
            f"{path.name}: expected a JSON object in each line, got something else; mend or leave out that run"
        )
    windows = [row["window"] for row in rows]
    first = windows[0] if start and windows else 1
    if windows != list(range(first, first + len(rows))):
        raise ValueError(f"{path.name}: expected a line a window, got some lost, moved or doubled; restore the file")
    return rows


def _latest(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    return next((float(row[name]) for row in reversed(rows) if _is_number(row.get(name))), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_COLUMNS = ("run", "agent", "seed", "state", "windows", "ratio", "probe NLL", "accuracy", "last row", "time left")
_LEFT_OUT_WHERE_NARROW = ("agent", "seed", "last row")

WIDE = 112
"""Characters that the whole table takes; where there are fewer, agent, seed (which names of runs tell) and age are left out."""


def status_table(statuses: Sequence[RunStatus], most: int | None = None, width: int = WIDE) -> Group:
    """Returns the runs as a table, with a line that counts them and one for each that cannot be read.

    Args:
        statuses: What ``run_statuses`` returns.
        most: Lines of the table; None shows all.
        width: Characters in a line of the terminal.
    """
    names = [name for name in _COLUMNS if width >= WIDE or name not in _LEFT_OUT_WHERE_NARROW]
    table = Table() if width >= WIDE else Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in names:
        is_text = name in ("run", "agent", "state")
        # Where there is too little room, it is the names that are cut: rich narrows columns that may be wrapped.
        table.add_column(
            name, justify="left" if is_text else "right", no_wrap=name not in ("run", "agent"), overflow="ellipsis"
        )
    shown = statuses if most is None else statuses[:most]
    for status in shown:
        cells = _cells(status)
        table.add_row(*(cells[name] for name in names))
    counts = ", ".join(
        f"{number} {state}" for state in _ORDER if (number := sum(status.state == state for status in statuses))
    )
    hidden = len(statuses) - len(shown)
    lines = [f"{counts or 'no runs yet'}{f' ({hidden} more not shown)' if hidden else ''}"]
    lines += [f"{printable(status.name, 80)}: {printable(status.problem, 300)}" for status in shown if status.problem]
    return Group(table, *(Text(line) for line in lines))


def _cells(status: RunStatus) -> dict[str, Text | str]:
    """Returns what stands in each column of a run's line."""
    left = (status.windows - status.window) * (status.window_sec or 0.0) if status.state == "running" else 0.0
    is_over = status.state in ("finished", "broke")
    return {
        # Text, and without control characters: names come from files, and are no markup.
        "run": Text(printable(status.name, 80)),
        "agent": Text(printable(status.agent, 40)),
        "seed": Text(printable(status.seed, 20)),
        "state": Text(status.state, style=_STYLES[status.state]),
        "windows": f"{status.window}/{status.windows}" if status.windows else "-",
        "ratio": _number(status.reveal_ratio, ".2f"),
        "probe NLL": _number(status.probe_nll, ".3f"),
        "accuracy": _number(status.accuracy, ".1%"),
        "last row": "-" if status.age_sec is None or is_over else f"{_duration(status.age_sec)} ago",
        "time left": f"~{_duration(left)}" if left > 0 else "-",
    }


def watch(root: Path, *, once: bool = False, every_sec: float = 2.0, console: Console | None = None) -> None:
    """Shows the runs below a folder until Ctrl-C, or once.

    Args:
        root: The folder; runs that begin later appear.
        once: Print the table and return.
        every_sec: Seconds between two looks.
        console: Where to show it; None is the terminal, 120 characters wide where the output goes to a file.
    """
    console = console or safe_console()
    if not console.is_terminal:
        console = safe_console(file=console.file, width=max(120, console.width))
    if once:
        console.print(status_table(run_statuses(root), width=console.width))
        return
    try:
        with Live(console=console, auto_refresh=False, screen=False) as live:
            while True:
                statuses = run_statuses(root)
                # Six lines beside those of the runs, and those that say what is wrong, which may take two each.
                most = max(1, console.height - 6 - 2 * sum(bool(status.problem) for status in statuses))
                live.update(status_table(statuses, most, console.width), refresh=True)
                time.sleep(every_sec)
    except KeyboardInterrupt as interrupt:
        if type(interrupt) is not KeyboardInterrupt:
            raise  # SIGTERM, which `main` turns into its own exit status


def _number(value: float | None, pattern: str) -> str:
    return "-" if value is None else format(value, pattern)


def _duration(seconds: float) -> str:
    """Returns a duration for people.

    >>> _duration(7.4), _duration(600), _duration(7300), _duration(200000)
    ('7 s', '10 min', '2.0 h', '2.3 d')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"
