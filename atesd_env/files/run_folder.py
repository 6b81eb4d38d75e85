"""The files of a run: ``config.json``, ``trajectory.jsonl`` (one row a window) and ``samples.jsonl`` (sample rollouts).

Where an agent tries windows on branches, ``branches.jsonl`` has their rows.

A run is one student trained once, in a folder of its own. Lines are appended whole: a run that is killed, or a disk
that fills up, leaves every earlier row readable. All JSON is strict; NaN and infinities, which JSON lacks, become null.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from atesd_env.config import RunConfig
from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.files.atomic import failing, is_own_file, write_atomically
from atesd_env.files.description import check_same, read_description
from atesd_env.files.line_file import (
    LineFile,
    is_in_64_bits,
    is_non_finite,
    line_digests,
    plain,
    read_own,
    vouched_lines,
    whole_lines,
)
from atesd_env.files.ownership import MARKER, FolderKind
from atesd_env.files.reading import cause_of, json_value, lines_of, open_regular, reading

FORMAT_VERSION = 1
"""Version of the layout of a run folder, written to ``config.json``."""

CONFIG_FILE = "config.json"
"""What a run is, in its folder."""
TRAJECTORY_FILE = "trajectory.jsonl"
"""A row a window, in a run's folder."""
SAMPLES_FILE = "samples.jsonl"
"""Sample rollouts, in a run's folder."""
BRANCHES_FILE = "branches.jsonl"
"""Rows of windows that the agent tried on branches and took back, in the folder of a run that has some."""
RUN_FILES = (TRAJECTORY_FILE, SAMPLES_FILE, CONFIG_FILE)
"""The files that every RunWriter makes; ``overwrite=True`` deletes these and ``BRANCHES_FILE``, and nothing else."""

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

RUN = FolderKind(
    "run", CONFIG_FILE, (BRANCHES_FILE, *RUN_FILES), ("format_version", "run", *_REQUIRED_KEYS, "versions")
)
"""What a folder of a run is, as its RunWriter made it."""


class RunWriter:
    """Writes the files of one run.

    Args:
        folder: Folder of the run, such as ``runs/beta-seed-0``; made with its parents where missing.
        description: What goes to ``config.json``: ``env_id``, ``agent``, ``seed``, ``config`` (a configuration, or a
            mapping of all its fields), and anything else that JSON can hold. ``format_version``, ``run`` (the folder's
            name) and ``versions`` are added.
        overwrite: Delete an earlier run's files first. Other files in the folder are never touched.
        keep_windows: Go on with the run that is in the folder: keep what was written of this many windows, cut off what
            follows, and leave ``config.json`` as it is. None begins a run.
        vouched: What ``vouched`` returned after those windows: the files must begin so. None compares only their number.

    Attributes:
        folder: Folder of the run.
        num_rows: Rows written so far.

    Raises:
        ConfigError: If ``description`` lacks a key or holds something that JSON cannot, or describes another run than
            the one to go on with.
        RunFilesError: If the folder already holds a run (and ``overwrite`` is False), or files that no run of ours wrote;
            if lines that are to be kept are missing or changed; if a file is a link, or cannot be written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        description: Mapping[str, Any],
        *,
        overwrite: bool = False,
        keep_windows: int | None = None,
        vouched: Mapping[str, NDArray[np.uint8]] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.num_rows = 0
        self._branches: LineFile | None = None
        if keep_windows is not None:
            check_same_run(self.folder, description)
            self.num_rows = keep_windows
            self._go_on(keep_windows, vouched or {})
            return
        config = _config_content(self.folder, description)
        self._config_digests = line_digests(config)
        _prepare_folder(self.folder, overwrite=overwrite)
        # The trajectory is made first, and exclusively: of two processes that start the same run, one is refused before
        # it can replace the other's config.json.
        self._trajectory = LineFile(self.folder / TRAJECTORY_FILE)
        try:
            write_atomically(self.folder / CONFIG_FILE, config)
            self._samples = LineFile(self.folder / SAMPLES_FILE)
        except RunFilesError:
            self._trajectory.close()
            with suppress(OSError):
                for name in (TRAJECTORY_FILE, CONFIG_FILE):
                    (self.folder / name).unlink(missing_ok=True)
            raise

    def _go_on(self, window: int, vouched: Mapping[str, NDArray[np.uint8]]) -> None:
        """Opens the files behind a window; both are looked at before either is cut."""
        whats = {
            TRAJECTORY_FILE: f"the rows of windows 1 to {window}",
            SAMPLES_FILE: f"the samples up to window {window}",
        }
        self._config_digests = _config_digests(self.folder / CONFIG_FILE, vouched.get(CONFIG_FILE))
        rows, samples = (_kept(self.folder / name, window, vouched.get(name), what) for name, what in whats.items())
        branches = _kept_branches(self.folder / BRANCHES_FILE, vouched.get(BRANCHES_FILE), window)
        self._trajectory = LineFile(self.folder / TRAJECTORY_FILE, rows)
        try:
            self._samples = LineFile(self.folder / SAMPLES_FILE, samples)
            if branches is not None:
                self._branches = LineFile(self.folder / BRANCHES_FILE, branches)
        except RunFilesError:
            self._trajectory.close()
            raise

    def vouched(self) -> dict[str, NDArray[np.uint8]]:
        """Returns a digest of each line that was written, by the file's name: what a checkpoint vouches for."""
        branches = {} if self._branches is None else {BRANCHES_FILE: self._branches.digests}
        return {
            CONFIG_FILE: self._config_digests,
            TRAJECTORY_FILE: self._trajectory.digests,
            SAMPLES_FILE: self._samples.digests,
            **branches,
        }

    def write_row(self, row: Mapping[str, Any]) -> None:
        """Appends one window's row.

        Args:
            row: Column name -> number, string, bool or None. A NaN or infinite number is written as null and its column
                is named in one more column, ``non_finite`` (names joined by ", "), present only in such rows.

        Raises:
            ConfigError: If a value is something else.
            RunFilesError: If the row cannot be written; the rows before it stay whole.
        """
        non_finite = [name for name, value in row.items() if is_non_finite(value)]
        for name, value in row.items():
            if value is not None and not isinstance(value, str | int | float | np.generic):
                raise ConfigError(
                    f"row column {name!r}: expected a number, a string or None, got {value!r} "
                    f"({type(value).__name__}); put one number in each column."
                )
            if isinstance(value, int) and not is_in_64_bits(value):
                raise ConfigError(
                    f"row column {name!r}: expected a number of at most 64 bits, which tables can hold, got a longer one; make it "
                    "a float."
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

    def write_branch(self, row: Mapping[str, Any]) -> None:
        """Appends the row of one window that was tried on a branch; the first one makes the file.

        Raises:
            ConfigError: If a value cannot be written as JSON.
            RunFilesError: If it cannot be written; earlier ones stay whole.
        """
        if self._branches is None:
            self._branches = LineFile(self.folder / BRANCHES_FILE)
        self._branches.append(row)

    def sync(self) -> None:
        """Waits until what was written would survive a power cut.

        Raises:
            RunFilesError: If the operating system reports only now that it could not store it.
        """
        for file in self._files():
            file.sync()

    def close(self) -> None:
        """Closes the files; a second call does nothing.

        Raises:
            RunFilesError: If the operating system reports only now that it could not store what was written.
        """
        with ExitStack() as closing:
            for file in self._files():
                closing.callback(file.close)

    def _files(self) -> list[LineFile]:
        return [file for file in (self._samples, self._branches, self._trajectory) if file is not None]

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
    with reading(path, "a readable file"), open_regular(path) as file:
        lines = list(lines_of(file))
    while lines and not lines[-1].strip():
        lines.pop()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json_value(line)
            reason = ""
        except ValueError as error:
            row, reason = None, f" ({cause_of(error)})"
        if isinstance(row, dict):
            rows.append(row)
        elif number < len(lines):
            raise RunFilesError(
                f"{path}, line {number}: expected a JSON object, got {line[:60]!r}{reason}; repair or delete this line."
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
    version, versions = asked["versions"].get("atesd-env"), there.get("versions")
    if MARKER in there and isinstance(versions, dict) and versions.get("atesd-env") == version:
        # Older versions had other fields; this one's are all there, and no others.
        odd = sorted(there["config"].keys() ^ asked["config"].keys())
        if odd:
            raise ConfigError(
                f"{folder / CONFIG_FILE}: expected the fields of this version's configuration, got other ones ({', '.join(odd)}); "
                "restore the file, or begin anew (--overwrite)."
            )


def _kept(path: Path, keep_windows: int, digests: NDArray[np.uint8] | None, what: str) -> bytes:
    """Returns what stays of a file of windows 1, 2, ...: what a checkpoint vouches for, or the lines up to its window."""
    content = read_own(path, "to go on with this file")
    if digests is not None:
        return vouched_lines(path, content, digests, what)
    lines = []
    for line in whole_lines(content):
        try:
            is_later = json_value(line)["window"] > keep_windows
        except (ValueError, KeyError, TypeError):
            break
        if is_later:
            break
        lines.append(line + b"\n")
    if path.name == TRAJECTORY_FILE and len(lines) != keep_windows:
        raise RunFilesError(
            f"{path}: expected {what}, which the run's checkpoint has behind it, got {len(lines)} of them; restore the file, or "
            "start anew."
        )
    return b"".join(lines)


def _kept_branches(path: Path, digests: NDArray[np.uint8] | None, window: int) -> bytes | None:
    """Returns what stays of the branches' rows: what a checkpoint vouches for; None where there is neither that nor a file."""
    if digests is None:
        return b"" if is_own_file(path) else None
    return vouched_lines(
        path, read_own(path, "to go on with this file"), digests, f"the branches up to window {window}"
    )


def _config_digests(path: Path, vouched: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Returns a digest of each line of ``config.json``, which must be the ones that a checkpoint vouches for."""
    content = read_own(path, "to go on with this file")
    if vouched is not None and vouched_lines(path, content, vouched, "the run's description") != content:
        raise RunFilesError(
            f"{path}: expected what the checkpoint vouches for, got more; restore the file, or begin anew."
        )
    return line_digests(content)


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
    return (json.dumps(plain(RUN.marked(ordered)), indent=2, allow_nan=False) + "\n").encode()


def _prepare_folder(folder: Path, *, overwrite: bool) -> None:
    with failing(folder, "a folder to write to"):
        folder.mkdir(parents=True, exist_ok=True)
    present = RUN.present(folder)
    if present and not overwrite:
        raise RunFilesError(
            f"{folder}: expected a folder without a run, got one with {', '.join(present)}; choose another folder "
            "(--out), or allow the old run's files to be deleted (overwrite)."
        )
    RUN.delete(folder)
