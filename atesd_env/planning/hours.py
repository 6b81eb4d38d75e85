"""How many tokens a run samples and trains, and about how long that takes on a device. Pure functions.

Tokens are exact for given lengths. Hours are an estimate by arithmetic, with M the base's weights that every token is multiplied
with and A the adapters' numbers as they are multiplied, laid together (``terms.joined_adapters``):

- forward pass, without adapters: 2 M operations a token; with them 2 (M + A);
- backward pass: 2 M for the inputs' gradients (the base is frozen), 4 A for the adapters' inputs and the adapters; with gradient
  checkpointing another forward pass;
- decoding step of R rows: the longest of reading (weights, adapters and the rows' cache once, and what sampling holds of R
  vocabularies, written and read), of 2 (M + A) R operations, and of starting its kernels;
- a pass takes no less than its kernels take to start, layer by layer.

Left out: attention's scores, the divergence's kernels, the optimizer, tokenizing and judging. Kernels are counted, on a CPU; the
shares of a device's rates and the time to start a kernel are assumed, and no hour was measured on the devices named here: expect a
factor of two either way, and measure two windows before you plan a week.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from atesd_env.config import EnvConfig
from atesd_env.planning.devices import Device
from atesd_env.planning.memory import DEVICE_RESERVE, Lengths
from atesd_env.planning.shape import ModelShape
from atesd_env.planning.terms import SAMPLING_BYTES, cache_bytes, cache_copies, joined_adapters, token_bytes
from atesd_env.rollouts.passes import fitting_tokens

MATRIX_SHARE = 0.35
"""Share of the matrix rate that forward and backward passes reach. Assumed."""
MEMORY_SHARE = 0.6
"""Share of the memory's rate that a decoding step reaches. Assumed."""
LAUNCH_SEC = 7e-6
"""Least time of one kernel, one after the other. Assumed."""
STEP_LAUNCHES = 48
"""Kernels of one layer in a decoding step. Counted on a CPU, like the next three, with layers and adapters as wide as the presets'
(``MOST_ZEROS``); a GPU has fewer for a norm."""
FORWARD_LAUNCHES = 80
"""Kernels of one layer in a forward pass with adapters on a 16-bit base."""
BACKWARD_LAUNCHES = 121
"""Kernels of one layer in its backward pass."""
TOKEN_LAUNCHES = 40
"""Kernels of a decoding step outside the layers: embedding, norm, logits, sampling."""


@dataclass(frozen=True)
class TokenPlan:
    """Tokens of a run.

    Attributes:
        sampled: By the student in training.
        trained: Prompt and rollout tokens through the student's forward and backward pass.
        scored: Prompt and rollout tokens through the teacher.
        probed_student: Prompt and reference tokens through the student for the probe.
        probed_teacher: Likewise through the teacher.
    """

    sampled: int
    trained: int
    scored: int
    probed_student: int
    probed_teacher: int


def token_plan(config: EnvConfig, lengths: Lengths) -> TokenPlan:
    """Returns the tokens of one run; greedy accuracy and pass@k of the probe are not counted."""
    rows = config.windows * config.hold_window * config.num_rollouts
    probe_rows = config.probe_size * config.windows
    return TokenPlan(
        sampled=rows * lengths.completion,
        trained=rows * (lengths.student_prompt + lengths.completion),
        scored=rows * (lengths.teacher_prompt + lengths.completion),
        probed_student=probe_rows * (lengths.student_prompt + lengths.reference),
        probed_teacher=probe_rows * (lengths.teacher_prompt + lengths.reference),
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
    bare, adapted = (_forward_sec(shape, device, width, is_adapted=is_adapted) for is_adapted in (False, True))
    teacher = adapted if config.teacher == "ema" or config.adapter is not None else bare
    backward = bare + 2 * (adapted - bare)
    passes = 2 if config.gradient_checkpointing else 1  # the student's, forward
    # One forward pass of the teacher beside the student's.
    layers = (1 + passes) * FORWARD_LAUNCHES + BACKWARD_LAUNCHES
    batches = updates * math.ceil(config.num_rollouts / (config.micro_batch_size or config.num_rollouts))
    update = tokens.trained * (passes * adapted + backward) + tokens.scored * teacher
    probe_batches = math.ceil(config.probe_size / config.probe_batch_size)
    probed = tokens.probed_student * adapted + tokens.probed_teacher * teacher
    num_accuracies = math.ceil(config.windows / config.probe_accuracy_every) if config.probe_accuracy_every else 0
    accuracy = decode_sec(config.probe_batch_size, lengths, shape, device, width) * probe_batches * num_accuracies
    return TimePlan(
        rollout_sec=decode_sec(config.num_rollouts, lengths, shape, device, width) * updates,
        update_sec=max(update, batches * layers * shape.num_layers * LAUNCH_SEC),
        probe_sec=max(probed, config.windows * probe_batches * 2 * FORWARD_LAUNCHES * shape.num_layers * LAUNCH_SEC)
        + accuracy,
    )


def _forward_sec(shape: ModelShape, device: Device, width: int, *, is_adapted: bool) -> float:
    """Returns the seconds that a token's products take in a forward pass, two operations a number."""
    rate = MATRIX_SHARE * device.matrix_rate / (1 if width == 2 else 2)
    return 2.0 * (shape.num_matrix_parameters + (joined_adapters(shape) if is_adapted else 0)) / rate


def decode_sec(num_rows: int, lengths: Lengths, shape: ModelShape, device: Device, width: int) -> float:
    """Returns about how long one batch of ``num_rows`` answers takes: its prompts, then a step for each token."""
    forward = _forward_sec(shape, device, width, is_adapted=True)
    num_parts = math.ceil(num_rows / max(1, fitting_tokens(token_bytes(shape, width)) // lengths.student_prompt))
    launches = num_parts * FORWARD_LAUNCHES * shape.num_layers * LAUNCH_SEC
    prompts = max(forward * num_rows * lengths.student_prompt, launches)
    mean_columns = lengths.student_prompt + lengths.completion // 2
    weights = (shape.num_matrix_parameters + joined_adapters(shape)) * width
    sampled = 2 * num_rows * shape.vocabulary_size * SAMPLING_BYTES
    read = weights + cache_bytes(shape, num_rows, mean_columns, width) + sampled
    step_launches = STEP_LAUNCHES * shape.num_layers + TOKEN_LAUNCHES
    step = max(read / (MEMORY_SHARE * device.memory_rate), forward * num_rows, LAUNCH_SEC * step_launches)
    return prompts + lengths.completion * step


def evaluation_batch(shape: ModelShape, device: Device, num_columns: int, width: int, base_bytes: float) -> int:
    """Returns how many samples of ``num_columns`` tokens (prompt and budget) fit a device beside the weights; 0 is none.

    Rows that go on are copied when others have ended, so the cache counts ``cache_copies`` times.
    """
    free = (1.0 - DEVICE_RESERVE) * device.memory_bytes - base_bytes
    return max(0, int(free / (cache_copies(shape) * cache_bytes(shape, 1, num_columns, width))))


def evaluation_hours(
    shape: ModelShape, device: Device, num_samples: int, batch: int, lengths: Lengths, width: int
) -> float:
    """Returns about how long ``num_samples`` answers take in batches, each as long as ``lengths.completion``."""
    return math.ceil(num_samples / batch) * decode_sec(batch, lengths, shape, device, width) / 3600
