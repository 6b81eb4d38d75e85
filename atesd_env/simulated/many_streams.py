"""Random streams of many students at once: the numbers of ``streams``, bit for bit, without a generator for each.

What numpy does for one key is written out over arrays of keys: ``SeedSequence`` mixes the words of a key into a pool, ``PCG64``
makes its state of the pool and one 64-bit number of the state, the ziggurat makes a normal number of that. A number depends on
its own key alone, so student k's do not depend on K. Where the ziggurat would take a second number (1 in 70), and keys
that are not lists of 32-bit words, are left to numpy.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.random import PCG64, Generator, Philox
from numpy.typing import NDArray

from atesd_env.streams import LISTED, numpy_stream

Words = NDArray[np.uint32]
"""A word of each of S seeds, [S]."""
Halves = tuple[NDArray[np.uint64], NDArray[np.uint64]]
"""Numbers of 128 bits as (high, low), [S] each."""

_MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645  # of PCG64
_LOW_32 = np.uint64(0xFFFFFFFF)
_POOL = 4  # words of a seed sequence's pool


def first_normals(
    seeds: Sequence[int] | NDArray[np.int64], purpose: str, indices: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Returns ``numpy_stream(seed, purpose, index).standard_normal()`` of each (seed, index), [S].

    Args:
        seeds: Seeds, [S], as for ``numpy_stream``.
        purpose: A purpose whose streams are lists (``streams.LISTED``).
        indices: Indices, [S].

    >>> float(first_normals([7], "toy noise", np.array([3]))[0]) == numpy_stream(7, "toy noise", 3).standard_normal()
    True
    """
    keys = np.asarray(seeds)
    is_word = (keys < 2**32) & (indices < 2**32)
    first, last = (np.where(is_word, one, 0).astype(np.uint32) for one in (keys, indices))
    state, increment = _seeded(_pool([first, *(np.array([word], np.uint32) for word in LISTED[purpose]), last]))
    raw = _output(*_stepped(*state, increment))
    layer = (raw & np.uint64(0xFF)).astype(np.intp)
    height = ((raw >> np.uint64(9)) & np.uint64(2**52 - 1)).astype(np.float64)
    widths, limits = _ziggurat()
    normals = height * widths[layer]
    np.negative(normals, out=normals, where=(raw & np.uint64(0x100)) != 0)
    generator = PCG64(0)
    for place in np.flatnonzero(height >= limits[layer]).tolist():
        whole: Any = {"state": _joined(state, place), "inc": _joined(increment, place)}
        generator.state = {"bit_generator": "PCG64", "state": whole, "has_uint32": 0, "uinteger": 0}
        normals[place] = Generator(generator).standard_normal()
    for place in np.flatnonzero(~is_word).tolist():
        normals[place] = numpy_stream(int(keys[place]), purpose, int(indices[place])).standard_normal()
    return normals


def _joined(halves: Halves, place: int) -> int:
    return (int(halves[0][place]) << 64) + int(halves[1][place])


def _pool(entropy: Sequence[Words]) -> list[Words]:
    """``SeedSequence.mix_entropy``: the words of S pools."""
    constant = 0x43B0D7E5

    def hashed(word: Words) -> Words:
        nonlocal constant
        mixed = word ^ np.uint32(constant)
        constant = constant * 0x931E8875 % 2**32
        mixed = mixed * np.uint32(constant)
        return np.asarray(mixed ^ (mixed >> np.uint32(16)))

    pool = [hashed(word) for word in (*entropy, *[np.zeros(1, np.uint32)] * (_POOL - len(entropy)))]
    for source in range(_POOL):
        for target in range(_POOL):
            if source != target:
                mixed = np.uint32(0xCA01F9DD) * pool[target] - np.uint32(0x4973F715) * hashed(pool[source])
                pool[target] = mixed ^ (mixed >> np.uint32(16))
    return pool


def _seeded(pool: Sequence[Words]) -> tuple[Halves, Halves]:
    """``SeedSequence.generate_state`` and what PCG64 makes of it: S states and their increments."""
    constant, words = 0x8B51F9DD, []
    for place in range(8):
        mixed = pool[place % _POOL] ^ np.uint32(constant)
        constant = constant * 0x58F38DED % 2**32
        mixed = mixed * np.uint32(constant)
        words.append((mixed ^ (mixed >> np.uint32(16))).astype(np.uint64))
    high, low, upper, lower = (words[place] | (words[place + 1] << np.uint64(32)) for place in range(0, 8, 2))
    one = np.uint64(1)
    increment = (upper << one) | (lower >> np.uint64(63)), (lower << one) | one
    return _stepped(*_sum(increment, (high, low)), increment), increment


def _stepped(high: NDArray[np.uint64], low: NDArray[np.uint64], increment: Halves) -> Halves:
    """One step of PCG64: the state times its multiplier, plus the increment, modulo 2^128."""
    m_high, m_low = np.uint64(_MULTIPLIER >> 64), np.uint64(_MULTIPLIER % 2**64)
    m_0, m_1 = m_low & _LOW_32, m_low >> np.uint64(32)
    low_0, low_1 = low & _LOW_32, low >> np.uint64(32)
    middle = low_1 * m_0 + ((low_0 * m_0) >> np.uint64(32))
    other = low_0 * m_1 + (middle & _LOW_32)
    carried = low_1 * m_1 + (middle >> np.uint64(32)) + (other >> np.uint64(32))
    return _sum((carried + low * m_high + high * m_low, low * m_low), increment)


def _output(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The 64 bits that PCG64 makes of a state: the halves' exclusive or, turned by the uppermost six bits."""
    mixed, by = high ^ low, high >> np.uint64(58)
    return np.asarray((mixed >> by) | (mixed << (-by & np.uint64(63))))


def _sum(one: Halves, other: Halves) -> Halves:
    low = one[1] + other[1]
    return one[0] + other[0] + (low < other[1]), low


@functools.cache
def _ziggurat() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns (width of each layer, height below which numpy surely takes the first number there), [256] each.

    The widths are numpy's own, read off what it makes of words that are put into a generator's buffer; the limits follow from
    them, a little lower than numpy's, so that what lies in between is left to numpy.
    """
    widths = np.empty(256)
    for layer in range(256):
        philox = Philox(0)
        state = philox.state
        # Height 1, but in layer 1, where numpy takes no first number.
        state["buffer"], state["buffer_pos"] = np.array([layer | 1 << 9, 0, 0, 0], np.uint64), 0
        philox.state = state
        widths[layer] = Generator(philox).standard_normal()
    shares = np.concatenate([widths[-1:], [0.0], widths[1:-1]]) / widths
    shares[1] = 0.0
    return widths, shares * 2**52 - 2
