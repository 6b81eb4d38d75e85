r"""Where rows come from: a JSONL or Parquet file, or a data set of the Hugging Face hub by its id.

Rows are read one after the other; a file is never in memory as a whole. The fields of the hub's data sets that are known here
are given our names (problem, solution, answer); any other data set must have them already.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atesd_env.errors import DataError

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FILE_SUFFIXES = (".jsonl", ".json", ".parquet")
_BATCH_ROWS = 256


def _gsm8k(row: Mapping[str, Any]) -> dict[str, Any]:
    """GSM8K keeps the answer in the solution's last line: ``#### 72``."""
    solution, _, answer = str(row["answer"]).rpartition("####")
    return {"problem": row["question"], "solution": solution.rstrip(), "answer": answer.strip()}


@dataclass(frozen=True)
class HubDataSet:
    """A data set of the hub, and how its rows become ours.

    Attributes:
        id: Its id.
        split: The split that is read.
        config: Its configuration, or None for the only one.
        names: Our field -> theirs, where they differ and it is there.
        convert: Makes a row where renaming is not enough.
    """

    id: str
    split: str = "train"
    config: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    convert: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None

    def row(self, theirs: Mapping[str, Any]) -> dict[str, Any]:
        """Returns one of their rows with our fields.

        Raises:
            DataError: If a field is missing, as when the data set has changed.
        """
        try:
            if self.convert is not None:
                return self.convert(theirs)
            return {**theirs, **{ours: theirs[name] for ours, name in self.names.items() if name in theirs}}
        except KeyError as error:
            raise DataError(
                f"{self.id}: expected the field {error}, got {sorted(theirs)}; save the data set as JSONL with problem, "
                "solution and answer, and pass the file."
            ) from error


HUB_DATA_SETS = {
    known.id: known
    for known in (
        # Its "Answer" may be empty; the solution's last box stands in then.
        HubDataSet("siyanzhao/Openthoughts_math_30k_opsd", names={"answer": "Answer"}),
        HubDataSet("HuggingFaceH4/aime_2024"),
        HubDataSet("yentinglin/aime_2025"),
        HubDataSet("MathArena/hmmt_feb_2025", names={"id": "problem_idx"}),
        HubDataSet("HuggingFaceH4/MATH-500", split="test", names={"id": "unique_id"}),
        HubDataSet("openai/gsm8k", split="test", config="main", convert=_gsm8k),
    )
}
"""Data sets whose split and fields are known."""


def is_hub_id(source: str | Path) -> bool:
    """Returns whether a source names a data set of the hub: "owner/name" that is no file here.

    >>> is_hub_id("HuggingFaceH4/aime_2024"), is_hub_id("data/mine.jsonl")
    (True, False)
    """
    text = str(source)
    return _HUB_ID.fullmatch(text) is not None and not text.lower().endswith(_FILE_SUFFIXES) and not Path(text).exists()


def raw_rows(source: str | Path) -> Iterator[tuple[int, Any]]:
    """Yields (line, fields) of each row: lines of a file, or row numbers from 1. Fields are not checked.

    Args:
        source: Path of a JSONL or Parquet file, or a hub id.

    Raises:
        DataError: If it cannot be read, a line is no JSON, or a library that it needs is not installed.
    """
    if is_hub_id(source):
        return _hub_rows(HUB_DATA_SETS.get(str(source), HubDataSet(str(source))))
    path = Path(source)
    return _parquet_rows(path) if path.suffix.lower() == ".parquet" else _jsonl_rows(path)


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise _unreadable(path, "JSONL", error) from error
    with file:
        try:
            # Lines of bytes end at "\n" alone; str.splitlines also cuts at characters that may stand inside a JSON string.
            for line, raw in enumerate(file, start=1):
                content = raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw
                if content.strip():
                    yield line, parse_json_line(path, line, content.removesuffix(b"\n"))
        except OSError as error:
            raise _unreadable(path, "JSONL", error) from error


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


def _parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise _missing("pyarrow", f"{path}", "save it as JSONL") from error
    line = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for fields in batch.to_pylist():
                    line += 1
                    yield line, fields
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable(path, "Parquet", error) from error


def _hub_rows(data_set: HubDataSet) -> Iterator[tuple[int, Any]]:
    try:
        import datasets
    except ImportError as error:
        raise _missing("datasets", data_set.id, "pass a local JSONL or Parquet file") from error
    try:
        loaded = datasets.load_dataset(data_set.id, data_set.config, split=data_set.split)
    except Exception as error:  # the library raises many kinds, and those of its HTTP client
        raise DataError(
            f"{data_set.id}: expected to load this data set of the hub (split {data_set.split!r}), got "
            f"{type(error).__name__}: {str(error)[:200]}; check the id and the connection, or pass a local JSONL or Parquet file."
        ) from error
    for line, theirs in enumerate(loaded, start=1):
        yield line, data_set.row(theirs)


def _unreadable(path: Path, kind: str, error: Exception) -> DataError:
    reason = (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__}: {str(error)[:120]}"
    return DataError(f"{path}: expected a readable {kind} file, got {reason}; check the path.")


def _missing(package: str, source: str, instead: str) -> DataError:
    return DataError(
        f"{source}: expected the package {package!r}, which reads it, got none; install it (pip install "
        f"'atesd-env[data]'), or {instead}."
    )
