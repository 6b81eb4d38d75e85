"""What a run needs in memory, part by part, before anything is loaded. Pure functions of a configuration and a model's sizes.

Every term counts tensors that the code of this package holds at the same time (``forward.py``, ``operations.py``,
``decoding.py``, ``chunked.py``, ``scoring.py``); ``python -m benchmarks.plan_against_measured`` holds the sum against measured
peaks. What an allocator wastes, and a GPU's own context, is not in the parts: see ``DEVICE_RESERVE``.

Notation as in ``ModelShape``: N tokens, D hidden size, H query and G key-value heads of d, I MLP width, V vocabulary, r rank.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from atesd_env.config import EnvConfig
from atesd_env.errors import ConfigError
from atesd_env.planning.shape import ModelShape
from atesd_env.planning.terms import (
    FLOAT_BYTES,
    SAMPLING_BYTES,
    base_bytes,
    cache_bytes,
    cache_copies,
    divergence_bytes,
    forward_bytes,
    joined_adapters,
    layer_parameters,
    saved_bytes,
    waiting_bytes,
)
from atesd_env.rollouts.scoring import LOG_PROB_CHUNK

DEVICE_RESERVE = 0.08
"""Share of a device's memory that the plan leaves free: its context, libraries' workspaces, fragmentation. Assumed."""


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
    num_processes: int = 1,
    is_mapped: bool = False,
) -> MemoryPlan:
    """Returns what a population of K students needs on one device.

    Args:
        config: The environment's.
        shape: The base model's sizes.
        lengths: Tokens of rows; None takes the longest that ``config`` allows.
        num_students: K.
        num_processes: Processes that share the run's rows, each on a device of its own.
        is_mapped: On a CPU a weights' file of the same number format stays mapped, since the embedding is used in place,
            beside the copy of the layers that lies as the forward pass wants it; the kernel counts both as resident.
    """
    lengths = lengths or Lengths.worst(config)
    fixed = _fixed_parts(config, shape, num_students, num_processes, is_mapped)
    phases = _phases(share_of_process(config, num_processes), shape, lengths, num_students)
    if num_students > 1 and num_processes == 1 and not (runs_in_modules(config) or _has_teacher(config)):
        # Where all students meet the same problems, they share the teacher's passes.
        width, scored = _number_bytes(config), num_students * config.num_rollouts * lengths.completion
        columns = lengths.teacher_prompt + lengths.completion - 1
        activations = forward_bytes(num_students * config.num_rollouts, columns, shape, width)
        waiting = {"students' hidden states": waiting_bytes(scored, shape, width)}
        phases["teacher"] = {"activations": activations, **waiting}
        phases["student"] |= waiting
    if config.rollout_engine != "own":
        del phases["prompts"], phases["decoding"]
    if config.rollout_engine == "vllm":
        engine_cache = config.engine_cache_gib * 2**30
        engine = {"vLLM's weights": shape.num_parameters * _number_bytes(config), "vLLM's cache": engine_cache}
        if config.engine_sleep:
            phases["rollouts"] = engine
        else:
            fixed |= engine
    return MemoryPlan(_whole(fixed), {name: _whole(parts) for name, parts in phases.items()})


def _fixed_parts(
    config: EnvConfig, shape: ModelShape, num_students: int, num_processes: int, is_mapped: bool
) -> dict[str, float]:
    """Returns what stays from the first window to the last, by part."""
    width = _number_bytes(config)
    adapter = num_students * shape.num_adapter_parameters * FLOAT_BYTES
    fixed: dict[str, float] = {
        **base_bytes(shape, width, config.base_quantization),
        "adapters": adapter * (3 if _has_teacher(config) else 2),  # values, gradients, the teacher's
        "optimizer": adapter * 2,  # AdamW's two averages
    }
    if is_mapped and not runs_in_modules(config):
        fixed["weights' file, mapped"] = layer_parameters(shape) * width
    return fixed


def _phases(config: EnvConfig, shape: ModelShape, lengths: Lengths, num_students: int) -> dict[str, dict[str, float]]:
    """Returns what each phase of a window needs beside it, by part, with our own rollouts."""
    width = _number_bytes(config)
    in_modules = runs_in_modules(config)
    num_rows = min(config.micro_batch_size or config.num_rollouts, config.num_rollouts)
    scored = num_rows * lengths.completion
    student_tokens = num_rows * (lengths.student_prompt + lengths.completion - 1)
    teacher_columns = lengths.teacher_prompt + lengths.completion - 1
    probe_rows = min(config.probe_batch_size, config.probe_size)
    probe_columns = lengths.teacher_prompt + lengths.reference - 1
    rollouts = num_students * config.num_rollouts
    cache = cache_bytes(shape, rollouts, lengths.student_prompt + config.max_new_tokens, width)
    joined = 0 if in_modules else joined_adapters(shape) * width
    sampling = {"adapters laid together": num_students * joined}
    merged = layer_parameters(shape) * width if config.lora_merge and not in_modules and width == FLOAT_BYTES else 0
    if merged and (num_students == 1 or merged > num_students * joined):
        # A single one of several samples by itself too: where all are alike, on the probe, when the others have ended.
        sampling = {"layers with adapters added": merged}
    return {
        "prompts": {
            "key-value cache": cache,
            "activations": forward_bytes(rollouts, lengths.student_prompt, shape, width),
            **sampling,
        },
        "decoding": {
            "key-value cache": cache * (1 if rollouts == 1 else cache_copies(shape)),
            **sampling,
            "logits": rollouts * shape.vocabulary_size * SAMPLING_BYTES,
        },
        "teacher": {"activations": forward_bytes(num_rows, teacher_columns, shape, width)},
        "student": {
            "activations": saved_bytes(
                student_tokens,
                scored,
                shape,
                width,
                recompute=config.gradient_checkpointing,
                in_modules=in_modules,
            ),
            "adapters laid together": joined,
            "adapters in 16 bits": shape.num_adapter_parameters * width if in_modules and width == 2 else 0,
            "hidden states": 3 * scored * shape.hidden_size * width,  # student's, its gradient, teacher's
            "divergence chunk": divergence_bytes(scored, shape, config.divergence_chunk, width),
        },
        "probe": {
            "activations": forward_bytes(probe_rows, probe_columns, shape, width),
            "logits": 3 * LOG_PROB_CHUNK * shape.vocabulary_size * FLOAT_BYTES,
        },
    }


def _has_teacher(config: EnvConfig) -> bool:
    """Whether teachers have adapters of their own."""
    return config.teacher == "ema" or config.adapter is not None


def _number_bytes(config: EnvConfig) -> int:
    return 2 if config.dtype == "bfloat16" else FLOAT_BYTES


def _whole(parts: Mapping[str, float]) -> dict[str, int]:
    return {part: int(size) for part, size in parts.items() if size > 0}


def runs_in_modules(config: EnvConfig) -> bool:
    """Whether the student runs through transformers' modules, not through the written-out forward pass."""
    return config.forward == "modules" or config.base_quantization != "none"


def share_of_process(config: EnvConfig, num_processes: int) -> EnvConfig:
    """Returns what the first of several processes does of a run: its share of the rollouts and of the probe.

    Raises:
        ConfigError: If there are more processes than rollouts.
    """
    if not 1 <= num_processes <= config.num_rollouts:
        raise ConfigError(
            f"processes: expected 1 to {config.num_rollouts} (num_rollouts), got {num_processes}; start as many as share the "
            "rollouts."
        )
    return config.replace(
        num_rollouts=math.ceil(config.num_rollouts / num_processes),
        probe_size=math.ceil(config.probe_size / num_processes),
    )


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
    config: EnvConfig,
    shape: ModelShape,
    device_bytes: float,
    lengths: Lengths | None = None,
    num_students: int = 1,
    num_processes: int = 1,
) -> tuple[list[Remedy], bool]:
    """Returns what to change until a run fits, and whether it fits then.

    What leaves the student's numbers as they are (up to rounding) comes first, what changes the experiment last.
    """
    found: list[Remedy] = []
    plan = memory_plan(config, shape, lengths, num_students, num_processes=num_processes)
    while not plan.fits(device_bytes):
        for changes in _candidates(config, num_processes):
            changed = config.replace(**changes)
            cut = lengths if lengths is None else _cut(lengths, changed)
            better = memory_plan(changed, shape, cut, num_students, num_processes=num_processes)
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


def _candidates(config: EnvConfig, num_processes: int) -> Iterator[dict[str, Any]]:
    if not config.gradient_checkpointing:
        yield {"gradient_checkpointing": True}
    rows = min(config.micro_batch_size or config.num_rollouts, math.ceil(config.num_rollouts / num_processes))
    if rows > 1:
        yield {"micro_batch_size": rows // 2}
    if config.probe_batch_size > 1:
        yield {"probe_batch_size": config.probe_batch_size // 2}
    if config.divergence_chunk > 16:
        yield {"divergence_chunk": config.divergence_chunk // 2}
    if config.dtype != "bfloat16":
        yield {"dtype": "bfloat16"}
    if config.base_quantization == "none":
        yield {"base_quantization": "nf4"}
    if config.max_prompt_tokens > 1024:
        yield {"max_prompt_tokens": config.max_prompt_tokens // 2}
    if config.num_rollouts // 2 >= num_processes:
        yield {"num_rollouts": config.num_rollouts // 2}
