"""Run folders in, one tidy frame out.

A run folder holds ``config.json`` (what was run) and ``trajectory.jsonl`` (one row a window). Nothing else is read, so
files of other tools do no harm.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

FORMAT_VERSION = 1
"""The layout of a run folder that this module reads."""

RUN_COLUMNS = ("run", "env_id", "agent", "seed", "window")
"""The first columns of every frame; together, run and window name a row."""

_CONFIG_FILE = "config.json"
_TRAJECTORY_FILE = "trajectory.jsonl"
_logger = logging.getLogger(__name__)


class AnalysisError(ValueError):
    """Root of what this package raises on purpose: a file, a folder or a frame cannot be used."""


class NoRunsError(AnalysisError):
    """There is no run, or no row, where one was expected."""


class DamagedRunError(AnalysisError):
    """A file of a run is damaged; the message names the file and the line."""


def load_runs(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Returns the rows of one or many runs as a tidy frame: one row for each window of each run.

    Columns, in order: ``run`` (string; the run folder's path below ``path``, or its name if it is ``path`` itself),
    ``env_id`` and ``agent`` (categories), ``seed`` (Int64), ``window`` (int64), then every column of the trajectories.
    Numbers and truth values are float64, with NaN where nothing was measured (null) or the run lacks the column; texts,
    such as ``status``, are "string". Sorted by env_id, agent, seed, run, window.

    An unfinished last line of a trajectory is dropped, so a run can be read while it goes on. A run without rows is
    left out and logged as a warning. Hidden folders, and folders inside a run folder, are not searched.

    Args:
        path: A run folder, or a folder that holds run folders at any depth.

    Raises:
        NoRunsError: If ``path`` is no folder, or holds no run with a row.
        DamagedRunError: If a file is damaged; the message names file and line.
    """
    root = Path(path)
    if not root.is_dir():
        reason = "a file" if root.exists() else "nothing there"
        raise NoRunsError(f"{root}: expected a folder of runs, got {reason}; pass the folder given to --out.")
    runs = [_read_run(folder, root) for folder in _run_folders(root)]
    for run in runs:
        if not run.rows:
            _logger.warning(
                "%s: the run has no rows and is left out (it stopped before its first window ended).", run.name
            )
    runs = sorted((run for run in runs if run.rows), key=_Run.sort_key)
    if not runs:
        raise NoRunsError(
            f"{root}: expected at least one run folder with rows ({_CONFIG_FILE}, {_TRAJECTORY_FILE}), got none; pass "
            "the folder given to --out, or make a run first."
        )
    return _frame(runs)


@dataclass(frozen=True)
class _Run:
    """One run as read: what names it, and its rows."""

    name: str
    env_id: str
    agent: str
    seed: int | None
    rows: list[dict[str, Any]]

    def sort_key(self) -> tuple[str, str, int, str]:
        return self.env_id, self.agent, -1 if self.seed is None else self.seed, self.name


def _run_folders(root: Path) -> list[Path]:
    folders = []
    for name, subfolders, files in os.walk(root):
        folder = Path(name)
        if _TRAJECTORY_FILE in files or (_CONFIG_FILE in files and _is_run_config(folder / _CONFIG_FILE)):
            folders.append(folder)
            subfolders.clear()  # what lies inside a run (checkpoints, adapters) is part of it
        subfolders[:] = sorted(subfolder for subfolder in subfolders if not subfolder.startswith("."))
    return folders


def _is_run_config(path: Path) -> bool:
    """Tells a run's config.json from that of a saved model, which bears the same name."""
    try:
        return "format_version" in json.loads(path.read_bytes())
    except (ValueError, TypeError):
        return False


def _read_run(folder: Path, root: Path) -> _Run:
    name = folder.resolve().name if folder == root else folder.relative_to(root).as_posix()
    rows = _read_rows(folder / _TRAJECTORY_FILE) if (folder / _TRAJECTORY_FILE).exists() else []
    path = folder / _CONFIG_FILE
    if not path.exists():
        if rows:
            raise DamagedRunError(
                f"{path}: expected a file beside {_TRAJECTORY_FILE}, got none; restore it from a copy."
            )
        return _Run(name, "", "", None, [])
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
        raise DamagedRunError(f"{path}, line {line}: expected JSON, got '{error}'; restore it from a copy.") from error
    if not isinstance(config, dict) or config.get("format_version") != FORMAT_VERSION:
        version = config.get("format_version") if isinstance(config, dict) else None
        raise DamagedRunError(
            f"{path}: expected format_version {FORMAT_VERSION}, got {version!r}; read it with the version of "
            "atesd-env that wrote it."
        )
    for key, kinds in {"env_id": (str,), "agent": (str,), "seed": (int, type(None))}.items():
        if not isinstance(config.get(key, ...), kinds):
            raise DamagedRunError(
                f"{path}: expected the key {key!r} ({kinds[0].__name__}), got {config.get(key)!r}; restore the file."
            )
    return _Run(name, config["env_id"], config["agent"], config["seed"], rows)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    lines = path.read_bytes().split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            if number == len(lines):
                break  # the run was killed while it wrote this line, or is writing it now
            raise DamagedRunError(
                f"{path}, line {number}: expected a JSON object, got {line[:60]!r}; repair or delete this line."
            )
        problem = _problem(row, rows[-1]["window"] if rows else None)
        if problem:
            raise DamagedRunError(f"{path}, line {number}: {problem}")
        rows.append(row)
    return rows


def _problem(row: dict[str, Any], last_window: int | None) -> str | None:
    """Returns what is wrong with a row that is sound JSON, or None."""
    window = row.get("window")
    if not isinstance(window, int):
        return f"expected an integer 'window', got {window!r}; repair or delete this line."
    if last_window is not None and window <= last_window:
        return f"expected a window after {last_window}, got {window}; is this file made of two runs? Keep one."
    for name, value in row.items():
        if name in RUN_COLUMNS and name != "window":
            return f"expected no column {name!r} (config.json says it), got {value!r}; rename it."
        if isinstance(value, list | dict):
            return f"expected one value in column {name!r}, got {value!r}; rows are flat."
    return None


def _frame(runs: list[_Run]) -> pd.DataFrame:
    # dict keeps the order in which columns first appear
    names = list(dict.fromkeys(name for run in runs for row in run.rows for name in row if name != "window"))
    records = [(run, row) for run in runs for row in run.rows]
    columns: dict[str, pd.Series[Any]] = {
        "run": pd.Series([run.name for run, _ in records], dtype="string"),
        "env_id": pd.Series([run.env_id for run, _ in records], dtype="category"),
        "agent": pd.Series([run.agent for run, _ in records], dtype="category"),
        "seed": pd.Series([run.seed for run, _ in records], dtype="Int64"),
        "window": pd.Series([row["window"] for _, row in records], dtype="int64"),
    }
    for name in names:
        columns[name] = _typed([row.get(name) for _, row in records], is_text=name in _TEXT_COLUMNS)
    return pd.DataFrame(columns)


_TEXT_COLUMNS = ("status", "reason", "non_finite")


def _typed(values: list[Any], *, is_text: bool) -> pd.Series[Any]:
    if is_text or any(isinstance(value, str) for value in values):
        return pd.Series([None if value is None else str(value) for value in values], dtype="string")
    return pd.Series([float("nan") if value is None else float(value) for value in values], dtype="float64")
