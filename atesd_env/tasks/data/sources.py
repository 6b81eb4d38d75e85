"""Where rows come from: a JSONL or Parquet file, a folder of such files, or a data set of the Hugging Face hub by its id.

Rows are read one after the other; a file is never in memory as a whole, and a folder or a data set of the hub is mapped from disk by
the library `datasets`. Of these two, split and configuration can be named: ``openai/gsm8k:train``, ``openai/gsm8k:main:train``.

To train on a data set and to measure on it are two uses with an entry each: ``openai/gsm8k`` is its split "train" for the one and
"test" for the other.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from atesd_env.errors import DataError
from atesd_env.tasks.data.readers import csv_rows, json_rows, jsonl_rows, missing_package, parquet_rows
from atesd_env.tasks.data.shapes import final_answer

Use = Literal["training", "measuring"]
"""What rows are for: to train on, or to measure on (a benchmark, a probe, held-out problems)."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SPLIT = r"[\w.-]+(?:\[[^\[\]]*\])?"
_NAMED = re.compile(rf"(?P<id>[^:]+)(?::(?P<config>[\w.-]+))??(?::(?P<split>{_SPLIT}(?:\+{_SPLIT})*))?")
_READERS: dict[str, Callable[[Path], Iterator[tuple[int, Any]]]] = {
    ".jsonl": jsonl_rows,
    ".json": json_rows,
    ".csv": csv_rows,
    ".parquet": parquet_rows,
}
_FILE_SUFFIXES = tuple(_READERS)


def _gsm8k(row: Mapping[str, Any]) -> dict[str, Any]:
    """GSM8K keeps the answer in the solution's last line: ``#### 72``."""
    answer, solution = final_answer(str(row["answer"]))
    return {"problem": row["question"], "solution": solution, "answer": answer}


def _mbppplus(row: Mapping[str, Any]) -> dict[str, Any]:
    """MBPP+ keeps its short tests in a list, and what they import in another."""
    tests = "\n".join([*row["test_imports"], *row["test_list"]])
    return {"id": f"Mbpp/{row['task_id']}", "problem": row["prompt"], "solution": row["code"], "answer": tests}


@dataclass(frozen=True)
class HubDataSet:
    """A data set of the hub (or a folder of files), and how its rows become ours.

    Attributes:
        id: Its id or path.
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


def _by_id(*data_sets: HubDataSet) -> dict[str, HubDataSet]:
    return {data_set.id: data_set for data_set in data_sets}


TRAINING_SETS = _by_id(
    HubDataSet("siyanzhao/Openthoughts_math_30k_opsd"),
    HubDataSet("openai/gsm8k", config="main", convert=_gsm8k),
    HubDataSet("deepmind/aqua_rat", config="raw", names={"solution": "rationale", "answer": "correct"}),
)
"""Data sets to train on whose split and fields are known."""
BENCHMARK_SETS = _by_id(
    HubDataSet("HuggingFaceH4/aime_2024"),
    HubDataSet("yentinglin/aime_2025"),
    HubDataSet("MathArena/hmmt_feb_2025", names={"id": "problem_idx"}),
    HubDataSet("HuggingFaceH4/MATH-500", split="test", names={"id": "unique_id"}),
    HubDataSet("openai/gsm8k", split="test", config="main", convert=_gsm8k),
    HubDataSet(
        "openai/openai_humaneval",
        split="test",
        names={"id": "task_id", "problem": "prompt", "solution": "canonical_solution", "answer": "test"},
    ),
    HubDataSet("evalplus/mbppplus", split="test", convert=_mbppplus),
)
"""Data sets to measure on; their split is never trained on unless that is said."""


def named_source(source: str | Path, config: str | None, split: str | None, use: Use = "training") -> str:
    """Returns a data set with its configuration and split written behind it.

    Raises:
        DataError: If it is a file, which has neither, or names them already.

    >>> named_source("openai/gsm8k", None, "test"), named_source("openai/gsm8k", "socratic", None)
    ('openai/gsm8k:test', 'openai/gsm8k:socratic:train')
    """
    if config is None and split is None:
        return str(source)
    name, given = ("data_split", split) if split is not None else ("data_config", config)
    if not is_data_set(source) or ":" in str(source):
        raise DataError(
            f"{name}: expected it beside a data set of the hub or a folder that names none itself, got {given!r} beside "
            f"{str(source)!r}; leave it out."
        )
    known = find_data_set(source, use)
    return ":".join(filter(None, (str(source), config, split or known.split)))


def is_hub_id(source: str | Path) -> bool:
    """Returns whether a source names a data set of the hub: "owner/name" that is no file here, with or without a split.

    >>> is_hub_id("HuggingFaceH4/aime_2024"), is_hub_id("openai/gsm8k:test"), is_hub_id("data/mine.jsonl")
    (True, True, False)
    """
    text = str(source)
    match = _NAMED.fullmatch(text)
    if match is None or _HUB_ID.fullmatch(match["id"]) is None or os.path.exists(match["id"]) or os.path.exists(text):
        return False
    return not match["id"].lower().endswith(_FILE_SUFFIXES)


def is_data_set(source: str | Path) -> bool:
    """Returns whether a source is read by the library `datasets`: the hub's, or a folder with data files in it."""
    match = _NAMED.fullmatch(str(source))
    folder = Path(match["id"]) if match and not os.path.exists(source) else Path(source)
    has_files = os.path.isdir(folder) and any(path.suffix.lower() in _FILE_SUFFIXES for path in folder.rglob("*"))
    return has_files or is_hub_id(source)


def is_parquet(source: str | Path) -> bool:
    """Returns whether a source is a Parquet file, by the end of its name."""
    return Path(source).suffix.lower() == ".parquet"


def is_benchmark(source: str | Path) -> bool:
    """Returns whether training on a source would be training on a split that a benchmark measures on.

    >>> is_benchmark("openai/gsm8k"), is_benchmark("openai/gsm8k:test"), is_benchmark("HuggingFaceH4/aime_2024")
    (False, True, True)
    """
    if not is_hub_id(source):
        return False
    data_set = find_data_set(source, "training")
    benchmark = BENCHMARK_SETS.get(data_set.id)
    # A part of a split, "test[:50%]", or two together, "train+test", are as bad.
    return benchmark is not None and benchmark.split in re.split(r"\[[^\]]*\]|\+", data_set.split)


def find_data_set(source: str | Path, use: Use) -> HubDataSet:
    """Returns what is known of a data set for a use; a split or configuration that the source names goes before.

    >>> [find_data_set("openai/gsm8k", use).split for use in ("training", "measuring")]
    ['train', 'test']
    >>> find_data_set("openai/gsm8k:socratic:train[:50%]", "measuring").config
    'socratic'
    """
    match = None if os.path.exists(source) else _NAMED.fullmatch(str(source))
    id_ = match["id"] if match else str(source)
    tables = (TRAINING_SETS, BENCHMARK_SETS) if use == "training" else (BENCHMARK_SETS, TRAINING_SETS)
    known = next((table[id_] for table in tables if id_ in table), HubDataSet(id_))
    if match is None:
        return known
    return dataclasses.replace(known, split=match["split"] or known.split, config=match["config"] or known.config)


def raw_rows(source: str | Path, use: Use = "training") -> Iterator[tuple[int, Any]]:
    """Yields (line, fields) of each row: lines of a file, or row numbers from 1. Fields are not checked.

    Args:
        source: Path of a JSONL or Parquet file, a folder of them, or a hub id.
        use: Which entry of a known data set is meant.

    Raises:
        DataError: If it cannot be read or loaded, a line is no JSON, or a library that it needs is not installed.
    """
    if is_data_set(source):
        data_set = find_data_set(source, use)
        yield from ((line, data_set.row(theirs)) for line, theirs in enumerate(_loaded(data_set), start=1))
    else:
        yield from _READERS.get(Path(source).suffix.lower(), jsonl_rows)(Path(source))


def _loaded(data_set: HubDataSet) -> Iterable[Mapping[str, Any]]:
    """Returns the rows of a data set, mapped from disk by its library."""
    try:
        import datasets
    except ImportError as error:
        raise missing_package("datasets", data_set.id, "pass a local JSONL or Parquet file") from error
    try:
        rows: Iterable[Mapping[str, Any]] = datasets.load_dataset(data_set.id, data_set.config, split=data_set.split)
    except Exception as error:  # the library raises many kinds, and those of its HTTP client
        raise DataError(
            f"{data_set.id}: expected to load this data set (split {data_set.split!r}), got "
            f"{type(error).__name__}: {str(error)[:200]}; check the id and the connection, name another split "
            f"(--data-split, {data_set.id}:SPLIT or {data_set.id}:CONFIGURATION:SPLIT), or pass a local JSONL or Parquet file."
        ) from error
    return rows
