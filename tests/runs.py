"""What tests of runs look at: the rows in a run's folder, with and without how long something took."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atesd_env.files.run_folder import TRAJECTORY_FILE, read_rows


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows of a run."""
    return read_rows(folder / TRAJECTORY_FILE)


def rows_without_times(folder: Path) -> list[dict[str, Any]]:
    """Returns what two runs of the same have in common: their rows without ``time/`` columns."""
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows_of(folder)]
