"""Tokens and hours by hand: a device whose rates are round, a model of a thousand weights."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from atesd_env.config import preset
from atesd_env.errors import ConfigError
from atesd_env.planning.devices import DEVICES, Device, parse_gpus
from atesd_env.planning.hours import (
    BACKWARD_LAUNCHES,
    FORWARD_LAUNCHES,
    LAUNCH_SEC,
    MATRIX_SHARE,
    MEMORY_SHARE,
    STEP_LAUNCHES,
    TOKEN_LAUNCHES,
    decode_sec,
    evaluation_batch,
    evaluation_hours,
    time_plan,
    token_plan,
)
from atesd_env.planning.memory import Lengths
from atesd_env.planning.shape import ModelShape
from atesd_env.rollouts.decoding import begin_decoding
from atesd_env.rollouts.sampling import Rollouts, SamplingSpec, generate
from atesd_env.rollouts.scoring import scored_hidden
from tests.atesd_env.planning.random_students import random_student

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


# Adapters of rank 2 on 10 layers: query, key and value together, the output, gate and up together, down.
ADAPTERS = 10 * 2 * (3 * (4 + 24) + (8 + 4) + 2 * (4 + 16) + (8 + 4))
STEP_SEC = LAUNCH_SEC * (10 * STEP_LAUNCHES + TOKEN_LAUNCHES)
PROMPTS_SEC = LAUNCH_SEC * 10 * FORWARD_LAUNCHES


def test_tokens():
    tokens = token_plan(CONFIG, LENGTHS)
    rows = 2 * 3 * 4
    assert (tokens.sampled, tokens.trained, tokens.scored) == (rows * 50, rows * 150, rows * 250)
    assert (tokens.probed_student, tokens.probed_teacher) == (2 * 10 * (100 + 30), 2 * 10 * (200 + 30))


def test_a_decoding_step_takes_the_longest_of_starting_reading_and_computing():
    """Four rows: weights and adapters of 2 bytes; keys and values of 10 layers, 8 wide, for the 125 tokens that are there on average;
    40 bytes of each of 50 words, written and read."""
    read = (1000 + ADAPTERS) * 2 + 4 * 125 * (2 * 10 * 8 * 2) + 2 * 4 * 50 * 40
    assert decode_sec(4, LENGTHS, SHAPE, device(), 2) == pytest.approx(PROMPTS_SEC + 50 * STEP_SEC)
    assert decode_sec(4, LENGTHS, SHAPE, device(memory=1e4), 2) == pytest.approx(PROMPTS_SEC + 50 * read / 1e4)
    # 2 operations a number and row; prompts of 100 tokens first.
    computed = (100 + 50) * 2 * (1000 + ADAPTERS) * 4
    assert decode_sec(4, LENGTHS, SHAPE, device(matrix=1e5), 2) == pytest.approx(computed / 1e5)
    # In float32 the matrix rate is half of bfloat16's.
    assert decode_sec(4, LENGTHS, SHAPE, device(matrix=1e5), 4) == pytest.approx(computed / 5e4)


def test_prompts_start_their_kernels_once_a_part(monkeypatch: pytest.MonkeyPatch):
    """700 rows of 100 tokens, 176 bytes each, in parts of 327 rows."""
    monkeypatch.setattr("atesd_env.rollouts.passes.PASS_BYTES", 327 * 100 * 176)
    short = dataclasses.replace(LENGTHS, completion=1)
    assert decode_sec(700, short, SHAPE, device(), 2) == pytest.approx(3 * PROMPTS_SEC + STEP_SEC)


@pytest.mark.parametrize(("checkpointing", "passes"), [(False, 1), (True, 2)])
@pytest.mark.parametrize("teacher", ["initial", "ema"])
def test_updates_and_probe(checkpointing: bool, passes: int, teacher: str):
    """Forward 2 operations a number; backward 2 a weight and 4 an adapter's; the initial teacher has no adapter."""
    slow = device(matrix=4000.0)
    config = CONFIG.replace(gradient_checkpointing=checkpointing, teacher=teacher)
    plan = time_plan(config, SHAPE, slow, LENGTHS)
    tokens = token_plan(CONFIG, LENGTHS)
    adapted, taught = 2 * (1000 + ADAPTERS), 2 * (1000 + (ADAPTERS if teacher == "ema" else 0))
    student = passes * adapted + 2 * 1000 + 4 * ADAPTERS
    assert plan.update_sec == pytest.approx((tokens.trained * student + tokens.scored * taught) / 4000)
    assert plan.probe_sec == pytest.approx((tokens.probed_student * adapted + tokens.probed_teacher * taught) / 4000)
    assert plan.rollout_sec == pytest.approx(6 * decode_sec(4, LENGTHS, SHAPE, slow, 2))
    assert plan.total_sec == pytest.approx(plan.update_sec + plan.probe_sec + plan.rollout_sec)
    wide = time_plan(config.replace(dtype="float32"), SHAPE, slow, LENGTHS)
    assert wide.probe_sec == pytest.approx(2 * plan.probe_sec)


def test_updates_and_probe_take_no_less_than_their_kernels_take_to_start():
    """Six updates of four rollouts in batches of three; a probe of ten in batches of four, by student and teacher, twice."""
    plan = time_plan(CONFIG.replace(micro_batch_size=3), SHAPE, device(), LENGTHS)
    assert plan.update_sec == pytest.approx(6 * 2 * 10 * (2 * FORWARD_LAUNCHES + BACKWARD_LAUNCHES) * LAUNCH_SEC)
    assert plan.probe_sec == pytest.approx(2 * 3 * 2 * 10 * FORWARD_LAUNCHES * LAUNCH_SEC)
    again = time_plan(CONFIG.replace(micro_batch_size=3, gradient_checkpointing=True), SHAPE, device(), LENGTHS)
    assert again.update_sec == pytest.approx(6 * 2 * 10 * (3 * FORWARD_LAUNCHES + BACKWARD_LAUNCHES) * LAUNCH_SEC)


class _Launches(TorchDispatchMode):
    """Counts operations that compute or copy: neither views nor memory that is only taken."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        self.number += not function.is_view and not name.startswith(("empty", "new_empty", "detach", "_unsafe_view"))
        return function(*args, **(kwargs or {}))


def _launches(num_layers: int) -> tuple[int, int, int, int]:
    """Returns the kernels of a step, a forward and a backward pass, and a token, of a 16-bit Qwen3 with adapters."""
    student, adapters, _ = random_student("bfloat16", "fused", num_layers=num_layers)
    prompts = torch.full((4, 7), 5)
    rollouts = Rollouts(prompts, prompts.bool(), prompts, prompts.bool(), torch.ones(4, dtype=torch.bool))
    student = dataclasses.replace(student, eos_token_ids=())
    with adapters.use("student", [0]):
        with torch.inference_mode():
            decoding = begin_decoding(student, prompts, prompts.bool(), 4)
            with _Launches() as step:
                decoding.step(prompts[:, 0])
        with _Launches() as forward:
            hidden = scored_hidden(student, prompts, prompts.bool(), rollouts)
        with _Launches() as backward:
            hidden.sum().backward()
        tokens = []
        for number in (2, 3):
            spec = SamplingSpec(number, temperature=1.1, top_p=0.95, top_k=20)
            with _Launches() as counted:
                generate(student, prompts.tolist(), spec, torch.full((4, number), 0.5))
            tokens.append(counted.number)
    return step.number, forward.number, backward.number, tokens[1] - tokens[0]


def test_kernels_are_counted(monkeypatch: pytest.MonkeyPatch):
    """A layer's are what two more layers add, by half; a token's what is left of it without its layers. Adapters as on wide layers."""
    monkeypatch.setattr("atesd_env.student.adapters.MOST_ZEROS", 0)
    few, many = _launches(2), _launches(4)
    layer = [(more - less) / 2 for less, more in zip(few, many, strict=True)]
    assert layer == [STEP_LAUNCHES, FORWARD_LAUNCHES, BACKWARD_LAUNCHES, STEP_LAUNCHES]
    assert few[3] - 2 * STEP_LAUNCHES == TOKEN_LAUNCHES


def test_greedy_accuracy_takes_its_batches():
    """Ten problems in batches of four, in every second window of five: three batches, three times."""
    config = CONFIG.replace(windows=5)
    without = time_plan(config, SHAPE, device(), LENGTHS).probe_sec
    measured = time_plan(config.replace(probe_accuracy_every=2), SHAPE, device(), LENGTHS).probe_sec
    assert measured - without == pytest.approx(9 * decode_sec(4, LENGTHS, SHAPE, device(), 2))


def test_evaluations():
    """92% of the memory less the base, by 1.0375 times a sample's cache of 320 bytes a token."""
    assert evaluation_batch(SHAPE, device(), 100, 2, base_bytes=2400.0) == math.floor(
        (0.92e6 - 2400) / (1.0375 * 32_000)
    )
    assert evaluation_batch(SHAPE, device(), 1000, 2, base_bytes=0.95e6) == 0
    batch_sec = PROMPTS_SEC + 50 * STEP_SEC
    assert evaluation_hours(SHAPE, device(), 10, 4, LENGTHS, 2) == pytest.approx(3 * batch_sec / 3600)


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
