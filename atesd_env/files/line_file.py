"""A file of JSON lines that grows by whole lines only, and knows a digest of each, which a checkpoint can vouch for."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.files.atomic import failing, failure, is_own_file, opened, write_atomically
from atesd_env.files.reading import lines_of, reading

DIGEST_BYTES = 16
"""Bytes of a line's digest: the first ones of its SHA-256."""


class LineFile:
    """A file of JSON lines that grows by whole lines only.

    Args:
        path: The file.
        kept: None makes a new file; the beginning of an old one (whole lines) opens it, and cuts off what stands behind. An
            old file that has a second name (a hard link, as backups make them) becomes a file of its own first.

    Raises:
        RunFilesError: If it cannot be made or opened, or is no file of its own (a link).
    """

    def __init__(self, path: Path, kept: bytes | None = None) -> None:
        self._path = path
        self._size = len(kept or b"")
        self._digests = bytearray(line_digests(kept or b"").tobytes())
        is_new = kept is None
        is_own_file(path)
        with failing(path, "to make this file" if is_new else "to go on with this file"):
            if kept is not None and os.lstat(path).st_nlink > 1:
                write_atomically(path, kept)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL if is_new else os.O_RDWR
            # Unbuffered: a line is with the operating system as soon as it is written, and survives a killed process.
            self._file = io.FileIO(opened(path, flags), "r+" if kept is not None else "w")
            self._file.truncate(self._size)
            self._file.seek(self._size)

    @property
    def digests(self) -> NDArray[np.uint8]:
        """Of each line, [lines, DIGEST_BYTES]."""
        return np.frombuffer(bytes(self._digests), dtype=np.uint8).reshape(-1, DIGEST_BYTES)

    def append(self, content: Mapping[str, Any]) -> None:
        """Writes one line; NaN and infinities become null.

        Raises:
            ConfigError: If JSON cannot hold the content.
            RunFilesError: If it cannot be written; earlier lines stay whole.
        """
        line = (json.dumps(plain(content), allow_nan=False) + "\n").encode()
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
        self._digests += _digest(line[:-1])

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


def read_own(path: Path, expected: str) -> bytes:
    """Returns what is in a file that is to be gone on with.

    Raises:
        RunFilesError: If it cannot be read, or is no file of its own (a link, a pipe).
    """
    is_own_file(path)
    with reading(path, expected), os.fdopen(opened(path, os.O_RDONLY), "rb") as file:
        return b"".join(lines_of(file))


def whole_lines(content: bytes) -> list[bytes]:
    """Returns the lines that have their end, without it."""
    return content.split(b"\n")[:-1]


def line_digests(content: bytes) -> NDArray[np.uint8]:
    """Returns a digest of each line that has its end, [lines, DIGEST_BYTES]."""
    joined = b"".join(_digest(line) for line in whole_lines(content))
    return np.frombuffer(joined, dtype=np.uint8).reshape(-1, DIGEST_BYTES)


def vouched_lines(path: Path, content: bytes, digests: NDArray[np.uint8], what: str) -> bytes:
    """Returns the beginning of a file that a checkpoint vouches for.

    Args:
        path: The file, for messages.
        content: What is in it.
        digests: Of each line, as ``LineFile.digests`` told them, [lines, DIGEST_BYTES].
        what: What the lines are, for messages.

    Raises:
        RunFilesError: If lines are missing, or one is another than it was; the message names the first.
    """
    lines = whole_lines(content)
    for number, (line, digest) in enumerate(zip(lines, digests, strict=False), start=1):
        if _digest(line) != digest.tobytes():
            raise RunFilesError(
                f"{path}, line {number}: expected what the checkpoint vouches for, got {line[:60]!r}, which was changed or "
                "moved since; restore the file, or begin anew (--overwrite)."
            )
    if len(lines) < len(digests):
        raise RunFilesError(
            f"{path}, line {len(lines) + 1}: expected {what}, which the checkpoint vouches for, got {len(lines)} of them; "
            "restore the file, or begin anew (--overwrite)."
        )
    return b"".join(line + b"\n" for line in lines[: len(digests)])


def plain(value: Any) -> Any:
    """Returns the value as JSON types only: numpy scalars as numbers, tuples as lists, NaN and infinities as None.

    Raises:
        ConfigError: If it is something else, or a whole number that needs more than 64 bits, which no table could hold.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | float):
        return None if is_non_finite(value) else value
    if isinstance(value, int) and is_in_64_bits(value):
        return value
    shown = "a whole number beyond 64 bits" if isinstance(value, int) else f"{value!r} ({type(value).__name__})"
    raise ConfigError(f"run files: expected numbers, strings, lists and mappings, got {shown}; convert it first.")


def is_in_64_bits(value: int) -> bool:
    """Returns whether tables can hold a whole number."""
    return -(2**63) <= value < 2**63


def is_non_finite(value: Any) -> bool:
    """Returns whether a value is a number, but NaN or infinite."""
    return isinstance(value, float | np.floating) and not math.isfinite(value)


def _digest(line: bytes) -> bytes:
    return hashlib.sha256(line).digest()[:DIGEST_BYTES]
