"""What a run needs in memory, part by part, before anything is loaded. Pure functions of a configuration and a model's sizes.

Every term counts tensors that the code of this package holds at the same time (``forward.py``, ``operations.py``,
``decoding.py``, ``divergence.py``, ``probe.py``); ``python -m benchmarks.plan_against_measured`` holds the sum against measured
peaks. What an allocator wastes, and a GPU's own context, is not in the parts: see ``DEVICE_RESERVE``.

Notation as in ``ModelShape``: N tokens, D hidden size, H query and G key-value heads of d, I MLP width, V vocabulary, r rank.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from atesd_env.config import EnvConfig
from atesd_env.model_shape import ModelShape
from atesd_env.rollout import KEPT_SHARE

DEVICE_RESERVE = 0.08
"""Share of a device's memory that the plan leaves free: its context, libraries' workspaces, fragmentation. Assumed."""

_FLOAT = 4
_BLOCK_BYTES = 8 * 2**20  # of divergence.py
_LOG_PROB_CHUNK = 256  # of probe.py
_SAMPLING_BYTES = 40
"""Of one row's vocabulary while a token is sampled: logits, their filtered and sorted copies, the order (int64), sums."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of a row. Means are enough, except where it says longest.

    Attributes:
        student_prompt: The longest problem-only prompt of a batch: all rows' cache is as long as the longest needs.
        teacher_prompt: A prompt with the reference solution.
        completion: A rollout.
        reference: A probe problem's reference solution.
    """

    student_prompt: int
    teacher_prompt: int
    completion: int
    reference: int

    @staticmethod
    def worst(config: EnvConfig) -> Lengths:
        """Returns the lengths at which a configuration cuts."""
        return Lengths(
            config.max_prompt_tokens, config.max_prompt_tokens, config.max_new_tokens, config.probe_max_tokens
        )


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes.

    Attributes:
        fixed: What stays from the first window to the last, by part: weights, adapters, optimizer.
        phases: What each phase of a window needs beside it, by part; only one phase is in memory at a time.
    """

    fixed: Mapping[str, int]
    phases: Mapping[str, Mapping[str, int]]

    @property
    def peak_phase(self) -> str:
        """The phase that needs most."""
        return max(self.phases, key=lambda name: sum(self.phases[name].values()))

    @property
    def peak(self) -> int:
        """The most that is needed at one time."""
        return sum(self.fixed.values()) + sum(self.phases[self.peak_phase].values())

    def fits(self, device_bytes: float) -> bool:
        """Whether the peak leaves ``DEVICE_RESERVE`` of a device free."""
        return self.peak <= (1.0 - DEVICE_RESERVE) * device_bytes


def memory_plan(
    config: EnvConfig,
    shape: ModelShape,
    lengths: Lengths | None = None,
    num_students: int = 1,
    *,
    is_mapped: bool = False,
) -> MemoryPlan:
    """Returns what a population of K students needs.

    Args:
        config: The environment's.
        shape: The base model's sizes.
        lengths: Tokens of rows; None takes the longest that ``config`` allows.
        num_students: K.
        is_mapped: On a CPU a weights' file of the same number format stays mapped, since the embedding is used in place,
            beside the copy of the layers that lies as the forward pass wants it; the kernel counts both as resident.
    """
    lengths = lengths or Lengths.worst(config)
    width = 2 if config.dtype == "bfloat16" else _FLOAT
    adapter = num_students * shape.num_adapter_parameters * _FLOAT
    has_teacher = config.teacher == "ema" or config.adapter is not None
    fixed = {
        "weights": shape.num_parameters * width,
        "adapters": adapter * (3 if has_teacher else 2),  # values, gradients, the teacher's
        "optimizer": adapter * 2,  # AdamW's two averages
    }
    if is_mapped:
        in_layers = shape.num_matrix_parameters - shape.vocabulary_size * shape.hidden_size
        fixed["weights' file, mapped"] = in_layers * width
    num_rows = min(config.micro_batch_size or config.num_rollouts, config.num_rollouts)
    scored = num_rows * lengths.completion
    divergence = divergence_bytes(scored, shape, config.divergence_chunk, width)
    hidden_states = scored * shape.hidden_size * width
    student_tokens = num_rows * (lengths.student_prompt + lengths.completion - 1)
    teacher_tokens = num_rows * (lengths.teacher_prompt + lengths.completion - 1)
    probe_rows = min(config.probe_batch_size, config.probe_size)
    probe_tokens = probe_rows * (lengths.teacher_prompt + lengths.reference - 1)
    rollouts = num_students * config.num_rollouts
    cache = cache_bytes(shape, rollouts, lengths.student_prompt + config.max_new_tokens, width)
    phases: dict[str, dict[str, float]] = {
        "prompts": {
            "key-value cache": cache,
            "activations": forward_bytes(rollouts * lengths.student_prompt, shape, width),
            "adapters laid together": num_students * joined_adapter_bytes(shape),
        },
        "decoding": {
            # Rows that go on are copied when others have ended, keys before values.
            "key-value cache": cache * (1 if rollouts == 1 else 1 + KEPT_SHARE / 2),
            "adapters laid together": num_students * joined_adapter_bytes(shape),
            "logits": rollouts * shape.vocabulary_size * _SAMPLING_BYTES,
        },
        "teacher": {"activations": forward_bytes(teacher_tokens, shape, width)},
        "student": {
            "activations": saved_bytes(student_tokens, scored, shape, width, recompute=config.gradient_checkpointing),
            "adapters laid together": joined_adapter_bytes(shape),
            "hidden states": 3 * hidden_states,  # student's, its gradient, teacher's
            "divergence chunk": divergence,
        },
        "probe": {
            "activations": forward_bytes(probe_tokens, shape, width),
            "logits": 3 * _LOG_PROB_CHUNK * shape.vocabulary_size * _FLOAT,
        },
    }
    whole = {name: {part: int(size) for part, size in parts.items()} for name, parts in phases.items()}
    return MemoryPlan(fixed, whole)


def cache_bytes(shape: ModelShape, num_rows: int, num_columns: int, width: int) -> int:
    """Returns the bytes of keys and values of ``num_rows`` rows of ``num_columns`` tokens, ``width`` bytes a number."""
    return 2 * shape.num_layers * num_rows * num_columns * shape.key_value_size * width


def forward_bytes(num_tokens: int, shape: ModelShape, width: int) -> int:
    """Returns what one layer holds at once without gradients, which is the most that such a pass needs."""
    heads = shape.query_size + 2 * shape.key_value_size
    rotated = shape.query_size + shape.key_value_size
    in_attention = 2 * shape.hidden_size + 2 * heads + rotated + 2 * shape.query_size
    in_mlp = 3 * shape.hidden_size + heads + rotated + shape.query_size + 3 * shape.mlp_size
    return num_tokens * max(in_attention, in_mlp) * width


def saved_bytes(num_tokens: int, num_scored: int, shape: ModelShape, width: int, *, recompute: bool) -> int:
    """Returns what a forward pass keeps for its backward pass.

    Args:
        num_tokens: N, prompts and rollouts.
        num_scored: Tokens that the last layer's MLP sees.
        shape: The model's sizes.
        width: Bytes of a number of the base.
        recompute: Gradient checkpointing: each layer's input, and one layer whole while its gradient is made.
    """
    attention, mlp = _saved_by_layer(shape, width)
    whole = num_tokens * (shape.num_layers - 1) * (attention + mlp) + num_tokens * attention + num_scored * mlp
    if not recompute:
        return whole
    inputs = shape.num_layers * num_tokens * shape.hidden_size * width
    # The gradients of gate and up, of their product and of the layer's output, while the layer's own tensors are there.
    gradients = num_tokens * (5 * shape.mlp_size + 2 * shape.hidden_size) * width
    return min(whole, inputs + num_tokens * (attention + mlp) + gradients)


def _saved_by_layer(shape: ModelShape, width: int) -> tuple[int, int]:
    """Returns (attention's, MLP's) bytes of one token: what the norms, products, adapters and SwiGLU keep."""
    rotated = shape.query_size + shape.key_value_size
    heads = shape.query_size + 2 * shape.key_value_size
    in_attention = 2 * shape.hidden_size + (rotated if shape.has_head_norm else 0) + heads + 2 * shape.query_size
    in_mlp = 2 * shape.hidden_size + 4 * shape.mlp_size
    return in_attention * width + 4 * shape.lora_r * _FLOAT, in_mlp * width + 3 * shape.lora_r * _FLOAT


def joined_adapter_bytes(shape: ModelShape) -> int:
    """Returns the adapters of layers with the same input, laid side by side: query, key and value; gate and up."""
    heads = shape.query_size + 2 * shape.key_value_size
    in_and_out = (
        3 * (shape.hidden_size + heads)
        + (shape.query_size + shape.hidden_size)
        + 2 * (shape.hidden_size + 2 * shape.mlp_size)
        + (shape.mlp_size + shape.hidden_size)
    )
    return shape.num_layers * shape.lora_r * in_and_out * _FLOAT


def divergence_bytes(num_scored: int, shape: ModelShape, chunk_size: int, width: int) -> int:
    """Returns what the divergence of ``num_scored`` tokens holds at once: both models' logits of a chunk, and scratch."""
    rows_in_block = max(1, _BLOCK_BYTES // (shape.vocabulary_size * _FLOAT))
    chunk = max(1, min(num_scored, max(chunk_size, rows_in_block)))
    block = min(chunk, rows_in_block)
    return shape.vocabulary_size * (2 * chunk * width + 6 * block * _FLOAT)


@dataclass(frozen=True)
class Remedy:
    """A change of the configuration, and what it brings.

    Attributes:
        changes: Fields and their new values.
        peak: Peak with this and all remedies before it, in bytes.
    """

    changes: Mapping[str, Any]
    peak: int


def remedies(
    config: EnvConfig, shape: ModelShape, device_bytes: float, lengths: Lengths | None = None, num_students: int = 1
) -> tuple[list[Remedy], bool]:
    """Returns what to change until a run fits, and whether it fits then.

    What leaves the student's numbers as they are (up to rounding) comes first, what changes the experiment last.
    """
    found: list[Remedy] = []
    plan = memory_plan(config, shape, lengths, num_students)
    while not plan.fits(device_bytes):
        for changes in _candidates(config):
            changed = config.replace(**changes)
            cut = lengths if lengths is None else _cut(lengths, changed)
            better = memory_plan(changed, shape, cut, num_students)
            if better.peak < plan.peak:
                config, plan, lengths = changed, better, cut
                found.append(Remedy(changes, plan.peak))
                break
        else:
            break
    return found, plan.fits(device_bytes)


def _cut(lengths: Lengths, config: EnvConfig) -> Lengths:
    worst = Lengths.worst(config)
    names = [field.name for field in dataclasses.fields(Lengths)]
    return Lengths(**{name: min(getattr(lengths, name), getattr(worst, name)) for name in names})


def _candidates(config: EnvConfig) -> Iterator[dict[str, Any]]:
    if not config.gradient_checkpointing:
        yield {"gradient_checkpointing": True}
    rows = config.micro_batch_size or config.num_rollouts
    if rows > 1:
        yield {"micro_batch_size": rows // 2}
    if config.probe_batch_size > 1:
        yield {"probe_batch_size": config.probe_batch_size // 2}
    if config.divergence_chunk > 16:
        yield {"divergence_chunk": config.divergence_chunk // 2}
    if config.dtype != "bfloat16":
        yield {"dtype": "bfloat16"}
    if config.max_prompt_tokens > 1024:
        yield {"max_prompt_tokens": config.max_prompt_tokens // 2}
    if config.num_rollouts > 1:
        yield {"num_rollouts": config.num_rollouts // 2}
