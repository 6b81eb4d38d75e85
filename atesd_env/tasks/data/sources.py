r"""Where rows come from: a JSONL or Parquet file, or a data set of the Hugging Face hub by its id.

Rows are read one after the other; a file is never in memory as a whole. The fields of the hub's data sets that are known here
are given our names (problem, solution, answer); any other data set must have them already.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atesd_env.errors import DataError
from atesd_env.tasks.data.readers import HubReader, JsonlReader, ParquetReader, Reader

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FILE_SUFFIXES = (".jsonl", ".json", ".parquet")


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
        HubDataSet("siyanzhao/Openthoughts_math_30k_opsd"),
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


def open_source(source: str | Path) -> Reader:
    """Returns a reader of a source's rows.

    Args:
        source: Path of a JSONL or Parquet file, or a hub id.

    Raises:
        DataError: If it is the hub's and cannot be loaded; a file is looked at when it is read.
    """
    if is_hub_id(source):
        return HubReader(HUB_DATA_SETS.get(str(source), HubDataSet(str(source))))
    path = Path(source)
    return ParquetReader(path) if path.suffix.lower() == ".parquet" else JsonlReader(path)


def raw_rows(source: str | Path) -> Iterator[tuple[int, Any]]:
    """Yields (line, fields) of each row: lines of a file, or row numbers from 1. Fields are not checked.

    Args:
        source: Path of a JSONL or Parquet file, or a hub id.

    Raises:
        DataError: If it cannot be read, a line is no JSON, or a library that it needs is not installed.
    """
    for _, line, fields in open_source(source).scan():
        yield line, fields
