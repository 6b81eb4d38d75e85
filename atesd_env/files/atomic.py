"""Files that a kill, a full disk or a second process cannot spoil: whole or absent, and one writer a folder.

Nothing is written through a link: what is to be written must be a file of its own, or not be there. The folder that a user
names may be a link; what lies in it may not.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from atesd_env.errors import RunFilesError

LOCK_FILE = ".lock"
"""File in a run folder whose lock the writing process holds; it stays there, empty."""
TEMPORARY = r"\.[0-9a-f]{16}\.atesd\.tmp"
"""Pattern of the names of what is not finished, which nobody can guess; a killed process may leave one."""

# A device or a pipe must not keep us waiting for what it is; systems without links in our sense lack the flags.
_AS_IT_IS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_KINDS = ((stat.S_ISREG, "a file"), (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"))


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that it is either there and whole, or as it was before, even after a power cut.

    Raises:
        RunFilesError: If it cannot be written, or something else than a file has its name (a link, a pipe, a folder).
    """
    is_own_file(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.atesd.tmp")
    try:
        with os.fdopen(opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            _try_to_lock(file.fileno(), waits=True)  # so that others see that somebody is at work on it
            if not os.fstat(file.fileno()).st_nlink:  # swept out before it was locked
                return write_atomically(path, content)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
        _sweep(path.parent)
        sync_folder(path.parent)
    except BaseException as error:
        # Ctrl-C too must not leave half a file behind.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise failure(path, "to write this file", error) from error
        raise


def opened(path: Path, flags: int) -> int:
    """Returns the descriptor of a file, never of what a link leads to.

    Raises:
        OSError: If it cannot be opened, or is no regular file.
    """
    descriptor = os.open(path, flags | _AS_IT_IS, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return descriptor


def is_own_file(path: Path) -> bool:
    """Returns whether there is a file; False where there is nothing.

    Raises:
        RunFilesError: If something else is there: a link, a folder, a pipe, a device.
    """
    return _is_own(path, stat.S_ISREG, "a file of its own")


def is_own_folder(path: Path) -> bool:
    """Returns whether there is a folder; False where there is nothing.

    Raises:
        RunFilesError: If something else is there: a link, a file.
    """
    return _is_own(path, stat.S_ISDIR, "a folder of its own")


def make_own_folder(path: Path) -> None:
    """Makes a folder inside a folder of ours, where it is missing.

    Raises:
        RunFilesError: If it cannot be made, or something else has its name (a link, a file).
    """
    if not is_own_folder(path):
        with failing(path, "a folder to write to"):
            path.mkdir(parents=True, exist_ok=True)


def make_parent(path: Path) -> None:
    """Makes the folder of a file that a user named, with its parents, where it is missing.

    Raises:
        RunFilesError: If it cannot be made.
    """
    with failing(path.parent, "a folder to write to"):
        path.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Lets another library fill a folder that gets its name when it is whole; a failure leaves nothing behind.

    Args:
        path: The folder; nothing is there, or an empty folder.

    Raises:
        RunFilesError: If something is there, or it cannot be written.
    """
    check_writable(path)
    if is_own_folder(path) and os.listdir(path):
        raise RunFilesError(
            f"{path}: expected a new folder, got one with files; move it away, or choose another (--out)."
        )
    make_parent(path)
    with (
        failing(path, "to write this folder"),
        tempfile.TemporaryDirectory(dir=path.parent, prefix=".atesd-") as beside,
    ):
        inner = Path(beside) / path.name
        try:
            yield inner
        except Exception as error:
            if _is_full(error):  # a library's own exception, which has the system's words
                raise OSError(errno.ENOSPC, str(error)) from error
            raise
        inner.replace(path)
        sync_folder(path.parent)


def _is_own(path: Path, is_kind: Callable[[int], bool], expected: str) -> bool:
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise failure(path, expected, error) from error
    if is_kind(mode):
        return True
    found = next((name for check, name in _KINDS if check(mode)), "a device or a socket")
    if stat.S_ISLNK(mode):
        found = f"a link to {os.readlink(path)!r}"
    raise RunFilesError(
        f"{path}: expected {expected}, or nothing, got {found}; move it away, or choose another folder (--out): nothing is "
        "written, cut or deleted through it."
    )


def check_writable(path: Path) -> None:
    """Refuses what could not be written, before the work whose result it is to hold.

    Args:
        path: A file or a folder, there or not.

    Raises:
        RunFilesError: If its folder can neither be written to nor be made, or a name is too long.
    """
    with failing(path, "a path that can be written"):
        path = path.absolute()
        existing = next(parent for parent in (path, *path.parents) if os.path.lexists(parent))
        for name in path.relative_to(existing).parts:
            with suppress(FileNotFoundError):
                (existing / name).lstat()  # raises where a name is too long, or below a file
        folder = existing if existing.is_dir() else existing.parent
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"{folder} is not writable")


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

    The operating system gives the lock back when the process ends, however it ends. What a killed process left half
    written is swept out.

    Raises:
        RunFilesError: If another process holds the folder, or it cannot be written.
    """
    is_own_file(folder / LOCK_FILE)
    with failing(folder, "a folder to write to"):
        folder.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(opened(folder / LOCK_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab")
    with file:
        if _try_to_lock(file.fileno()) is False:
            raise RunFilesError(
                f"{folder}: expected a folder that no other process writes to, but one is running this run; wait for it or "
                "stop it, or choose another folder (--out)."
            )
        _sweep(folder, with_inner=True)
        yield


def _sweep(folder: Path, *, with_inner: bool = False) -> None:
    """Deletes what killed writers left in a folder, and in those in it: what nobody has locked, as others may be at work there."""
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            if with_inner and entry.is_dir(follow_symlinks=False):
                _sweep(Path(entry))
            elif re.fullmatch(TEMPORARY, entry.name) and entry.is_file(follow_symlinks=False):
                with os.fdopen(opened(Path(entry), os.O_RDWR), "rb") as file:
                    if _try_to_lock(file.fileno()):
                        os.unlink(entry)


def _try_to_lock(descriptor: int, *, waits: bool = False) -> bool | None:
    """Locks an open file until it is closed; False where another process has it, None where the system has no such locks."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # OSError: a file system without locks, such as some network shares
        return None
    return True


@contextmanager
def failing(path: Path, expected: str) -> Iterator[None]:
    """Raises ``failure`` for what the operating system refuses in here; what is a ``RunFilesError`` already passes."""
    try:
        yield
    except RunFilesError:
        raise
    except OSError as error:
        raise failure(path, expected, error) from error
    except UnicodeEncodeError as error:
        raise failure(path, expected, OSError(errno.EILSEQ, "a name that no file can have")) from error


def failure(path: Path, expected: str, error: OSError, consequence: str = "") -> RunFilesError:
    """Returns the error to raise for a failed operation on a path: what was expected, what came, what to do."""
    advice = "free some space" if _is_full(error) else "check the path and its permissions"
    return RunFilesError(
        f"{path}: expected {expected}, got '{error.strerror or error}'; {advice}, or choose another folder "
        f"(--out).{consequence}"
    )


def _is_full(error: Exception) -> bool:
    """Returns whether there is no space; HDF5 and safetensors say so in words only."""
    in_words = any(words in str(error) for words in ("No space left on device", "quota exceeded"))
    return in_words or getattr(error, "errno", None) in _FULL
