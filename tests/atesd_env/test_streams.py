"""Random streams: pure functions of (seed, purpose, index), independent of each other and of every global generator."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from atesd_env import streams
from atesd_env.streams import numpy_stream, seed_sequence, stream_seed
from atesd_env.student.generators import torch_stream

PURPOSES = ("adapter", "rollout", "probe", "problems", "measurement")
WITHOUT_INDEX = ("surrogate noise", "pretraining", "decisions", "weights")
ALL = sorted({*streams._NUMBERS} - {"task"})
"""Purposes of seeds that people give; a task's seed is a derived one, whose streams are its own."""


def numbers(seed: int, purpose: str, index: int = 0) -> tuple[float, ...]:
    return tuple(torch.rand(4, generator=torch_stream(seed, purpose, index)).tolist())


def test_the_same_arguments_give_the_same_numbers_whatever_came_before():
    first = numbers(3, "rollout", 7)
    numbers(4, "rollout", 8)
    torch.rand(3)
    assert numbers(3, "rollout", 7) == first
    assert numbers(3, "rollout") == numbers(3, "rollout", 0)
    assert stream_seed(3, "problems") == stream_seed(3, "problems")


def test_seed_purpose_and_index_each_make_another_stream():
    """All 5 x 5 x 20 streams differ from each other in their first four numbers."""
    streams = [numbers(*key) for key in itertools.product(range(5), PURPOSES, range(20))]
    assert len(set(streams)) == len(streams)


def test_derived_seeds_differ_and_are_what_a_task_takes():
    seeds = [stream_seed(seed, purpose) for seed, purpose in itertools.product(range(50), PURPOSES)]
    assert len(set(seeds)) == len(seeds)
    assert all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)


def test_large_seeds_are_taken():
    """Gymnasium hands out seeds up to 2^31, and callers may pass up to 2^64."""
    seeds = (0, 1, 2**31 - 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1)
    assert len({numbers(seed, "rollout", 5) for seed in seeds}) == len(seeds)


def test_global_generators_are_neither_read_nor_set():
    torch.manual_seed(0)
    before = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
    first = numbers(1, "probe", 2)
    after = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    torch.manual_seed(1)
    assert numbers(1, "probe", 2) == first


def test_first_numbers_of_successive_streams_look_independent():
    """Seeds fixed, so nothing can flake; Kolmogorov-Smirnov and Spearman over 2000 streams, each at the 1e-6 level."""
    for keys in ([(0, index) for index in range(2000)], [(seed, 0) for seed in range(2000)]):
        first = [float(torch.rand(1, generator=torch_stream(seed, "rollout", index))) for seed, index in keys]
        assert stats.kstest(first, "uniform").pvalue > 1e-6
        assert stats.spearmanr(first[:-1], first[1:]).pvalue > 1e-6


@pytest.mark.parametrize("purpose", ["", "Rollout", "rollouts"])
def test_an_unknown_purpose_is_refused(purpose: str):
    with pytest.raises(KeyError):
        torch_stream(0, purpose)


def key(seed: int, purpose: str, index: int) -> tuple[int, str] | tuple[int, str, int]:
    return (seed, purpose) if purpose in WITHOUT_INDEX else (seed, purpose, index)


def pool(*key: int | str) -> tuple[int, ...]:
    """The 128 bits that all numbers of a stream follow from."""
    return tuple(seed_sequence(*key).pool.tolist())  # type: ignore[arg-type]


def test_every_purpose_has_a_number_of_its_own():
    assert len(set(streams._NUMBERS.values())) == len(streams._NUMBERS)
    between = [streams.LISTED[purpose] for purpose in streams.LISTED]
    assert len(set(between)) == len(between)


def test_no_two_streams_are_the_same_where_lists_would_be():
    """numpy reads [2^32 a + b, n] as [b, a, n]: all seeds and indices here are made of the purposes' numbers."""
    words = [0, 1, 2, *streams._NUMBERS.values(), 2**32 - 1]
    seeds = words + [low + 2**32 * high for low, high in itertools.product((0, 1, 11, 101), words) if high]
    keys = {key(*one) for one in itertools.product(seeds, ALL, [0, 1, 11, 101, 2**32, 2**32 + 11, 2**32 * 101 + 1])}
    assert len({pool(*one) for one in keys}) == len(keys)
    tasks = {*itertools.product(seeds, ["task"], seeds)}
    assert len({pool(*one) for one in tasks}) == len(tasks)


WORDS = st.lists(
    st.one_of(st.sampled_from([0, 1, 11, 12, 101, 102]), st.integers(0, 2**32 - 1)), min_size=2, max_size=6
)


@settings(max_examples=200, deadline=None)
@given(WORDS)
def test_the_same_words_cut_elsewhere_are_another_stream(words: list[int]):
    """However a row of 32-bit words is cut into seed, purpose and index: two keys are the same stream only if they are one."""

    def number(part: list[int]) -> int:
        return sum(word << (32 * place) for place, word in enumerate(part))

    cuts = [(words[:cut], words[cut + skipped :][:2]) for cut in range(1, min(5, len(words))) for skipped in (0, 1)]
    keys = {key(number(seed), purpose, number(index)) for (seed, index), purpose in itertools.product(cuts, ALL)}
    assert len({pool(*one) for one in keys}) == len(keys)


def test_the_numbers_of_published_figures_stay():
    """Seeds below 2^32 give what lists gave, [seed, number, index], and what spawn keys gave."""
    for seed in (0, 1, 7, 2**32 - 1):
        for index in (0, 1, 11, 2**32 - 1):
            lists = {
                ("toy noise", index): [seed, 11, index],
                ("surrogate noise",): [seed, 12],
                ("task", index): [seed, index],
                ("task", 2, index, 1): [seed, 2, index, 1],
                ("pretraining",): [seed, 1],
                ("decisions",): [seed, 101],
                ("weights",): [seed, 102],
            }
            for (purpose, *its_index), entropy in lists.items():
                expected = np.random.default_rng(np.random.SeedSequence(entropy)).random(3)
                assert numpy_stream(seed, purpose, *its_index).random(3).tolist() == expected.tolist(), purpose
            leg = np.random.SeedSequence(seed, spawn_key=(103, index))
            assert stream_seed(seed, "leg", index) == leg.generate_state(1)[0]


def test_golden_numbers():
    golden = {
        (0, "toy noise", 0): 0.5198980982279455,
        (3, "surrogate noise"): 0.20784353659065724,
        (5, "task", 9): 0.6651101757107439,
        (0, "pretraining"): 0.8897387912781343,
        (1, "decisions"): 0.1836338689901752,
        (1, "weights"): 0.013018651307838747,
    }
    assert {stream: numpy_stream(*stream).random() for stream in golden} == golden
