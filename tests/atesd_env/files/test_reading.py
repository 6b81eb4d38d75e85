"""The one safe reader, and its copy in analysis: what hangs, fills memory or ends in a traceback elsewhere is refused here."""

from __future__ import annotations

import inspect
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import analysis.reading
import atesd_env.files.reading
from atesd_env.errors import ConfigError, DataError, RunFilesError
from atesd_env.files.reading import LONGEST_LINE, check_fields, json_value, lines_of, open_regular, read_json, reading
from atesd_env.files.run_folder import read_rows

BOTH = [atesd_env.files.reading, analysis.reading]
SHARED = ("open_regular", "read_json", "lines_of", "json_value", "_no_number", "_whole_number")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(path))


NO_FILES: dict[str, Callable[[Path], object]] = {
    "a named pipe": fifo,
    "a device without an end": lambda path: path.symlink_to("/dev/zero"),
    "a folder": lambda path: path.mkdir(),
    "a socket": listening,
    "a link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("module", BOTH)
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_regular_file_is_refused_at_once(
    module: ModuleType, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)  # a socket's path may not be long
    NO_FILES[kind](tmp_path / "file")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match=r"\w"):
        module.open_regular(tmp_path / "file")
    assert len(os.listdir("/proc/self/fd")) == len(before), "no descriptor stays open"


DEEP = 100_000
NO_JSON = {
    "cut": b'{"a": 1',
    "nothing": b"",
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep mappings": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "a little too deep": b"[" * 66 + b"]" * 66,
    "NaN": b'{"a": NaN}',
    "infinity": b"[-Infinity]",
    "a number that is infinite as a float": b'{"a": [1e400]}',
    "one below zero": b"-1e400",
    "a long number": b"1" + b"0" * 308,
    "a very long number": b"1" * 10_000,
    "no UTF-8": b'"\xff"',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("module", BOTH)
@pytest.mark.parametrize("kind", NO_JSON)
def test_what_is_no_strict_json_is_a_value_error(module: ModuleType, kind: str):
    with pytest.raises(ValueError, match=r"\w"):
        module.json_value(NO_JSON[kind])


@pytest.mark.parametrize("module", BOTH)
def test_sound_json_is_read_to_the_last_digit(module: ModuleType):
    value = {"a": [1, 2.5, None, True, "\ud800", 2**127], "b": {"c": []}}
    assert module.json_value(json.dumps(value).encode()) == value
    assert module.json_value(b"\xef\xbb\xbf[1]") == [1], "an editor's mark of UTF-8 is none of the content"
    assert module.json_value(b"[" * 64 + b"]" * 64)
    assert module.json_value("9" * 308) == 10**308 - 1
    assert str(module.json_value("[NaN]", strict=False)) == "[nan]"


def test_the_two_readers_are_one():
    ours, theirs = BOTH
    for name in SHARED:
        assert inspect.getsource(getattr(ours, name)) == inspect.getsource(getattr(theirs, name)), name
    for name in ("LONGEST_LINE", "LARGEST_JSON", "DEEPEST_JSON", "MOST_DIGITS", "_KINDS"):
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize("module", BOTH)
def test_lines_are_bounded_and_whole(module: ModuleType, tmp_path: Path):
    path = tmp_path / "lines"
    path.write_bytes(b"one\n\ntwo\xe2\x80\xa8\nlast")
    with module.open_regular(path) as file:
        assert list(module.lines_of(file)) == [b"one\n", b"\n", b"two\xe2\x80\xa8\n", b"last"]
    with path.open("wb") as sparse:
        sparse.write(b"{}\n")
        sparse.truncate(10 * 2**30)  # ten GiB of zeros that take no place on the disk
    with module.open_regular(path) as file, pytest.raises(ValueError, match="in line 2"):
        list(module.lines_of(file))


@pytest.mark.parametrize("module", BOTH)
def test_a_large_file_of_one_value_is_refused_before_it_is_parsed(module: ModuleType, tmp_path: Path):
    with (tmp_path / "large.json").open("wb") as sparse:
        sparse.truncate(10 * 2**30)
    with pytest.raises(ValueError, match="more than"):
        module.read_json(tmp_path / "large.json")


@pytest.mark.parametrize(
    "raised",
    [
        *(KeyError("a"), IndexError("b"), TypeError("c"), ValueError("d"), AttributeError("e"), RecursionError("f")),
        *(
            OverflowError("g"),
            UnicodeDecodeError("utf-8", b"", 0, 1, "h"),
            RuntimeError("i"),
            EOFError("j"),
            OSError("k"),
        ),
    ],
)
def test_whatever_a_parser_raises_becomes_one_error_with_the_files_name(raised: Exception):
    with (
        pytest.raises(DataError, match=r"here\.bin: expected .*, got .*; ") as caught,
        reading("here.bin", "x", DataError),
    ):
        raise raised
    assert caught.value.__cause__ is raised


def test_what_is_raised_on_purpose_keeps_its_kind_and_gets_the_files_name_once():
    with pytest.raises(ConfigError, match=r"^here: wrong$"), reading("here", "something"), reading("here", "something"):
        raise ConfigError("wrong")
    with pytest.raises(ConfigError, match=r"^wrong$"), reading("here", "something", names_it=False):
        raise ConfigError("wrong")
    with pytest.raises(KeyboardInterrupt), reading("here", "something"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["a named pipe", "a device without an end"])
def test_rows_of_what_is_no_file_are_refused_by_name(kind: str, tmp_path: Path):
    NO_FILES[kind](tmp_path / "trajectory.jsonl")
    with pytest.raises(RunFilesError, match=r"trajectory\.jsonl: expected a readable file, got"):
        read_rows(tmp_path / "trajectory.jsonl")


def test_a_deep_line_is_named_by_file_and_line(tmp_path: Path):
    (tmp_path / "trajectory.jsonl").write_bytes(b'{"window": 1}\n' + NO_JSON["deep lists"] + b'\n{"window": 2}\n')
    with pytest.raises(RunFilesError, match=r"trajectory\.jsonl, line 2: .*nested deeper than 64"):
        read_rows(tmp_path / "trajectory.jsonl")


def test_fields_of_other_types_are_refused():
    import dataclasses

    @dataclasses.dataclass
    class Made:
        number: int
        share: float | None
        names: list[str]
        other: Path

    def made(**changes: Any) -> Made:
        return Made(**{"number": 1, "share": 0.5, "names": [], "other": None, **changes})

    for fine in ({}, {"share": None}, {"share": 1}, {"other": "is not looked at"}):
        check_fields(made(**fine))
    for field, value in (
        ("number", True),
        ("number", 1.0),
        ("number", None),
        ("share", "x"),
        ("share", False),
        ("names", {}),
    ):
        with pytest.raises(TypeError, match=f" as {field}"):
            check_fields(made(**{field: value}))


def test_a_line_as_long_as_allowed_is_read(tmp_path: Path):
    (tmp_path / "long").write_bytes(b"x" * (LONGEST_LINE - 1) + b"\n")
    with open_regular(tmp_path / "long") as file:
        assert [len(line) for line in lines_of(file)] == [LONGEST_LINE]


def test_json_of_a_file(tmp_path: Path):
    (tmp_path / "value.json").write_text('{"a": 1}\n')
    assert read_json(tmp_path / "value.json") == json_value('{"a": 1}') == {"a": 1}
