"""Row after row through a file: JSON lines, Parquet and CSV are never in memory as a whole, an array of JSON is."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atesd_env.errors import DataError
from atesd_env.files.reading import cause_of, json_value, lines_of, open_regular

_BATCH_ROWS = 256
# Of a file, enough to see what it begins with.
_BEGINNING = 256


def jsonl_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Yields (line, fields) of each line of JSON; blank lines count as lines.

    Raises:
        DataError: If the file cannot be read, or a line is no JSON in UTF-8.
    """
    try:
        with open_regular(path) as file:
            # Lines of bytes end at "\n" alone; str.splitlines also cuts at characters that may stand inside a string.
            for line, raw in enumerate(lines_of(file), start=1):
                content = raw.removeprefix(codecs.BOM_UTF8) if line == 1 else raw
                if content.strip():
                    yield line, parse_json_line(path, line, content.removesuffix(b"\n"))
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise unreadable(path, "JSONL", error) from error


def json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Yields (line or number, fields) of each row of a ``.json`` file: an array of rows, numbered from 1, or rows line by line.

    Raises:
        DataError: If the file cannot be read, or is neither.
    """
    if not _is_array(path):
        yield from jsonl_rows(path)
        return
    try:
        with open_regular(path) as file:
            rows = json_value(file.read().removeprefix(codecs.BOM_UTF8))
    except (OSError, ValueError) as error:
        raise unreadable(path, "JSON", error) from error
    yield from enumerate(rows, start=1)


def _is_array(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(_BEGINNING).removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"["
    except OSError as error:
        raise unreadable(path, "JSON", error) from error


def csv_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Yields (number from 1, fields) of each row of a CSV file whose first line names the columns.

    Raises:
        DataError: If the file cannot be read, is not UTF-8, or a row has more fields than there are columns.
    """
    try:
        with open_regular(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
            for number, fields in enumerate(csv.DictReader(text, strict=True), start=1):
                if None in fields:
                    raise ValueError(f"more fields than columns in row {number}")
                yield number, {name: value for name, value in fields.items() if value not in (None, "")}
    except (OSError, ValueError, csv.Error) as error:
        raise unreadable(path, "CSV", error) from error


def parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Yields (number from 1, fields) of each row of a Parquet file.

    Raises:
        DataError: If the file cannot be read, or pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise missing_package("pyarrow", f"{path}", "save it as JSONL") from error
    try:
        with open_regular(path) as content, parquet.ParquetFile(content) as file:
            batches = file.iter_batches(batch_size=_BATCH_ROWS)
            yield from enumerate((fields for batch in batches for fields in batch.to_pylist()), start=1)
    except (OSError, ValueError, OverflowError, pyarrow.ArrowException) as error:
        raise unreadable(path, "Parquet", error) from error


def parse_json_line(path: Path, line: int, raw: bytes) -> Any:
    """Returns the JSON value of one line.

    Raises:
        DataError: If it is not UTF-8 or not JSON.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {line}: expected UTF-8, got byte 0x{raw[error.start]:02x} at position {error.start}; "
            "save the file as UTF-8."
        ) from error
    try:
        return json_value(text, strict=False)
    except ValueError as error:
        shown = repr(text.strip()[:60])
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        raise DataError(
            f"{path}, line {line}: expected one JSON object a line, got {shown} ({error}); mend or remove the line."
        ) from error


def unreadable(path: Path, kind: str, error: Exception) -> DataError:
    """Returns what to raise about a file that cannot be read."""
    return DataError(f"{path}: expected a readable {kind} file, got {cause_of(error)}; check the path.")


def missing_package(package: str, source: str, instead: str) -> DataError:
    """Returns what to raise about a source whose library is not installed."""
    return DataError(
        f"{source}: expected the package {package!r}, which reads it, got none; install it (pip install "
        f"'atesd-env[data]'), or {instead}."
    )
