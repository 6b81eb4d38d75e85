"""The order of training rows: a pure function of (seed, index), whoever asks and wherever a run goes on.

Every pass over the data is a fresh permutation. A position in the order is a whole number, so there is no state to save: a run
that has used n rows goes on at index n, and worker w of W takes every W-th index, whatever W was before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from atesd_env.errors import ConfigError
from atesd_env.streams import numpy_stream

_Row = TypeVar("_Row")


def row_at(num_rows: int, seed: int, index: int) -> int:
    """Returns which of ``num_rows`` rows comes at ``index`` (from 0, without end): each once in every pass.

    >>> sorted(row_at(3, 0, index) for index in (3, 4, 5))
    [0, 1, 2]
    """
    epoch, position = divmod(index, num_rows)
    return int(_epoch_order(num_rows, seed, epoch)[position])


def ordered_rows(
    rows: Sequence[_Row], seed: int, start: int = 0, worker: int = 0, num_workers: int = 1
) -> Iterator[tuple[int, _Row]]:
    """Yields (index, row) without end. All workers together yield each index from ``start`` on exactly once.

    Args:
        rows: Anything with a length and numbered rows, such as a list or a data set on disk.
        seed: Fixes the order.
        start: First index: as many as were used before.
        worker: Whose share, 0..num_workers - 1.
        num_workers: How many share the rows.

    Raises:
        ConfigError: If an argument is out of range, or there is no row.
    """
    if seed < 0 or start < 0 or not 0 <= worker < num_workers or not len(rows):
        raise ConfigError(
            f"ordered_rows: expected rows, a seed and a start of 0 or more and a worker below num_workers, got {len(rows)} "
            f"rows, seed {seed}, start {start}, worker {worker} of {num_workers}; "
            "correct these arguments."
        )

    def share() -> Iterator[tuple[int, _Row]]:
        # By the index itself, not by its distance from the start: a share does not move when a run goes on.
        index = start + (worker - start) % num_workers
        while True:
            yield index, rows[row_at(len(rows), seed, index)]
            index += num_workers

    return share()


@lru_cache(maxsize=128)
def _epoch_order(num_rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return numpy_stream(seed, "task", epoch).permutation(num_rows)
