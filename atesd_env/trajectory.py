"""The files of a run: ``config.json``, ``trajectory.jsonl`` (one row a window) and ``samples.jsonl`` (sample rollouts).

A run is one student trained once, in a folder of its own. Lines are appended whole: a run that is killed, or a disk
that fills up, leaves every earlier row readable. All JSON is strict; NaN and infinities, which JSON lacks, become null.
"""

from __future__ import annotations

import dataclasses
import errno
import importlib.metadata
import io
import json
import math
import os
import platform
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import gymnasium
import numpy as np

from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.statistics import COLUMNS

FORMAT_VERSION = 1
"""Version of the layout of a run folder, written to ``config.json``."""

CONFIG_FILE = "config.json"
TRAJECTORY_FILE = "trajectory.jsonl"
SAMPLES_FILE = "samples.jsonl"
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
_GROUP_COLUMN = re.compile(r"exposure/reveal_ratio_(\d+)")


class RunWriter:
    """Writes the files of one run.

    Args:
        folder: Folder of the run, such as ``runs/beta-seed-0``; made with its parents where missing.
        description: What goes to ``config.json``: ``env_id``, ``agent``, ``seed``, ``config`` (an EnvConfig, or a
            mapping of all its fields), and anything else that JSON can hold. ``format_version``, ``run`` (the folder's
            name) and ``versions`` are added.
        overwrite: Delete an earlier run's ``RUN_FILES`` first. Other files in the folder are never touched.

    Attributes:
        folder: Folder of the run.
        num_rows: Rows written so far.

    Raises:
        ConfigError: If ``description`` lacks a key or holds something that JSON cannot.
        RunFilesError: If the folder already holds a run (and ``overwrite`` is False) or cannot be written.
    """

    def __init__(
        self, folder: str | os.PathLike[str], description: Mapping[str, Any], *, overwrite: bool = False
    ) -> None:
        self.folder = Path(folder)
        self.num_rows = 0
        config = _config_content(self.folder, description)
        _prepare_folder(self.folder, overwrite=overwrite)
        # The trajectory is made first, and exclusively: of two processes that start the same run, one is refused before
        # it can replace the other's config.json.
        self._trajectory = _LineFile(self.folder / TRAJECTORY_FILE)
        try:
            _write_atomically(self.folder / CONFIG_FILE, config)
            self._samples = _LineFile(self.folder / SAMPLES_FILE)
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class RecordTrajectory(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Writes a row after each window of the first episode, and sample rollouts beside it.

    A row holds the window's columns (``COLUMNS`` and group columns, from ``info``), the environment's ``timings``, the
    agent's numbers as ``agent/<name>``, ``status`` ("running", "truncated" or "terminated") and ``reason`` (null unless
    terminated).

    A folder holds one run, so only the first episode is recorded. What comes after it (agents reset by themselves
    after the last window, and some step on) is passed through and not written: see ``finished``. A reset in the middle
    of the episode ends the recording too; its last row then still says "running".

    Args:
        env: An environment of this package, wrapped or not.
        writer: Where the rows go; closed together with the environment.
        extra: Called once after each recorded window; its numbers become ``agent/<name>``.
        num_samples: Sample rollouts to keep of each window, where the environment has ``samples(n)``.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        writer: RunWriter,
        extra: Callable[[], dict[str, float]] | None = None,
        num_samples: int = 1,
    ) -> None:
        super().__init__(env)
        self.writer = writer
        self._extra = extra
        self._num_samples = num_samples
        self._finished = False

    @property
    def finished(self) -> bool:
        """Whether the recorded episode is over; nothing is written any more."""
        return self._finished

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the environment; once a row is written, this ends the recording."""
        self._finished = self._finished or self.writer.num_rows > 0
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Makes a window, then writes its row and samples if the first episode is still running.

        Raises:
            ConfigError: If ``info`` carries no row.
            RunFilesError: If they cannot be written; the window itself has been made.
        """
        observation, reward, terminated, truncated, info = super().step(action)
        if not self._finished:
            self._finished = terminated or truncated
            self._record(info, "terminated" if terminated else "truncated" if truncated else "running")
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """Closes the environment and the run's files."""
        try:
            super().close()
        finally:
            self.writer.close()

    def _record(self, info: Mapping[str, Any], status: str) -> None:
        if "window" not in info:
            raise ConfigError(
                f"info: expected a window's row (a key 'window'), got the keys {sorted(info)}; wrap an environment of "
                "atesd_env, or pass its row through the wrappers in between."
            )
        extra = self._extra() if self._extra is not None else {}
        self.writer.write_row(
            {
                **_row_columns(info),
                **getattr(self.env.unwrapped, "timings", {}),
                **{f"agent/{name}": value for name, value in extra.items()},
                "status": status,
                "reason": info.get("termination_reason"),
            }
        )
        if self._num_samples > 0 and hasattr(self.env.unwrapped, "samples"):
            for sample in self.env.unwrapped.samples(self._num_samples)[: self._num_samples]:
                self.writer.write_sample({"window": info["window"], **sample})


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Returns the rows of a file of JSON lines, in order.

    An unfinished last line, as a killed run may leave it, is dropped.

    Args:
        path: ``trajectory.jsonl`` or ``samples.jsonl`` of a run.

    Raises:
        RunFilesError: If the file cannot be read, or a line before the last is not a JSON object.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise _failure(path, "a readable file", error) from error
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


class _LineFile:
    """A new file that grows by whole lines only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = 0
        try:
            # Unbuffered: a line is with the operating system as soon as it is written, and survives a killed process.
            self._file: io.FileIO = open(path, "xb", buffering=0)  # noqa: SIM115 (open for the length of the run)
        except OSError as error:
            raise _failure(path, "to make this file", error) from error

    def append(self, content: Mapping[str, Any]) -> None:
        line = (json.dumps(_plain(content), allow_nan=False) + "\n").encode()
        if self._file.closed:
            raise RunFilesError(f"{self._path}: expected an open file, got a closed one; write before close().")
        rest = memoryview(line)
        try:
            # One call writes everything, unless the disk is about to fill up: then the next call says why.
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise _failure(self._path, "to append a line", error, self._drop_half_line()) from error
        self._size += len(line)

    def _drop_half_line(self) -> str:
        try:
            self._file.truncate(self._size)
            self._file.seek(self._size)
        except OSError:
            return " Earlier lines are intact; the last one may be cut, which every reader of ours allows for."
        return " Earlier lines are intact."

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            raise _failure(self._path, "to close the file", error) from error


def _config_content(folder: Path, description: Mapping[str, Any]) -> bytes:
    missing = [key for key in _REQUIRED_KEYS if key not in description]
    if missing:
        raise ConfigError(
            f"description: expected the keys {', '.join(_REQUIRED_KEYS)}, got none of {', '.join(missing)}; add them."
        )
    config = description["config"]
    is_dataclass = dataclasses.is_dataclass(config) and not isinstance(config, type)
    content = {
        **description,
        "format_version": FORMAT_VERSION,
        "run": folder.resolve().name,
        "config": dataclasses.asdict(config) if is_dataclass else config,
        "versions": {**package_versions(), **description.get("versions", {})},
    }
    first = ("format_version", "run", *_REQUIRED_KEYS)
    ordered = {key: content[key] for key in (*first, *(key for key in content if key not in first))}
    return (json.dumps(_plain(ordered), indent=2, allow_nan=False) + "\n").encode()


def _prepare_folder(folder: Path, *, overwrite: bool) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        present = [name for name in RUN_FILES if (folder / name).exists()]
    except OSError as error:
        raise _failure(folder, "a folder to write to", error) from error
    if present and not overwrite:
        raise RunFilesError(
            f"{folder}: expected a folder without a run, got one with {', '.join(present)}; choose another folder "
            "(--out), or allow the old run's files to be deleted (overwrite)."
        )
    _delete(folder, present)


def _delete(folder: Path, names: tuple[str, ...] | list[str]) -> None:
    for name in names:
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise _failure(folder / name, "to delete the old run's file", error) from error


def _write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that it is either there and whole, or not there."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _failure(path, "to write this file", error) from error


def _failure(path: Path, expected: str, error: OSError, consequence: str = "") -> RunFilesError:
    full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    advice = "free some space" if full else "check the path and its permissions"
    return RunFilesError(
        f"{path}: expected {expected}, got '{error.strerror or error}'; {advice}, or choose another folder "
        f"(--out).{consequence}"
    )


def _row_columns(info: Mapping[str, Any]) -> dict[str, Any]:
    names = [column.name for column in COLUMNS if column.name in info]
    groups = [name for name in info if _GROUP_COLUMN.fullmatch(name)]
    return {name: info[name] for name in (*names, *groups)}


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
