"""The one file that runs a model's program under CPython: inside of bubblewrap, as its second process, and nowhere else.

It is never run where it lies: `bubblewrap` hands its text to a Python that sees no file but /usr's. Requests come as lines of JSON,
``{"define": SOURCE}`` or ``{"call": NAME, "arguments": ..., "keywords": ...}``, and each gets a line back, ``{"value": ...}`` or
``{"error": KIND, "message": TEXT}``. Values are plain data; nothing is pickled.
"""

import itertools
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

MEMORY_BYTES = 512 * 2**20
"""Address space of the program."""
MAX_LINE_BYTES = 2**20
"""Longest line of a reply."""
_LONGEST_MESSAGE = 300
_LONGEST_ITERATOR = 1_000_000
_SEQUENCES = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


def packed(value: Any) -> Any:
    """Returns plain data as JSON can hold it: what JSON has no word for becomes a list whose first item is its kind.

    Raises:
        TypeError: If it is no plain data.

    >>> packed({"a": (1, 2.5)})
    ['dict', ['a', ['tuple', 1, 2.5]]]
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, bytes):
        return ["bytes", value.hex()]
    if isinstance(value, dict):
        return ["dict", *([packed(key), packed(item)] for key, item in value.items())]
    for name, kind in _SEQUENCES.items():
        if isinstance(value, kind):
            return [name, *map(packed, value)]
    if hasattr(value, "__iter__"):
        return ["list", *map(packed, itertools.islice(value, _LONGEST_ITERATOR))]
    raise TypeError(
        f"expected plain data as a result, got a {type(value).__name__}; return numbers, texts or collections."
    )


def unpacked(value: Any) -> Any:
    """Returns what ``packed`` was given.

    Raises:
        ValueError: If it is not of that form.

    >>> unpacked(packed({"a": (1, frozenset([2]))}))
    {'a': (1, frozenset({2}))}
    """
    if not isinstance(value, list):
        return value
    if not value or not isinstance(value[0], str):
        raise ValueError("expected a list that begins with its kind, got another one; see packed.")
    kind, *items = value
    if kind == "dict":
        return {unpacked(key): unpacked(item) for key, item in items}
    if kind == "complex":
        return complex(*items)
    if kind == "bytes":
        return bytes.fromhex(*items)
    return _SEQUENCES[kind](map(unpacked, items))


def main(limit_sec: int) -> None:
    """Answers requests until there are no more; refuses to where a guard is missing."""
    if os.getpid() > 2 or _can_fork():
        raise SystemExit(
            "expected to run inside of bubblewrap, got an ordinary process; nothing of a model's runs bare."
        )
    _limit(limit_sec)
    requests, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    nothing = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):  # what the program prints is thrown away
        os.dup2(nothing, standard)
    for line in _answered(requests):
        replies.write(line + "\n")
        replies.flush()


def _can_fork() -> bool:
    """Whether the filter of system calls is missing: the one guard against processes without end."""
    try:
        child = os.fork()
    except OSError:
        return False
    if child == 0:
        os._exit(0)
    return True


def _limit(limit_sec: int) -> None:
    import resource

    for name, limit in (
        ("AS", MEMORY_BYTES),
        ("CPU", limit_sec),
        ("FSIZE", MAX_LINE_BYTES),
        ("NOFILE", 32),
        ("CORE", 0),
    ):
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))


def _answered(requests: Any) -> Iterator[str]:
    namespace: dict[str, Any] = {"__name__": "program"}
    for line in requests:
        request = json.loads(line)
        value = None
        try:
            if "define" in request:
                exec(request["define"], namespace)
            else:
                arguments, keywords = unpacked(request["arguments"]), unpacked(request["keywords"])
                value = packed(namespace[request["call"]](*arguments, **keywords))
            yield json.dumps({"value": value})
        except BaseException as error:  # SystemExit too: to leave is not to pass
            yield json.dumps({"error": type(error).__name__, "message": str(error)[:_LONGEST_MESSAGE]})


if __name__ == "__main__":
    main(int(sys.argv[1]))
