"""The one safe reader: regular files only, lines and JSON of bounded size and depth, and our error with the file's name.

Whoever sends a file may have made it to hang a reader, to fill its memory or to end it in a traceback. ``analysis``, which
imports nothing of ours, has a copy of the plain functions (``analysis/reading.py``); a test holds the two equal.
"""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from safetensors import SafetensorError

from atesd_env.errors import AtesdError, RunFilesError

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
_TYPES: dict[str, Any] = {
    "None": type(None),
    "bool": bool,
    "dict": dict,
    "float": int | float,
    "int": int,
    "list": list,
    "Sequence": list | tuple,
    "str": str,
    "tuple": tuple,
}
_PARSE_ERRORS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,  # a RecursionError too, and what torch says of shapes
    SafetensorError,
    TypeError,
    ValueError,
)


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


@contextmanager
def reading(
    source: object,
    expected: str,
    kind: type[AtesdError] = RunFilesError,
    *,
    remedy: str = "take another copy of it",
    names_it: bool = True,
) -> Iterator[None]:
    """Turns what is raised while a file is read and its content is taken over into one error of ours, which names the file.

    Args:
        source: The file, or what messages call it.
        expected: What it should be.
        kind: What to raise.
        remedy: What to do.
        names_it: Put the file's name before the message of what is raised on purpose inside, where it lacks it.

    Raises:
        AtesdError: ``kind``; or one that was raised on purpose inside.
    """
    try:
        yield
    except AtesdError as error:
        if not names_it or str(source) in str(error):
            raise
        raise type(error)(f"{source}: {error}") from error
    except OSError as error:
        raise kind(f"{source}: expected {expected}, got '{cause_of(error)}'; check the path.") from error
    except _PARSE_ERRORS as error:
        raise kind(f"{source}: expected {expected}, got {cause_of(error)}; {remedy}.") from error


def check_fields(value: Any) -> None:
    """Refuses a dataclass that was made of a file's JSON if a field holds another type than it says.

    Raises:
        TypeError: If a number, a text, a list or a mapping stands where another is expected; other types are not looked at.
    """
    for field in dataclasses.fields(value):
        kinds = [_TYPES.get(name.partition("[")[0]) for name in str(field.type).split(" | ")]
        held = getattr(value, field.name)
        is_right = any(isinstance(held, kind) for kind in kinds if kind is not None)
        if None not in kinds and (not is_right or (isinstance(held, bool) and bool not in kinds)):
            raise TypeError(f"{held!r:.40} as {field.name}")


def cause_of(error: BaseException) -> str:
    """Returns what a parser, or the operating system, found, for a message.

    >>> cause_of(KeyError("rng")), cause_of(TypeError("unhashable type: 'list'"))
    ("no entry 'rng'", "something else (unhashable type: 'list')")
    """
    if isinstance(error, OSError):
        return str(error.strerror or error)
    if isinstance(error, KeyError):
        return f"no entry {str(error)[:120]}"
    text = " ".join(str(error).split())[:200].rstrip(".")
    return f"something else ({text or type(error).__name__})"
