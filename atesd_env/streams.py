"""Random streams: every random number comes from (seed, purpose, index), and from no global generator.

A stream is made where it is used and thrown away, so there is no generator state to save: a restored run continues with
the same numbers, and update i draws the same whatever happened before it.
"""

from __future__ import annotations

import numpy as np
import torch

_PURPOSES = {"adapter": 1, "rollout": 2, "probe": 3, "problems": 4, "measurement": 5, "evaluation": 6}


def _sequence(seed: int, purpose: str, index: int) -> np.random.SeedSequence:
    # A spawn key, not a longer entropy list: lists are padded with zeros, so that [a large seed] could equal [a small one, 1].
    return np.random.SeedSequence(seed, spawn_key=(_PURPOSES[purpose], index))


def torch_stream(seed: int, purpose: str, index: int = 0) -> torch.Generator:
    """Returns a CPU generator for one use.

    Args:
        seed: The run's seed, non-negative.
        purpose: "adapter", "rollout", "probe", "problems", "measurement" or "evaluation".
        index: Counts uses of the same purpose: the update, the window, or the sample of a problem.
    """
    state = int(_sequence(seed, purpose, index).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state & 0x7FFF_FFFF_FFFF_FFFF)


def stream_seed(seed: int, purpose: str) -> int:
    """Returns a derived seed for code that takes an integer, such as a task's order of problems."""
    return int(_sequence(seed, purpose, 0).generate_state(1, np.uint32)[0])
