"""How many tokens a run samples and trains, and about how long that takes on a device. Pure functions.

Tokens are exact for given lengths. Hours are an estimate by arithmetic: products at a share of the device's matrix rate, decoding
steps by what they read from memory or by what it costs to start their operations, whichever is longer. The shares are assumed,
not measured on the devices named here: expect a factor of two either way, and measure two windows before you plan a week.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from atesd_env.config import EnvConfig
from atesd_env.errors import ConfigError, did_you_mean
from atesd_env.planning.memory import DEVICE_RESERVE, Lengths
from atesd_env.planning.shape import ModelShape
from atesd_env.planning.terms import CACHE_COPIES, cache_bytes

MATRIX_SHARE = 0.35
"""Share of the matrix rate that forward and backward passes reach. Assumed."""
MEMORY_SHARE = 0.6
"""Share of the memory's rate that a decoding step reaches. Assumed."""
LAYER_STEP_SEC = 0.0003
"""Least time of one layer in a decoding step: about 30 operations are started one after the other. Assumed."""


@dataclass(frozen=True)
class Device:
    """A GPU, as its data sheet has it.

    Attributes:
        memory_bytes: Its memory.
        matrix_rate: bfloat16 matrix products, dense, in floating-point operations a second.
        memory_rate: Bytes a second.
    """

    memory_bytes: float
    matrix_rate: float
    memory_rate: float


_GIGA = 1e9
DEVICES = {
    "RTX3090-24GB": Device(24 * 2**30, 71e12, 936 * _GIGA),
    "RTX4090-24GB": Device(24 * 2**30, 165e12, 1008 * _GIGA),
    "L40S-48GB": Device(48 * _GIGA, 362e12, 864 * _GIGA),
    "A100-40GB": Device(40 * 2**30, 312e12, 1555 * _GIGA),
    "A100-80GB": Device(80 * _GIGA, 312e12, 2039 * _GIGA),
    "H100-80GB": Device(80 * _GIGA, 989e12, 3350 * _GIGA),
    "H200-141GB": Device(141 * _GIGA, 989e12, 4800 * _GIGA),
    "B200-180GB": Device(180 * _GIGA, 2250e12, 7700 * _GIGA),
}
"""By name; figures of the makers' data sheets."""


def parse_gpus(text: str) -> tuple[int, str, Device]:
    """Returns (how many, name, device) of such as "H100-80GB" or "4xA100-40GB".

    Raises:
        ConfigError: If there is no such device.

    >>> parse_gpus("2xh100-80gb")[:2]
    (2, 'H100-80GB')
    """
    number, cross, name = text.partition("x")
    if not (cross and number.isdecimal() and int(number) > 0):
        number, name = "1", text
    by_lower = {known.lower(): known for known in DEVICES}
    if name.lower() not in by_lower:
        hint = did_you_mean(name, DEVICES, f"the devices are {', '.join(DEVICES)}.")
        raise ConfigError(f"gpus: expected [NUMBERx]DEVICE, got {text!r}; {hint}")
    return int(number), by_lower[name.lower()], DEVICES[by_lower[name.lower()]]


@dataclass(frozen=True)
class TokenPlan:
    """Tokens of a run.

    Attributes:
        sampled: By the student in training.
        trained: Prompt and rollout tokens through the student's forward and backward pass.
        scored: Prompt and rollout tokens through the teacher.
        probed: Prompt and reference tokens through student and teacher for the probe.
    """

    sampled: int
    trained: int
    scored: int
    probed: int


def token_plan(config: EnvConfig, lengths: Lengths) -> TokenPlan:
    """Returns the tokens of one run; greedy accuracy and pass@k of the probe are not counted."""
    rows = config.windows * config.hold_window * config.num_rollouts
    probe_rows = config.probe_size * config.windows
    return TokenPlan(
        sampled=rows * lengths.completion,
        trained=rows * (lengths.student_prompt + lengths.completion),
        scored=rows * (lengths.teacher_prompt + lengths.completion),
        probed=probe_rows * (lengths.student_prompt + lengths.teacher_prompt + 2 * lengths.reference),
    )


@dataclass(frozen=True)
class TimePlan:
    """Seconds of one run, or of one evaluation, by what takes them."""

    rollout_sec: float
    update_sec: float
    probe_sec: float

    @property
    def total_sec(self) -> float:
        """All together."""
        return self.rollout_sec + self.update_sec + self.probe_sec


def time_plan(config: EnvConfig, shape: ModelShape, device: Device, lengths: Lengths) -> TimePlan:
    """Returns about how long one run takes on one device; greedy accuracy of the probe is counted with its rollouts.

    Args:
        config: The environment's.
        shape: The base model's sizes.
        device: Where it runs.
        lengths: Tokens of rows; rollouts go on until the longest has ended, so completion should be near it.
    """
    updates = config.windows * config.hold_window
    width = 2 if config.dtype == "bfloat16" else 4
    tokens = token_plan(config, lengths)
    rate = MATRIX_SHARE * device.matrix_rate / (1 if width == 2 else 2)
    forward = 2.0 * shape.num_matrix_parameters / rate  # seconds a token
    # The frozen base needs gradients of inputs only: as much as the forward pass, which checkpointing makes twice.
    student = forward * (3 if config.gradient_checkpointing else 2)
    rollout = decode_sec(config.num_rollouts, lengths, shape, device, width) * updates
    num_accuracies = 0
    if config.probe_accuracy_every:
        num_accuracies = math.ceil(config.windows / config.probe_accuracy_every)
    batches = math.ceil(config.probe_size / config.probe_batch_size)
    accuracy = decode_sec(config.probe_batch_size, lengths, shape, device, width) * batches * num_accuracies
    return TimePlan(
        rollout_sec=rollout,
        update_sec=tokens.trained * student + tokens.scored * forward,
        probe_sec=tokens.probed * forward + accuracy,
    )


def decode_sec(num_rows: int, lengths: Lengths, shape: ModelShape, device: Device, width: int) -> float:
    """Returns about how long one batch of ``num_rows`` answers takes: its prompts, then a step for each token."""
    rate = MATRIX_SHARE * device.matrix_rate / (1 if width == 2 else 2)
    prompts = 2.0 * shape.num_matrix_parameters * num_rows * lengths.student_prompt / rate
    mean_columns = lengths.student_prompt + lengths.completion // 2
    read = shape.num_matrix_parameters * width + cache_bytes(shape, num_rows, mean_columns, width)
    arithmetic = 2.0 * shape.num_matrix_parameters * num_rows / rate
    step = max(read / (MEMORY_SHARE * device.memory_rate), arithmetic, LAYER_STEP_SEC * shape.num_layers)
    return prompts + lengths.completion * step


def evaluation_batch(shape: ModelShape, device: Device, num_columns: int, width: int, base_bytes: float) -> int:
    """Returns how many samples of ``num_columns`` tokens (prompt and budget) fit a device beside the weights; 0 is none.

    Rows that go on are copied when others have ended, so the cache counts ``CACHE_COPIES`` times.
    """
    free = (1.0 - DEVICE_RESERVE) * device.memory_bytes - base_bytes
    return max(0, int(free / (CACHE_COPIES * cache_bytes(shape, 1, num_columns, width))))


def evaluation_hours(
    shape: ModelShape, device: Device, num_samples: int, batch: int, lengths: Lengths, width: int
) -> float:
    """Returns about how long ``num_samples`` answers take in batches, each as long as ``lengths.completion``."""
    return math.ceil(num_samples / batch) * decode_sec(batch, lengths, shape, device, width) / 3600
