"""Files that a kill, a full disk or a second process cannot spoil: whole or absent, and one writer a folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from atesd_env.errors import RunFilesError

LOCK_FILE = ".lock"
"""File in a run folder whose lock the writing process holds; it stays there, empty."""


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that it is either there and whole, or as it was before, even after a power cut.

    Raises:
        RunFilesError: If it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        # Ctrl-C too must not leave half a file behind.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise failure(path, "to write this file", error) from error
        raise


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder (what was made, renamed, deleted) survive a power cut, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keeps other processes that ask for the same folder out; makes the folder where it is missing.

    The operating system gives the lock back when the process ends, however it ends.

    Raises:
        RunFilesError: If another process holds the folder, or it cannot be written.
    """
    with failing(folder, "a folder to write to"):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK_FILE).open("ab")
    with file:
        _lock(file.fileno(), folder)
        yield


def _lock(descriptor: int, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # a system without such locks
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunFilesError(
            f"{folder}: expected a folder that no other process writes to, but one is running this run; wait for it or "
            "stop it, or choose another folder (--out)."
        ) from error
    except OSError:  # a file system without locks, such as some network shares
        return


@contextmanager
def failing(path: Path, expected: str) -> Iterator[None]:
    """Raises ``failure`` for what the operating system refuses in here; what is a ``RunFilesError`` already passes."""
    try:
        yield
    except RunFilesError:
        raise
    except OSError as error:
        raise failure(path, expected, error) from error


def failure(path: Path, expected: str, error: OSError, consequence: str = "") -> RunFilesError:
    """Returns the error to raise for a failed operation on a path: what was expected, what came, what to do."""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    advice = "free some space" if full else "check the path and its permissions"
    return RunFilesError(
        f"{path}: expected {expected}, got '{error.strerror or error}'; {advice}, or choose another folder "
        f"(--out).{consequence}"
    )
