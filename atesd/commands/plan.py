"""``atesd plan``: what a run needs in memory and time before anything is downloaded, and what to change if it does not fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated

import tyro

from atesd.commands import shared
from atesd.commands.environment import parse_with
from atesd.console import say
from atesd_env.config import EnvConfig, preset_of
from atesd_env.errors import ConfigError

if TYPE_CHECKING:
    from atesd_env.planning.devices import Device
    from atesd_env.planning.memory import Lengths, MemoryPlan
    from atesd_env.planning.shape import ModelShape

_CONTEST_PROBLEMS = 90  # AIME 2024, AIME 2025, HMMT February 2025
_CONTEST_SAMPLES = 12


@dataclass(frozen=True)
class Command:
    """Show what a run needs: memory by part, tokens, hours; and what to change when it does not fit the device.

    Nothing is loaded or downloaded. Memory is checked against measured peaks (benchmarks/plan_against_measured.py); hours are
    arithmetic on data sheets. Every field of the environment's configuration is a flag, such as --num-rollouts; its default
    is the chosen environment's.
    """

    env: Annotated[str, tyro.conf.Positional] = shared.DEFAULT_ENV
    """Environment id."""
    gpus: str | None = None
    """[NUMBERx]DEVICE, such as 4xA100-80GB; None plans the memory of a CPU's process. Runs are shared out to the devices."""
    runs: int = 1
    """Runs (agents x seeds) that are wanted."""
    students: int = 1
    """Students that share one base."""
    processes: int = 1
    """Processes that share the rollouts of one run (torchrun), each on a device of its own."""
    student_prompt: int | None = None
    """Tokens of the longest problem-only prompt; None takes max_prompt_tokens, the worst case."""
    teacher_prompt: int | None = None
    """Tokens of a prompt with the solution; None takes max_prompt_tokens, the worst case."""
    completion: int | None = None
    """Tokens of a rollout; None takes max_new_tokens, the worst case."""
    answer: int = 15_000
    """Tokens of a contest answer, the longest of a batch, for the hours of an evaluation. Assumed."""
    config: Annotated[EnvConfig, tyro.conf.arg(name="")] = field(
        default_factory=partial(preset_of, EnvConfig, shared.DEFAULT_ENV)
    )
    """The environment's configuration."""


def main(arguments: Sequence[str]) -> None:
    """``atesd plan``."""
    env = arguments[0] if arguments and not arguments[0].startswith("-") else shared.DEFAULT_ENV
    command = parse_with(Command, arguments, "atesd plan", env, preset_of(EnvConfig, env))
    if command.env != env:  # it stood behind an option
        command = parse_with(Command, arguments, "atesd plan", command.env, preset_of(EnvConfig, command.env))
    if min(command.runs, command.students, command.processes, command.answer) < 1:
        raise ConfigError(
            f"plan: expected runs, students, processes and answer of at least 1, got {command.runs}, {command.students}, "
            f"{command.processes} and {command.answer}; pass whole numbers from 1."
        )

    # Heavy imports only now, so that --help is quick.
    from atesd_env.planning.devices import parse_gpus
    from atesd_env.planning.hours import token_plan
    from atesd_env.planning.memory import memory_plan
    from atesd_env.planning.shape import student_shape

    config = command.config
    shape = student_shape(config.student, config.lora_r, config.lora_targets)
    lengths = _lengths(command)
    number, name, device = (command.processes, "cpu", None) if command.gpus is None else parse_gpus(command.gpus)
    if number < command.processes:
        raise ConfigError(
            f"gpus: expected at least {command.processes}, one for each of --processes, got {command.gpus}; name more."
        )
    memory = memory_plan(
        config,
        shape,
        lengths,
        command.students,
        num_processes=command.processes,
        is_mapped=device is None and config.dtype == "float32",
    )
    say(
        f"{config.student}: {shape.num_parameters:,} parameters, {shape.num_adapter_parameters:,} in an adapter; prompts of "
        f"{lengths.student_prompt} and {lengths.teacher_prompt} tokens, rollouts of {lengths.completion}"
    )
    _print_memory(memory, device, name)
    tokens = token_plan(config, lengths)
    say(
        f"tokens of a run of {config.windows * config.hold_window} updates: {tokens.sampled:,} sampled, {tokens.trained:,} "
        f"trained, {tokens.scored:,} scored by the teacher, {tokens.probed_student + tokens.probed_teacher:,} of the probe"
    )
    if device is None:
        say("hours: pass --gpus; on a CPU, time two windows (atesd run --windows 2).")
        return
    _print_hours(command, shape, device, lengths, number, name)
    if not memory.fits(device.memory_bytes):
        _print_remedies(command, shape, device, lengths)


def _lengths(command: Command) -> Lengths:
    from atesd_env.planning.memory import Lengths

    worst = Lengths.worst(command.config)
    return Lengths(
        student_prompt=command.student_prompt or worst.student_prompt,
        teacher_prompt=command.teacher_prompt or worst.teacher_prompt,
        completion=command.completion or worst.completion,
        reference=worst.reference,
    )


def _print_memory(memory: MemoryPlan, device: Device | None, name: str) -> None:
    from atesd_env.planning.memory import DEVICE_RESERVE

    title = "memory of one device by part (GB = 10^9 bytes, MB = 10^6)"
    table = shared.table_of(title, ("when", "part", "size"), num_left=2)
    for part, size in memory.fixed.items():
        table.add_row("always", part, _size(size))
    for phase, parts in memory.phases.items():
        for part, size in parts.items():
            table.add_row(f"{phase}{' (most)' if phase == memory.peak_phase else ''}", part, _size(size))
    table.add_row("peak", f"always + {memory.peak_phase}", _size(memory.peak))
    shared.show(table, width=100)
    if device is not None:
        verdict = "fits" if memory.fits(device.memory_bytes) else "does not fit"
        say(
            f"{_size(memory.peak)} {verdict} one {name} ({_size(device.memory_bytes)}, of which "
            f"{DEVICE_RESERVE:.0%} are left free for the device's context and fragmentation)"
        )


def _print_hours(command: Command, shape: ModelShape, device: Device, lengths: Lengths, number: int, name: str) -> None:
    import dataclasses

    from atesd_env.evaluation.evaluator import CONTEST_PROMPT_TOKENS
    from atesd_env.evaluation.sampling_presets import CONTEST_TOKENS
    from atesd_env.planning.hours import evaluation_batch, evaluation_hours, time_plan
    from atesd_env.planning.memory import share_of_process
    from atesd_env.planning.terms import base_bytes

    config = command.config
    hours = time_plan(share_of_process(config, command.processes), shape, device, lengths)
    rounds = math.ceil(command.runs / (number // command.processes))
    devices = f"{command.processes} {name}" if command.processes > 1 else f"one {name}"
    say(
        f"hours of a run on {devices}: {hours.total_sec / 3600:.2f} (rollouts {hours.rollout_sec / 3600:.2f}, updates "
        f"{hours.update_sec / 3600:.2f}, probe {hours.probe_sec / 3600:.2f}); {command.runs} runs on {number}: "
        f"{rounds * hours.total_sec / 3600:.2f}"
    )
    not_counted = [
        *(["rollouts by the own decode loop"] if config.rollout_engine != "own" else []),
        *(["what the processes send each other left out"] if command.processes > 1 else []),
        *(["unpacking the 4-bit weights left out"] if config.base_quantization != "none" else []),
    ]
    if not_counted:
        say(f"counted here with {', '.join(not_counted)}.")
    width = 2 if config.dtype == "bfloat16" else 4
    base = sum(base_bytes(shape, width, quantization=config.base_quantization).values())
    batch = evaluation_batch(shape, device, CONTEST_PROMPT_TOKENS + CONTEST_TOKENS, width, base)
    if batch == 0:
        say("evaluation: no contest answer of 38,912 tokens fits beside the weights; lower --sampling-tokens.")
    else:
        answers = dataclasses.replace(
            lengths, student_prompt=min(lengths.student_prompt, 256), completion=command.answer
        )
        samples = _CONTEST_PROBLEMS * _CONTEST_SAMPLES
        of_contests = evaluation_hours(shape, device, samples, batch, answers, width)
        say(
            f"evaluation of one adapter on the three contests ({samples} samples, batches as long as {command.answer:,} "
            f"tokens): at most --batch {batch}, about {of_contests:.1f} hours"
        )
    say(
        "hours are estimated from data sheets with assumed efficiencies, not measured: expect a factor of two either way."
    )


def _print_remedies(command: Command, shape: ModelShape, device: Device, lengths: Lengths) -> None:
    from atesd_env.planning.memory import remedies

    found, has_found_a_way = remedies(
        command.config, shape, device.memory_bytes, lengths, command.students, command.processes
    )
    say("to make it fit, in this order:")
    for remedy in found:
        flags = " ".join(
            f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
            for name, value in remedy.changes.items()
        )
        say(f"  {flags:40} -> {_size(remedy.peak)}")
    if not has_found_a_way:
        say("  which is not enough: a larger device, or more --processes.")


def _size(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
