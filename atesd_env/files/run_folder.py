"""The files of a run: ``config.json``, ``trajectory.jsonl`` (one row a window) and ``samples.jsonl`` (sample rollouts).

A run is one student trained once, in a folder of its own. Lines are appended whole: a run that is killed, or a disk
that fills up, leaves every earlier row readable. All JSON is strict; NaN and infinities, which JSON lacks, become null.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import math
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from atesd_env.config import RunConfig
from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.files.atomic import failing, failure, write_atomically
from atesd_env.files.description import check_same, read_description

FORMAT_VERSION = 1
"""Version of the layout of a run folder, written to ``config.json``."""

CONFIG_FILE = "config.json"
"""What a run is, in its folder."""
TRAJECTORY_FILE = "trajectory.jsonl"
"""A row a window, in a run's folder."""
SAMPLES_FILE = "samples.jsonl"
"""Sample rollouts, in a run's folder."""
RUN_FILES = (CONFIG_FILE, TRAJECTORY_FILE, SAMPLES_FILE)
"""The files that a RunWriter owns; ``overwrite=True`` deletes these and nothing else."""

VERSIONED_PACKAGES = (
    "atesd-env",
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "safetensors",
    "numpy",
    "gymnasium",
    "stable-baselines3",
    "sb3-contrib",
    "math-verify",
)
"""Packages whose version can change a run."""

_REQUIRED_KEYS = ("env_id", "agent", "seed", "config")


class RunWriter:
    """Writes the files of one run.

    Args:
        folder: Folder of the run, such as ``runs/beta-seed-0``; made with its parents where missing.
        description: What goes to ``config.json``: ``env_id``, ``agent``, ``seed``, ``config`` (a configuration, or a
            mapping of all its fields), and anything else that JSON can hold. ``format_version``, ``run`` (the folder's
            name) and ``versions`` are added.
        overwrite: Delete an earlier run's ``RUN_FILES`` first. Other files in the folder are never touched.
        keep_windows: Go on with the run that is in the folder: keep what was written of this many windows, cut off what
            follows, and leave ``config.json`` as it is. None begins a run.

    Attributes:
        folder: Folder of the run.
        num_rows: Rows written so far.

    Raises:
        ConfigError: If ``description`` lacks a key or holds something that JSON cannot, or describes another run than
            the one to go on with.
        RunFilesError: If the folder already holds a run (and ``overwrite`` is False), lacks rows that are to be kept, or
            cannot be written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        description: Mapping[str, Any],
        *,
        overwrite: bool = False,
        keep_windows: int | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.num_rows = 0
        if keep_windows is not None:
            check_same_run(self.folder, description)
            self.num_rows = keep_windows
            self._trajectory = _opened(self.folder / TRAJECTORY_FILE, keep_windows, num_lines=keep_windows)
            try:
                self._samples = _opened(self.folder / SAMPLES_FILE, keep_windows)
            except RunFilesError:
                self._trajectory.close()
                raise
            return
        config = _config_content(self.folder, description)
        _prepare_folder(self.folder, overwrite=overwrite)
        # The trajectory is made first, and exclusively: of two processes that start the same run, one is refused before
        # it can replace the other's config.json.
        self._trajectory = LineFile(self.folder / TRAJECTORY_FILE)
        try:
            write_atomically(self.folder / CONFIG_FILE, config)
            self._samples = LineFile(self.folder / SAMPLES_FILE)
        except RunFilesError:
            self._trajectory.close()
            _delete(self.folder, (TRAJECTORY_FILE, CONFIG_FILE))
            raise

    def write_row(self, row: Mapping[str, Any]) -> None:
        """Appends one window's row.

        Args:
            row: Column name -> number, string, bool or None. A NaN or infinite number is written as null and its column
                is named in one more column, ``non_finite`` (names joined by ", "), present only in such rows.

        Raises:
            ConfigError: If a value is something else.
            RunFilesError: If the row cannot be written; the rows before it stay whole.
        """
        non_finite = [name for name, value in row.items() if _is_non_finite(value)]
        for name, value in row.items():
            if value is not None and not isinstance(value, str | int | float | np.generic):
                raise ConfigError(
                    f"row column {name!r}: expected a number, a string or None, got {value!r} "
                    f"({type(value).__name__}); put one number in each column."
                )
        self._trajectory.append({**row, "non_finite": ", ".join(non_finite)} if non_finite else row)
        self.num_rows += 1

    def write_sample(self, sample: Mapping[str, Any]) -> None:
        """Appends one sample rollout: names -> anything that JSON can hold (NaN and infinities become null).

        Raises:
            ConfigError: If a value cannot be written as JSON.
            RunFilesError: If the sample cannot be written; earlier ones stay whole.
        """
        self._samples.append(sample)

    def sync(self) -> None:
        """Waits until what was written would survive a power cut.

        Raises:
            RunFilesError: If the operating system reports only now that it could not store it.
        """
        self._trajectory.sync()
        self._samples.sync()

    def close(self) -> None:
        """Closes the files; a second call does nothing.

        Raises:
            RunFilesError: If the operating system reports only now that it could not store what was written.
        """
        try:
            self._trajectory.close()
        finally:
            self._samples.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Returns the rows of a file of JSON lines, in order.

    An unfinished last line, as a killed run may leave it, is dropped.

    Args:
        path: ``trajectory.jsonl`` or ``samples.jsonl`` of a run.

    Raises:
        RunFilesError: If the file cannot be read, or a line before the last is not a JSON object.
    """
    path = Path(path)
    with failing(path, "a readable file"):
        lines = path.read_bytes().split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif number < len(lines):
            raise RunFilesError(
                f"{path}, line {number}: expected a JSON object, got {line[:60]!r}; repair or delete this line."
            )
    return rows


def package_versions() -> dict[str, str | None]:
    """Returns the version of Python and of ``VERSIONED_PACKAGES`` (None where absent), importing none of them."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in VERSIONED_PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def check_same_run(folder: Path, description: Mapping[str, Any]) -> None:
    """Compares a run folder's ``config.json`` with the run that is asked for; versions may differ.

    Raises:
        ConfigError: If they differ; the message names the fields.
        RunFilesError: If ``config.json`` cannot be read.
    """
    there = read_description(folder / CONFIG_FILE, "run", ["config"])
    asked = json.loads(_config_content(folder, description))
    check_same(folder, "run", there, {name: asked[name] for name in _REQUIRED_KEYS})


class LineFile:
    """A file of JSON lines that grows by whole lines only.

    Args:
        path: The file.
        kept_size: None makes a new file; a number opens an old one, and cuts off what stands behind so many bytes.

    Raises:
        RunFilesError: If it cannot be made or opened.
    """

    def __init__(self, path: Path, kept_size: int | None = None) -> None:
        self._path = path
        self._size = kept_size or 0
        is_new = kept_size is None
        with failing(path, "to make this file" if is_new else "to go on with this file"):
            # Unbuffered: a line is with the operating system as soon as it is written, and survives a killed process.
            self._file: io.FileIO = open(path, "xb" if is_new else "r+b", buffering=0)  # noqa: SIM115 (open for the run)
            self._file.truncate(self._size)
            self._file.seek(self._size)

    def append(self, content: Mapping[str, Any]) -> None:
        """Writes one line; NaN and infinities become null.

        Raises:
            ConfigError: If JSON cannot hold the content.
            RunFilesError: If it cannot be written; earlier lines stay whole.
        """
        line = (json.dumps(_plain(content), allow_nan=False) + "\n").encode()
        if self._file.closed:
            raise RunFilesError(f"{self._path}: expected an open file, got a closed one; write before close().")
        rest = memoryview(line)
        try:
            # One call writes everything, unless the disk is about to fill up: then the next call says why.
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise failure(self._path, "to append a line", error, self._drop_half_line()) from error
        self._size += len(line)

    def _drop_half_line(self) -> str:
        try:
            self._file.truncate(self._size)
            self._file.seek(self._size)
        except OSError:
            return " Earlier lines are intact; the last one may be cut, which every reader of ours allows for."
        return " Earlier lines are intact."

    def sync(self) -> None:
        """Waits until the lines would survive a power cut."""
        with failing(self._path, "to store this file"):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        with failing(self._path, "to close the file"):
            self._file.close()


def _opened(path: Path, keep_windows: int, num_lines: int | None = None) -> LineFile:
    """Opens a file of windows 1, 2, ...; cuts off those after ``keep_windows``; refuses another number of lines."""
    size = kept = 0
    with failing(path, "to go on with this file"):
        content = path.read_bytes()
    for line in content.splitlines(keepends=True):
        try:
            window = json.loads(line)["window"]
        except (ValueError, KeyError, TypeError):
            break
        if not line.endswith(b"\n") or window > keep_windows:
            break
        size, kept = size + len(line), kept + 1
    if num_lines is not None and kept != num_lines:
        raise RunFilesError(
            f"{path}: expected the rows of windows 1 to {num_lines}, which the run's checkpoint has behind it, got {kept} of "
            "them; restore the file, or start anew."
        )
    return LineFile(path, size)


def _config_content(folder: Path, description: Mapping[str, Any]) -> bytes:
    missing = [key for key in _REQUIRED_KEYS if key not in description]
    if missing:
        raise ConfigError(
            f"description: expected the keys {', '.join(_REQUIRED_KEYS)}, got none of {', '.join(missing)}; add them."
        )
    config = description["config"]
    content = {
        **description,
        "format_version": FORMAT_VERSION,
        "run": folder.resolve().name,
        "config": config.keywords() if isinstance(config, RunConfig) else config,
        "versions": {**package_versions(), **description.get("versions", {})},
    }
    first = ("format_version", "run", *_REQUIRED_KEYS)
    ordered = {key: content[key] for key in (*first, *(key for key in content if key not in first))}
    return (json.dumps(_plain(ordered), indent=2, allow_nan=False) + "\n").encode()


def _prepare_folder(folder: Path, *, overwrite: bool) -> None:
    with failing(folder, "a folder to write to"):
        folder.mkdir(parents=True, exist_ok=True)
        present = [name for name in RUN_FILES if (folder / name).exists()]
    if present and not overwrite:
        raise RunFilesError(
            f"{folder}: expected a folder without a run, got one with {', '.join(present)}; choose another folder "
            "(--out), or allow the old run's files to be deleted (overwrite)."
        )
    _delete(folder, present)


def _delete(folder: Path, names: tuple[str, ...] | list[str]) -> None:
    for name in names:
        with failing(folder / name, "to delete the old run's file"):
            (folder / name).unlink(missing_ok=True)


def _is_non_finite(value: Any) -> bool:
    return isinstance(value, float | np.floating) and not math.isfinite(value)


def _plain(value: Any) -> Any:
    """Returns the value as JSON types only: numpy scalars as numbers, tuples as lists, NaN and infinities as None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return None if _is_non_finite(value) else value
    raise ConfigError(
        f"run files: expected numbers, strings, lists and mappings, got {value!r} ({type(value).__name__}); convert it "
        "first."
    )
