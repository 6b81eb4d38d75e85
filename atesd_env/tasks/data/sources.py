r"""Where rows come from: a JSONL or Parquet file, or a data set of the Hugging Face hub by its id.

Rows are read one after the other; a file is never in memory as a whole, and a data set of the hub is mapped from disk by its
library (`datasets`). The fields of the hub's data sets that are known here are given our names (problem, solution, answer); any
other data set must have them already.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atesd_env.errors import DataError
from atesd_env.tasks.data.readers import jsonl_rows, missing_package, parquet_rows

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


def is_parquet(source: str | Path) -> bool:
    """Returns whether a source is a Parquet file, by the end of its name."""
    return Path(source).suffix.lower() == ".parquet"


def raw_rows(source: str | Path) -> Iterator[tuple[int, Any]]:
    """Yields (line, fields) of each row: lines of a file, or row numbers from 1. Fields are not checked.

    Args:
        source: Path of a JSONL or Parquet file, or a hub id.

    Raises:
        DataError: If it cannot be read or loaded, a line is no JSON, or a library that it needs is not installed.
    """
    if is_hub_id(source):
        data_set = HUB_DATA_SETS.get(str(source), HubDataSet(str(source)))
        yield from ((line, data_set.row(theirs)) for line, theirs in enumerate(_loaded(data_set), start=1))
    elif is_parquet(source):
        yield from parquet_rows(Path(source))
    else:
        yield from jsonl_rows(Path(source))


def _loaded(data_set: HubDataSet) -> Iterable[Mapping[str, Any]]:
    """Returns the rows of a data set of the hub, mapped from disk by its library."""
    try:
        import datasets
    except ImportError as error:
        raise missing_package("datasets", data_set.id, "pass a local JSONL or Parquet file") from error
    try:
        rows: Iterable[Mapping[str, Any]] = datasets.load_dataset(data_set.id, data_set.config, split=data_set.split)
    except Exception as error:  # the library raises many kinds, and those of its HTTP client
        raise DataError(
            f"{data_set.id}: expected to load this data set of the hub (split {data_set.split!r}), got "
            f"{type(error).__name__}: {str(error)[:200]}; check the id and the connection, or pass a local JSONL or Parquet "
            "file."
        ) from error
    return rows
