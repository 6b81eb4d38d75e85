"""The order of training rows: a pure function of (seed, index), whoever asks and wherever a run goes on.

Every pass over the data is a fresh permutation. A position in the order is a whole number, so there is no state to save: a run
that has used n rows goes on at index n.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from atesd_env.streams import numpy_stream


def row_at(num_rows: int, seed: int, index: int) -> int:
    """Returns which of ``num_rows`` rows comes at ``index`` (from 0, without end): each once in every pass.

    >>> sorted(row_at(3, 0, index) for index in (3, 4, 5))
    [0, 1, 2]
    """
    epoch, position = divmod(index, num_rows)
    return int(_epoch_order(num_rows, seed, epoch)[position])


@lru_cache(maxsize=128)
def _epoch_order(num_rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return numpy_stream(seed, "task", epoch).permutation(num_rows)
