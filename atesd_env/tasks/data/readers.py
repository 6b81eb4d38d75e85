r"""Row after row through a source, and any row again by its place: JSONL by byte offset, Parquet and the hub by row number.

A reader holds no file open and no rows, but the last row group of a Parquet file; so it survives a fork, and a source may be larger
than memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from atesd_env.errors import DataError

if TYPE_CHECKING:
    from atesd_env.tasks.data.sources import HubDataSet

_BATCH_ROWS = 256
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_FIELDS = ("problem", "solution", "answer", "Answer", "id", "level")


class Reader(Protocol):
    """A source of rows."""

    def scan(self) -> Iterator[tuple[int, int, Any]]:
        """Yields (place, line, fields) of each row: where it can be read again, its number from 1, what it holds."""
        ...

    def read(self, place: int, line: int) -> Any:
        """Returns the fields of one row."""
        ...


class JsonlReader:
    """Lines of JSON; a place is the byte that a line begins at."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def scan(self) -> Iterator[tuple[int, int, Any]]:
        place = 0
        try:
            with self.path.open("rb") as file:
                # Lines of bytes end at "\n" alone; str.splitlines also cuts at characters that may stand inside a string.
                for line, raw in enumerate(file, start=1):
                    if raw.removeprefix(_BYTE_ORDER_MARK if line == 1 else b"").strip():
                        yield place, line, self._parsed(line, raw)
                    place += len(raw)
        except OSError as error:
            raise unreadable(self.path, "JSONL", error) from error

    def read(self, place: int, line: int) -> Any:
        try:
            with self.path.open("rb") as file:
                file.seek(place)
                return self._parsed(line, file.readline())
        except OSError as error:
            raise unreadable(self.path, "JSONL", error) from error

    def _parsed(self, line: int, raw: bytes) -> Any:
        content = raw.removeprefix(_BYTE_ORDER_MARK) if line == 1 else raw
        return parse_json_line(self.path, line, content.removesuffix(b"\n"))


class ParquetReader:
    """Rows of a Parquet file; a place is a row's number from 0. One row group is in memory at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last: tuple[int, Any] = (-1, None)

    def scan(self) -> Iterator[tuple[int, int, Any]]:
        pyarrow, parquet = self._libraries()
        place = 0
        try:
            with parquet.ParquetFile(self.path) as file:
                for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                    for fields in batch.to_pylist():
                        yield place, place + 1, fields
                        place += 1
        except (OSError, pyarrow.ArrowException) as error:
            raise unreadable(self.path, "Parquet", error) from error

    def read(self, place: int, line: int) -> Any:
        pyarrow, parquet = self._libraries()
        try:
            with parquet.ParquetFile(self.path) as file:
                group, first = 0, 0
                while place >= first + file.metadata.row_group(group).num_rows:
                    first += file.metadata.row_group(group).num_rows
                    group += 1
            if self._last[0] != group:
                self._last = (group, self._read_group(group))
            return self._last[1].slice(place - first, 1).to_pylist()[0]
        except (OSError, pyarrow.ArrowException) as error:
            raise unreadable(self.path, "Parquet", error) from error

    def _read_group(self, group: int) -> Any:
        _, parquet = self._libraries()
        with parquet.ParquetFile(self.path) as file:
            return file.read_row_group(group, columns=[name for name in file.schema_arrow.names if name in _FIELDS])

    def _libraries(self) -> tuple[Any, Any]:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise _missing("pyarrow", f"{self.path}", "save it as JSONL") from error
        return pyarrow, parquet


class HubReader:
    """Rows of a data set of the hub, which its library maps from disk; a place is a row's number from 0."""

    def __init__(self, data_set: HubDataSet) -> None:
        self.data_set = data_set
        try:
            import datasets
        except ImportError as error:
            raise _missing("datasets", data_set.id, "pass a local JSONL or Parquet file") from error
        try:
            self._rows: Any = datasets.load_dataset(data_set.id, data_set.config, split=data_set.split)
        except Exception as error:  # the library raises many kinds, and those of its HTTP client
            raise DataError(
                f"{data_set.id}: expected to load this data set of the hub (split {data_set.split!r}), got "
                f"{type(error).__name__}: {str(error)[:200]}; check the id and the connection, or pass a local JSONL or Parquet "
                "file."
            ) from error

    def scan(self) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
        for place, theirs in enumerate(self._rows):
            yield place, place + 1, self.data_set.row(theirs)

    def read(self, place: int, line: int) -> Mapping[str, Any]:
        return self.data_set.row(self._rows[place])


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
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        shown = repr(text.strip())
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        raise DataError(
            f"{path}, line {line}: expected one JSON object a line, got {shown} ({error}); mend or remove the line."
        ) from error


def unreadable(path: Path, kind: str, error: Exception) -> DataError:
    """Returns what to raise about a file that cannot be read."""
    reason = (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__}: {str(error)[:120]}"
    return DataError(f"{path}: expected a readable {kind} file, got {reason}; check the path.")


def _missing(package: str, source: str, instead: str) -> DataError:
    return DataError(
        f"{source}: expected the package {package!r}, which reads it, got none; install it (pip install "
        f"'atesd-env[data]'), or {instead}."
    )
