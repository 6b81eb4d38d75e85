"""Rows that stay on disk: an index of where they are, in an order, read one by one when they are asked for.

The index takes about 60 bytes a row, and about 250 while it is made, so a file may be far larger than memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from atesd_env.tasks.base import Problem
from atesd_env.tasks.data.readers import Reader
from atesd_env.tasks.data.rows import DataReport, DataRow, RowScan, parse_row, problem_checksum


@dataclass(frozen=True)
class RowIndex:
    """Where the usable rows of one source are, in the order of the source.

    Attributes:
        path: The source.
        reader: Reads a row.
        places: [N], for the reader.
        lines: [N], row numbers from 1.
        checksums: [N] of 32 bytes, of the problems' texts.
        has_levels: Whether every row has a level.
        report: What was read and left out.
    """

    path: str
    reader: Reader
    places: NDArray[np.int64]
    lines: NDArray[np.int64]
    checksums: NDArray[np.void]
    has_levels: bool
    report: DataReport

    def row(self, position: int) -> DataRow:
        """Reads one row.

        Raises:
            DataError: If it cannot be read, as when the file has changed.
        """
        line = int(self.lines[position])
        return parse_row(self.path, line, self.reader.read(int(self.places[position]), line))

    def only(self, is_kept: NDArray[np.bool_]) -> RowIndex:
        """Returns the index without some rows."""
        return RowIndex(
            self.path,
            self.reader,
            self.places[is_kept],
            self.lines[is_kept],
            self.checksums[is_kept],
            self.has_levels,
            self.report,
        )


def index_rows(path: str | Path, see: Callable[[DataRow], None] = lambda row: None) -> RowIndex:
    """Reads a source once and remembers where its rows are.

    Args:
        path: JSONL, Parquet or a hub id.
        see: Called with each row, such as to note its id.

    Raises:
        DataError: As ``read_rows``.
    """
    scan = RowScan(path)
    places, lines, checksums, has_levels = [], [], bytearray(), True
    for place, row in scan:
        places.append(place)
        lines.append(row.line)
        checksums += problem_checksum(row.problem)
        has_levels = has_levels and row.level is not None
        see(row)
    return RowIndex(
        str(path),
        scan.reader,
        np.array(places, dtype=np.int64),
        np.array(lines, dtype=np.int64),
        np.frombuffer(bytes(checksums), dtype=np.dtype("V32")),
        has_levels,
        scan.report(),
    )


class StoredProblems(Sequence[Problem]):
    """Problems of an index in some order; each access reads a row.

    Args:
        index: Where they are.
        as_problem: Makes a problem of a row.
        order: [N'], which rows of the index, in which order.
    """

    def __init__(self, index: RowIndex, as_problem: Callable[[DataRow], Problem], order: NDArray[np.int64]) -> None:
        self._index = index
        self._as_problem = as_problem
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, position: int) -> Problem: ...
    @overload
    def __getitem__(self, position: slice) -> StoredProblems: ...
    def __getitem__(self, position: int | slice) -> Problem | StoredProblems:
        if isinstance(position, slice):
            return StoredProblems(self._index, self._as_problem, self._order[position])
        return self._as_problem(self._index.row(int(self._order[position])))

    def where(self, keep: Callable[[Problem], bool]) -> StoredProblems:
        """Returns those that ``keep`` accepts, in this order; they are read in the order of the source, which is quicker."""
        is_kept = np.zeros(len(self._index.places), dtype=np.bool_)
        for position in np.sort(self._order):
            is_kept[position] = keep(self._as_problem(self._index.row(int(position))))
        return StoredProblems(self._index, self._as_problem, self._order[is_kept[self._order]])


def sorted_by_checksum(index: RowIndex, as_problem: Callable[[DataRow], Problem]) -> StoredProblems:
    """Returns all problems of an index in the order of their texts' checksums."""
    # Big-endian numbers compare as the bytes that they are made of do; numpy compares no raw bytes.
    words = index.checksums.view(">u8").reshape(-1, 4)
    return StoredProblems(index, as_problem, np.lexsort(words.T[::-1]).astype(np.int64))
