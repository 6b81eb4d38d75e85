"""Tokens and hours by hand: a device whose rates are round, a model of a thousand weights."""

from __future__ import annotations

import dataclasses
import math

import pytest

from atesd_env.config import preset
from atesd_env.errors import ConfigError
from atesd_env.planning.hours import (
    DEVICES,
    LAYER_STEP_SEC,
    MATRIX_SHARE,
    MEMORY_SHARE,
    Device,
    decode_sec,
    evaluation_batch,
    evaluation_hours,
    parse_gpus,
    time_plan,
    token_plan,
)
from atesd_env.planning.memory import Lengths
from atesd_env.planning.shape import ModelShape

SHAPE = ModelShape(
    num_parameters=1200,
    num_matrix_parameters=1000,
    num_adapter_parameters=10,
    hidden_size=4,
    num_layers=10,
    num_heads=2,
    num_key_value_heads=2,
    head_dim=4,
    mlp_size=8,
    vocabulary_size=50,
    has_head_norm=True,
    lora_r=2,
)
LENGTHS = Lengths(student_prompt=100, teacher_prompt=200, completion=50, reference=30)
ENDLESS = 1e30
CONFIG = preset(
    "ATESD-Tiny-v0",
    windows=2,
    hold_window=3,
    num_rollouts=4,
    probe_size=10,
    probe_batch_size=4,
    probe_accuracy_every=0,
    dtype="bfloat16",
)


def device(*, matrix: float = ENDLESS, memory: float = ENDLESS) -> Device:
    """Returns a device that reaches these rates, shares of what its sheet says."""
    return Device(1e6, matrix / MATRIX_SHARE, memory / MEMORY_SHARE)


def test_tokens():
    tokens = token_plan(CONFIG, LENGTHS)
    rows = 2 * 3 * 4
    assert (tokens.sampled, tokens.trained, tokens.scored) == (rows * 50, rows * 150, rows * 250)
    assert tokens.probed == 2 * 10 * (100 + 30 + 200 + 30)


def test_a_decoding_step_takes_the_longest_of_starting_reading_and_computing():
    """Four rows: weights of 2 bytes, and keys and values of 10 layers, 8 wide, for the 125 tokens that are there on average."""
    read = 1000 * 2 + 4 * 125 * (2 * 10 * 8 * 2)
    assert decode_sec(4, LENGTHS, SHAPE, device(), 2) == pytest.approx(50 * 10 * LAYER_STEP_SEC)
    assert decode_sec(4, LENGTHS, SHAPE, device(memory=1e4), 2) == pytest.approx(50 * read / 1e4)
    # 2 operations a weight and row; prompts of 100 tokens first.
    assert decode_sec(4, LENGTHS, SHAPE, device(matrix=1e5), 2) == pytest.approx((100 + 50) * 2 * 1000 * 4 / 1e5)
    # In float32 the matrix rate is half of bfloat16's.
    assert decode_sec(4, LENGTHS, SHAPE, device(matrix=1e5), 4) == pytest.approx((100 + 50) * 2 * 1000 * 4 / 5e4)


@pytest.mark.parametrize(("checkpointing", "passes"), [(False, 2), (True, 3)])
def test_updates_and_probe(checkpointing: bool, passes: int):
    """At half a second a token: the student's forward pass, its backward pass, and once more forward with checkpointing."""
    slow = device(matrix=4000.0)
    plan = time_plan(CONFIG.replace(gradient_checkpointing=checkpointing), SHAPE, slow, LENGTHS)
    tokens = token_plan(CONFIG, LENGTHS)
    assert plan.update_sec == pytest.approx(0.5 * (tokens.trained * passes + tokens.scored))
    assert plan.probe_sec == pytest.approx(0.5 * tokens.probed)
    assert plan.rollout_sec == pytest.approx(6 * decode_sec(4, LENGTHS, SHAPE, slow, 2))
    assert plan.total_sec == pytest.approx(plan.update_sec + plan.probe_sec + plan.rollout_sec)
    wide = time_plan(CONFIG.replace(dtype="float32"), SHAPE, slow, LENGTHS)
    assert wide.probe_sec == pytest.approx(2 * plan.probe_sec)


def test_greedy_accuracy_takes_its_batches():
    """Ten problems in batches of four, in every second window of five: three batches, three times."""
    config = CONFIG.replace(windows=5)
    without = time_plan(config, SHAPE, device(), LENGTHS).probe_sec
    measured = time_plan(config.replace(probe_accuracy_every=2), SHAPE, device(), LENGTHS).probe_sec
    assert measured - without == pytest.approx(9 * decode_sec(4, LENGTHS, SHAPE, device(), 2))


def test_evaluations():
    """92% of the memory less the base, by 1.375 times a sample's cache of 320 bytes a token."""
    assert evaluation_batch(SHAPE, device(), 1000, 2, base_bytes=2400.0) == math.floor(
        (0.92e6 - 2400) / (1.375 * 320_000)
    )
    assert evaluation_batch(SHAPE, device(), 1000, 2, base_bytes=0.95e6) == 0
    assert evaluation_hours(SHAPE, device(), 10, 4, LENGTHS, 2) == pytest.approx(3 * 50 * 10 * LAYER_STEP_SEC / 3600)


def test_devices():
    assert parse_gpus("a100-40gb") == (1, "A100-40GB", DEVICES["A100-40GB"])
    assert parse_gpus("16xL40S-48GB")[0] == 16
    for text in ("H100-81GB", "0xH100-80GB", "-1xH100-80GB"):
        with pytest.raises(ConfigError, match=r"expected \[NUMBERx\]DEVICE, got '.*'; did you mean 'H100-80GB'"):
            parse_gpus(text)
    for name, sheet in DEVICES.items():
        stated = float(name.partition("-")[2].removesuffix("GB")) * 1e9
        assert stated <= sheet.memory_bytes <= stated * 1.074, "gigabytes of 10^9 or of 2^30"
        assert 50e12 < sheet.matrix_rate < 5000e12
        assert 500e9 < sheet.memory_rate < 10_000e9
    assert dataclasses.astuple(DEVICES["H100-80GB"])[1:] == (989e12, 3350e9)
