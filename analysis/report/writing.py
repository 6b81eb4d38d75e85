"""A report's file: whole or as it was, never through a link, and in the place of no file but an older report."""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from analysis.errors import AnalysisError

MARK = b'<meta name="generator" content="atesd-env">'
"""Stands in the head of every report, and says that it is one."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_page(path: Path, content: bytes) -> None:
    """Writes a report.

    Args:
        path: The file; its folder is made where it is missing.
        content: The report, with ``MARK``.

    Raises:
        AnalysisError: If something else than a report is there (another file, a link), or it cannot be written; what was
            there stays as it was.
    """
    temporary = None
    try:
        if os.path.lexists(path) and not _is_report(path):
            raise AnalysisError(
                f"{path}: expected nothing there, or an older report, got something else; move it away, or choose another file."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".partial", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.umask(mask := os.umask(0))  # it can be asked for only by setting it
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)  # whoever reads the old report must not see half of the new one
        temporary = None
    except OSError as error:
        advice = "free some space, or choose another file" if error.errno in _FULL else "choose another file"
        raise AnalysisError(f"{path}: expected to write the report there, got '{error}'; {advice}.") from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)


def _is_report(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return MARK in file.read(1024)
