"""Random streams: pure functions of (seed, purpose, index), independent of each other and of every global generator."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from scipy import stats

from atesd_env.streams import stream_seed
from atesd_env.student.generators import torch_stream

PURPOSES = ("adapter", "rollout", "probe", "problems", "measurement")


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
