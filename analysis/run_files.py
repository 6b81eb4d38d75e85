"""One run folder in, what it says out: ``config.json`` (what was run) and ``trajectory.jsonl`` (one row a window).

Sound trajectories are parsed by pyarrow, five times faster than line by line. Whatever it stumbles over, or would read more
generously than we do, is read again line by line, so that the message names the line.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from analysis.columns import kind_of
from analysis.errors import DamagedRunError
from analysis.reading import json_value, lines_of, open_regular, read_json

FORMAT_VERSION = 1
"""The layout of a run folder that this module reads."""

CONFIG_FILE = "config.json"
"""What a run is, in its folder."""
TRAJECTORY_FILE = "trajectory.jsonl"
"""A row a window, in a run's folder."""

RunStatus = Literal["finished", "unfinished", "empty", "damaged", "unreadable"]
"""What a run folder is in; ``load_runs`` says which are kept, flagged or refused."""

RUN_COLUMNS = ("run", "env_id", "agent", "seed", "window")
"""The first columns of every frame; together, run and window name a row."""

AGENTS_OWN = {"action_ratios", "context"}
"""Fields of a configuration that say what an agent is shown and how it may act: not what is trained."""
FLAG_COLUMNS = ("run_status", "version", "configuration", "configuration_differs")
"""The columns that follow them."""


_MOST_BRACKETS = 500
"""Brackets beyond one a line, in texts or in damage, up to which a trajectory is parsed at once."""


@dataclass(frozen=True)
class Run:
    """One run as read.

    Attributes:
        name: The folder's path below the folder that was asked for.
        status: What it is in.
        problem: Why it is damaged or unreadable.
        description: What ``config.json`` holds; empty if it is unreadable.
        columns: Column name -> its values in all sound rows, an arrow array or a list; "window" is among them.
    """

    name: str
    status: RunStatus
    problem: DamagedRunError | None = None
    description: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        return len(self.columns.get("window", ()))

    @property
    def env_id(self) -> str:
        return valid_text(self.description.get("env_id", ""))

    @property
    def agent(self) -> str:
        return valid_text(self.description.get("agent", ""))

    @property
    def seed(self) -> int | None:
        return self.description.get("seed")

    @property
    def config(self) -> Mapping[str, Any]:
        config = self.description.get("config")
        return config if isinstance(config, dict) else {}

    @property
    def version(self) -> str | None:
        versions = self.description.get("versions")
        version = versions.get("atesd-env") if isinstance(versions, dict) else None
        return None if version is None else valid_text(version)

    @property
    def configuration(self) -> str:
        """A fingerprint of the configuration: runs with the same one differ in agent and seed alone, and in ``AGENTS_OWN``."""
        text = json.dumps(
            {name: value for name, value in self.config.items() if name not in AGENTS_OWN}, sort_keys=True
        )
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def sort_key(self) -> tuple[str, str, int, str]:
        """Returns what runs are ordered by: environment, agent, seed, name."""
        return self.env_id, self.agent, -1 if self.seed is None else self.seed, self.name


def read_run(folder: Path, name: str) -> Run:
    """Reads a run folder; what is wrong with it is in the result, and raises nothing.

    Args:
        folder: The run's folder.
        name: What it is called in the frame.
    """
    path = folder / TRAJECTORY_FILE
    content, unreadable = _content(path)
    try:
        description = read_description(folder, has_rows=bool(content.strip()))
    except DamagedRunError as error:
        return Run(name, "unreadable", error)
    if unreadable is not None:
        return Run(name, "damaged", unreadable, description)
    columns, problem = _columns(path, content)
    if problem is not None:
        return Run(name, "damaged", problem, description, columns)
    if not len(columns.get("window", ())):
        return Run(name, "empty", None, description)
    statuses = columns.get("status")
    last = None if statuses is None else _plain(statuses[-1])
    return Run(name, "finished" if last in ("truncated", "terminated") else "unfinished", None, description, columns)


def _plain(value: Any) -> Any:
    return value.as_py() if isinstance(value, pa.Scalar) else value


def _content(path: Path) -> tuple[bytes, DamagedRunError | None]:
    """Returns what a trajectory holds, nothing where there is none, or why it is no file that can be read."""
    try:
        with open_regular(path) as file:
            return b"".join(lines_of(file)), None
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError) and not path.is_symlink():
            return b"", None
        reason = getattr(error, "strerror", None) or error
        return b"", DamagedRunError(
            f"{path}: expected a file with a row in each line, got {reason}; restore it from a copy, or leave this folder out."
        )


def read_description(folder: Path, *, has_rows: bool = True) -> dict[str, Any]:
    """Returns what a run's ``config.json`` says, checked; nothing where there is none and no row either.

    Raises:
        DamagedRunError: If it cannot be read, is of another layout, or lacks what names a run.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        if has_rows:
            raise DamagedRunError(
                f"{path}: expected a file beside {TRAJECTORY_FILE}, got none; restore it from a copy."
            )
        return {}
    try:
        description = read_json(path)
    except OSError as error:
        raise DamagedRunError(
            f"{path}: expected a readable file, got {error.strerror or error}; restore it from a copy, or leave this folder out."
        ) from error
    except ValueError as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
        raise DamagedRunError(f"{path}, line {line}: expected JSON, got '{error}'; restore it from a copy.") from error
    if not isinstance(description, dict) or description.get("format_version") != FORMAT_VERSION:
        version = description.get("format_version") if isinstance(description, dict) else None
        raise DamagedRunError(
            f"{path}: expected format_version {FORMAT_VERSION}, got {version!r}; read it with the version of "
            "atesd-env that wrote it."
        )
    for key, kinds in {"env_id": (str,), "agent": (str,), "seed": (int, type(None))}.items():
        if not isinstance(description.get(key, ...), kinds):
            raise DamagedRunError(
                f"{path}: expected the key {key!r} ({kinds[0].__name__}), got {description.get(key)!r}; restore the file."
            )
    if not _fits(description["seed"]):
        raise DamagedRunError(
            f"{path}: expected a seed below 2^63, got {description['seed']}; leave this folder out, or make the run anew."
        )
    return description


def _columns(path: Path, content: bytes) -> tuple[Mapping[str, Sequence[Any]], DamagedRunError | None]:
    """Returns the columns of all sound rows, and what is wrong with the row that ends them."""
    table = _parsed_at_once(content)
    if table is not None:
        return dict(zip(table.column_names, table.columns, strict=True)), None
    rows, problem = _parsed_by_line(path, content)
    names = dict.fromkeys(name for row in rows for name in row)  # keeps the order in which columns first appear
    return {name: [row.get(name) for row in rows] for name in names}, problem


def _parsed_at_once(content: bytes) -> pa.Table | None:
    """Returns a sound trajectory, or None where reading line by line has to say what there is."""
    content = content.rstrip()
    if not content or b"\0" in content:
        return None
    # Rows are flat, a bracket each; pyarrow crashes, and Python with it, at what is nested some ten thousand times.
    if content.count(b"[") + content.count(b"{") > content.count(b"\n") + _MOST_BRACKETS:
        return None
    try:
        content.decode()  # pyarrow finds out later, when a name or a text is asked for
        table = pyarrow.json.read_json(
            io.BytesIO(content),
            read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=max(len(content) + 1, 1 << 20)),
        )
    except (UnicodeDecodeError, pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    names = table.column_names
    is_sound = (
        all(_is_finite(column) for column in table.columns)
        and table.num_rows == content.count(b"\n") + 1
        and len(set(names)) == len(names)
        and not any(name in names for name in (*RUN_COLUMNS, *FLAG_COLUMNS) if name != "window")
        and all(_is_plain(kind) for kind in table.schema.types)
        and "window" in names
        and pa.types.is_int64(table.schema.field("window").type)
        and table["window"].null_count == 0
        and not any(
            pa.types.is_string(kind) and _is_numeric(name) for name, kind in zip(names, table.schema.types, strict=True)
        )
    )
    if not is_sound:
        return None
    windows = table["window"].to_numpy()
    return table if bool((windows == np.arange(1, len(windows) + 1)).all()) else None


def valid_text(value: object) -> str:
    """Returns a text that a column can hold: JSON, and names of folders, can spell half of a character pair, UTF-8 cannot."""
    return str(value).encode("utf-8", errors="replace").decode()


def _is_finite(column: pa.ChunkedArray) -> bool:
    """Whether no number of a column is NaN or infinite, which strict JSON lacks and too many digits become."""
    return not pa.types.is_floating(column.type) or bool(pc.all(pc.is_finite(column), min_count=0).as_py())


def _is_plain(kind: pa.DataType) -> bool:
    """Says whether a type is a number, a truth value, a text or nothing: no list, and no text that was read as a date."""
    test = pa.types
    return bool(
        test.is_floating(kind)
        or test.is_int64(kind)
        or test.is_string(kind)
        or test.is_null(kind)
        or test.is_boolean(kind)
    )


def _parsed_by_line(path: Path, content: bytes) -> tuple[list[dict[str, Any]], DamagedRunError | None]:
    lines = content.split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json_value(line)
            reason = ""
        except ValueError as error:
            row, reason = None, f" ({error})"
        if not isinstance(row, dict):
            if number == len(lines):
                break  # the run was killed while it wrote this line, or is writing it now
            return rows, DamagedRunError(
                f"{path}, line {number}: expected a JSON object, got {line[:60]!r}{reason}; repair or delete this line."
            )
        problem = _row_problem(row, len(rows) + 1)
        if problem:
            return rows, DamagedRunError(f"{path}, line {number}: {problem}")
        rows.append(row)
    return rows, None


def _row_problem(row: dict[str, Any], expected: int) -> str | None:
    """Returns what is wrong with a row that is sound JSON and should be that of window ``expected``, or None."""
    window = row.get("window")
    if not isinstance(window, int) or isinstance(window, bool) or not _fits(window):
        return f"expected an integer 'window', got {window!r}; repair or delete this line."
    if window < expected:
        return f"expected a window after {expected - 1}, got {window}; is this file made of two runs? Keep one."
    if window > expected:
        return f"expected window {expected}, got {window}; lines before it are lost: restore the file from a copy."
    for name, value in row.items():
        if name in (*RUN_COLUMNS, *FLAG_COLUMNS) and name != "window":
            return f"expected no column {name!r} (config.json says it), got {value!r}; rename it."
        if isinstance(value, list | dict):
            return f"expected one value in column {name!r}, got {value!r}; rows are flat."
        if isinstance(value, float) and not math.isfinite(value):
            return f"expected a finite number in column {name!r}, got {value!r}; repair or delete this line."
        if isinstance(value, str) and _is_numeric(name):
            return f"expected a number in column {name!r}, got {value[:60]!r}; repair or delete this line."
    return None


def _fits(value: int | None) -> bool:
    """Whether a whole number has a place in a column."""
    return value is None or -(2**63) <= value < 2**63


def _is_numeric(name: str) -> bool:
    """Whether a column is documented to hold numbers; what an agent says of itself may be text."""
    return not name.startswith("agent/") and kind_of(name).partition(" ")[0] in ("int", "float")
