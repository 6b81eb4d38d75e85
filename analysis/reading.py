"""The one safe reader of this package: regular files only, lines and JSON of bounded size and depth.

This package imports nothing of ours, so it has its own copy of the plain functions of ``atesd_env/files/reading.py``; a test
holds the two equal.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import stat
from collections.abc import Iterator
from typing import Any, NoReturn

LONGEST_LINE = 16 * 2**20
"""Bytes of a line: a sample of 40,000 tokens with both prompts takes less than one of these MiB."""
LARGEST_JSON = 64 * 2**20
"""Bytes of a file that is one JSON value."""
DEEPEST_JSON = 64
"""Lists and mappings inside of each other; what we write has at most a dozen."""
MOST_DIGITS = 308
"""Digits of a whole number: a longer one is no float."""

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Opens a file for reading; a pipe, a device or a folder, which may have no end, is refused at once.

    Raises:
        OSError: If there is none, or it is no regular file.
    """
    # Without O_NONBLOCK, the opening itself waits for a pipe's other end.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        if kind == stat.S_IFDIR:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, f"{_KINDS.get(kind, 'something else')}, not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Returns the value of a file that is one JSON value.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is too large, or no JSON (``json_value``).
    """
    with open_regular(path) as file:
        content = file.read(LARGEST_JSON + 1)
    if len(content) > LARGEST_JSON:
        raise ValueError(f"more than {LARGEST_JSON:,} bytes")
    return json_value(content)


def lines_of(file: io.BufferedReader) -> Iterator[bytes]:
    r"""Yields the lines of a file, each with its "\n"; the last one may lack it.

    Raises:
        ValueError: If a line is too long.
    """
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise ValueError(f"more than {LONGEST_LINE:,} bytes in line {number}")
        yield line


def json_value(raw: bytes | str, *, strict: bool = True) -> Any:
    """Returns a value of JSON in UTF-8: not too deep, whole numbers not too long, and if ``strict`` no NaN and infinities.

    Raises:
        ValueError: If it is something else.
    """
    try:
        text = raw.decode("utf-8-sig") if isinstance(raw, bytes) else raw
        value = (_STRICT if strict else _USUAL).decode(text)
    except RecursionError as error:
        raise ValueError(f"lists or mappings nested deeper than {DEEPEST_JSON}") from error
    # Level by level: a call for each level would itself be too deep.
    level = [value]
    for _ in range(DEEPEST_JSON + 1):
        if strict and (math.inf in level or -math.inf in level):
            raise ValueError("a number too large for a float")
        nested = [item for item in level if isinstance(item, dict | list)]
        level = [part for item in nested for part in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return value
    raise ValueError(f"lists or mappings nested deeper than {DEEPEST_JSON}")


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text}, which JSON has not")


def _whole_number(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a whole number of {len(text)} digits")
    return int(text)


_USUAL = json.JSONDecoder(parse_int=_whole_number)
_STRICT = json.JSONDecoder(parse_int=_whole_number, parse_constant=_no_number)
