"""Random streams: every random number comes from (seed, purpose, index), and from no global generator.

A stream is made where it is used and thrown away, so there is no generator state to save: a restored run continues with
the same numbers, and update i draws the same whatever happened before it.
"""

from __future__ import annotations

import numpy as np

_PURPOSES = {"adapter": 1, "rollout": 2, "probe": 3, "problems": 4, "measurement": 5, "evaluation": 6}


def seed_sequence(seed: int, purpose: str, index: int) -> np.random.SeedSequence:
    """Returns the seed of the stream (seed, purpose, index)."""
    # A spawn key, not a longer entropy list: lists are padded with zeros, so that [a large seed] could equal [a small one, 1].
    return np.random.SeedSequence(seed, spawn_key=(_PURPOSES[purpose], index))


def stream_seed(seed: int, purpose: str) -> int:
    """Returns a derived seed for code that takes an integer, such as a task's order of problems."""
    return int(seed_sequence(seed, purpose, 0).generate_state(1, np.uint32)[0])
