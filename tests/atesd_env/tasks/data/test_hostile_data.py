"""Data of strangers: refused by file and line, or read; never a traceback, and nothing that hangs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from atesd_env.errors import DataError
from atesd_env.evaluation.benchmarks import read_benchmark
from atesd_env.tasks.data.rows import parse_row, read_rows

ROW = {"problem": "What is 1+1?", "solution": "It is 1+1=2.", "answer": "2"}
DEEP = "[" * 100_000 + "]" * 100_000


def lines(*texts: str | bytes) -> Callable[[Path], None]:
    content = b"".join((text.encode() if isinstance(text, str) else text) + b"\n" for text in texts)
    return lambda path: path.write_bytes(content) and None


def with_field(name: str, value: str) -> Callable[[Path], None]:
    """Writes a row in which a field has this JSON as value."""
    rest = json.dumps({**ROW, name: None}).replace("null", value)
    return lines(json.dumps(ROW | {"problem": "another"}), rest)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(50 * 2**30)


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a pipe": (os.mkfifo, r"odd\.jsonl: expected a readable JSONL file, got a named pipe"),
    "a device": (
        lambda path: path.symlink_to("/dev/zero"),
        r"odd\.jsonl: expected a readable JSONL file, got a device",
    ),
    "fifty GiB of zeros": (sparse, r"odd\.jsonl: .*in line 1"),
    "deep JSON": (lines(DEEP), r"line 1: .*nested deeper than 64"),
    "a deep field": (with_field("other", DEEP), r"line 2: .*nested deeper"),
    "a level of 400 digits": (with_field("level", "1" + "0" * 400), r"line 2: .*a whole number of 401 digits"),
    "a level without end": (with_field("level", "1e999"), r"line 2, field 'level': expected a number .*, got inf"),
    "an answer of 400 digits": (with_field("answer", "1" + "0" * 400), r"line 2: .*a whole number of 401 digits"),
    "an answer without end": (with_field("answer", "1e999"), r"line 2, field 'answer'"),
    "an id of 5000 digits": (with_field("id", "1" * 5000), r"line 2: .*a whole number of 5000 digits"),
    "half a pair of surrogates": (with_field("problem", '"\\ud800"'), r"field 'problem': expected valid Unicode"),
    "half a pair as id": (with_field("id", '"\\ud800"'), r"field 'id': expected"),
    "messages that are a text": (lines('{"messages": "hello"}'), r"line 1, field 'messages'"),
    "messages of numbers": (lines('{"messages": [1, null, [2]]}'), r"line 1, field 'messages'"),
    "a role that is a list": (lines('{"messages": [{"role": ["user"], "content": 1}]}'), r"line 1, field 'messages'"),
    "a line of Latin-1": (lines(b'{"problem": "\xe4"}'), r"line 1: expected UTF-8, got byte 0xe4"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("read", [read_rows, read_benchmark])
def test_odd_data_is_refused_by_file_and_line(kind: str, read: Callable[[str], Any], tmp_path: Path):
    write, message = REFUSED[kind]
    write(tmp_path / "odd.jsonl")
    if kind == "a level of 400 digits" or "level" not in kind or read is read_rows:
        with pytest.raises(DataError, match=message):
            read(str(tmp_path / "odd.jsonl"))
    else:
        read(str(tmp_path / "odd.jsonl"))  # a benchmark's levels are not looked at


COLUMNS: dict[str, Any] = {
    "bytes": [b"\xff\xfe", b"2"],
    "lists of bytes": [[b"\xff"], []],
    "mappings": [{"a": 1}, {"a": 2}],
    "numbers": [1.5, None],
    "truth values": [True, False],
}


@pytest.mark.parametrize("column", ["problem", "solution", "answer", "id", "level", "messages", "other"])
@pytest.mark.parametrize("kind", COLUMNS)
def test_binary_and_odd_columns_of_parquet(kind: str, column: str, tmp_path: Path):
    rows = {
        name: [f"{text} {number}" if name == "problem" else text for number in range(2)] for name, text in ROW.items()
    }
    table = pa.table({name: pa.array(values) for name, values in (rows | {column: COLUMNS[kind]}).items()})
    parquet.write_table(table, tmp_path / "odd.parquet")
    try:
        found, _ = read_rows(tmp_path / "odd.parquet")
    except DataError as error:
        message = str(error)
    else:
        message = ""
        assert len(found) == 2 or column == "answer"
    assert ("odd.parquet" in message and "expected" in message) or column in (
        "other",
        "messages",
        "answer",
        "level",
        "id",
    )


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.write_bytes(b"PAR1" * 9)]
)
def test_what_is_no_parquet_is_refused(make: Callable[[Path], Any], tmp_path: Path):
    make(tmp_path / "odd.parquet")
    with pytest.raises(DataError, match=r"odd\.parquet: expected a readable Parquet file"):
        read_rows(tmp_path / "odd.parquet")


def test_texts_of_parquet_that_are_no_utf8_are_refused(tmp_path: Path):
    texts = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe")]
    )
    table = pa.table({"problem": texts, "solution": ["It is 1+1=2."], "answer": ["2"]})
    parquet.write_table(table, tmp_path / "odd.parquet")
    with pytest.raises(DataError, match=r"odd\.parquet"):
        read_rows(tmp_path / "odd.parquet")


@pytest.mark.parametrize("field", ["level", "answer"])
@pytest.mark.parametrize("num_digits", [400, 5000])
def test_numbers_that_are_no_floats_are_refused_by_field(field: str, num_digits: int):
    with pytest.raises(DataError, match=f"field '{field}': expected"):
        parse_row("here.jsonl", 1, {**ROW, field: 10**num_digits})
