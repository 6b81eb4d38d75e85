"""Random streams: every random number comes from (seed, purpose, index), and from no global generator.

A stream is made where it is used and thrown away, so there is no generator state to save: a restored run continues with
the same numbers, and update i draws the same whatever happened before it.
"""

from __future__ import annotations

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence

_NUMBERS = {
    # Of a run on a language model; `torch_stream`.
    "adapter": 1,
    "rollout": 2,
    "probe": 3,
    "problems": 4,  # the seed of its task
    "measurement": 5,
    "evaluation": 6,
    "scores": 7,  # rollouts that are only looked at
    # Of simulated students.
    "toy noise": 11,
    "surrogate noise": 12,
    # Of what has a seed of its own: a task (one that "problems" derived) and the packaged students' recipes.
    "task": 21,
    "pretraining": 22,
    "phases": 23,  # the seed of a task
    "habits": 24,
    "options": 25,  # the seed of a task
    # Of the bench: which instance a run's seed draws.
    "instance": 31,
    # Of an agent: its decisions, its first weights, and the runs of each leg of its training.
    "decisions": 101,
    "weights": 102,
    "leg": 103,
}
"""Every purpose of a random stream, and its number, which never changes: published figures hang on it."""

LISTED = {
    "toy noise": (11,),
    "surrogate noise": (12,),
    "task": (),
    "pretraining": (1,),
    "decisions": (101,),
    "weights": (102,),
}
"""Purposes whose streams are lists [seed, ..., index] where all of these are below 2^32, and what stands between the two."""


def seed_sequence(seed: int, purpose: str, *index: int) -> SeedSequence:
    """Returns the seed of the stream (seed, purpose, index); no two of these are the same stream.

    Args:
        seed: Non-negative, below 2^128.
        purpose: One of the purposes of this module.
        index: Counts uses of the same purpose, such as the update or the window, each below 2^64; a purpose that is used
            once has none.

    Raises:
        KeyError: If there is no such purpose.
    """
    between = LISTED.get(purpose)
    if between is not None:
        words = (seed, *between, *index)
        if max(words) < 2**32:
            # An array, not a list: the same numbers in half the time.
            return SeedSequence(np.array(words, np.uint32))
    # A spawn key, not a longer list: numpy cuts large numbers into several, and the list [2^32 a + b] is [b, a].
    return SeedSequence(seed, spawn_key=(_NUMBERS[purpose], *index))


def numpy_stream(seed: int, purpose: str, *index: int) -> Generator:
    """Returns a generator for one use; the arguments are those of ``seed_sequence``."""
    return Generator(PCG64(seed_sequence(seed, purpose, *index)))


def stream_seed(seed: int, purpose: str, index: int = 0) -> int:
    """Returns a derived seed below 2^32 for code that takes an integer, such as a task's order of problems."""
    return int(seed_sequence(seed, purpose, index).generate_state(1, np.uint32)[0])
