"""Streams of many students at once: numpy's own numbers, bit for bit, whoever stands beside."""

from __future__ import annotations

import numpy as np
import pytest

from atesd_env.simulated import many_streams
from atesd_env.simulated.many_streams import first_normals
from atesd_env.streams import numpy_stream


def numpys(seeds: list[int], indices: list[int], purpose: str = "toy noise") -> list[float]:
    pairs = zip(seeds, indices, strict=True)
    return [numpy_stream(seed, purpose, index).standard_normal() for seed, index in pairs]


@pytest.mark.parametrize("purpose", ["toy noise", "surrogate noise", "task", "weights"])
def test_the_numbers_are_numpys_to_the_bit(purpose: str):
    """5,000 keys all over: with 1 in 70 from numpy itself and all 256 layers met about 20 times, of both signs."""
    rng = np.random.default_rng(0)
    seeds = [0, 1, 2**31, 2**32 - 1, *rng.integers(2**32, size=4996).tolist()]
    indices = [2**32 - 1, 0, 1, 7, *rng.integers(1000, size=4996).tolist()]
    assert first_normals(seeds, purpose, np.array(indices)).tolist() == numpys(seeds, indices, purpose)


def test_keys_that_are_no_words_are_numpys_too():
    seeds, indices = [2**70, 5, 2**32, 2**63, 3], [0, 2**33, 1, 4, 9]
    assert first_normals(seeds, "toy noise", np.array(indices)).tolist() == numpys(seeds, indices)


def test_a_number_does_not_depend_on_those_beside_it():
    seeds, indices = np.arange(100), np.arange(100) % 7
    together = first_normals(seeds, "toy noise", indices)
    for start in (0, 1, 37, 99):
        assert first_normals(seeds[start:], "toy noise", indices[start:]).tolist() == together[start:].tolist()


def test_what_is_surely_taken_lies_below_numpys_own_limits():
    """At a limit numpy takes the first number; three above it, whatever is drawn next decides."""
    widths, limits = many_streams._ziggurat()
    assert np.isfinite(widths).all()
    for layer in (0, 2, 3, 100, 255):
        at, above = (drawn(layer, int(limits[layer]) + more) for more in (0, 3))
        assert at == int(limits[layer]) * widths[layer]
        assert above != (int(limits[layer]) + 3) * widths[layer]


def drawn(layer: int, height: int) -> float:
    """What numpy makes of a word with this layer and height, and words of ones after it, which no wedge takes."""
    philox = np.random.Philox(0)
    state = philox.state
    state["buffer"], state["buffer_pos"] = np.array([layer | height << 9, 2**64 - 1, 1 << 9 | 5, 0], np.uint64), 0
    philox.state = state
    return np.random.Generator(philox).standard_normal()
