"""Tables of the page about paper scale: what the presets need, how the plan compares with measured peaks, seeds that are needed."""

from __future__ import annotations

import dataclasses
import json
import math

from analysis.intervals import num_seeds_for
from atesd_env.config import preset
from atesd_env.evaluation.evaluator import CONTEST_PROMPT_TOKENS
from atesd_env.evaluation.sampling_presets import CONTEST_TOKENS
from atesd_env.planning.devices import DEVICES
from atesd_env.planning.hours import evaluation_batch, evaluation_hours, time_plan
from atesd_env.planning.memory import Lengths, memory_plan
from atesd_env.planning.shape import student_shape
from docs.generator.markdown import markdown_table
from docs.generator.public_names import ROOT

TYPICAL = {"student_prompt": 300, "teacher_prompt": 3000}
"""Tokens of prompts that the page's hours are for."""

CONTEST_SAMPLES = 90 * 12
"""Of three contests."""

ANSWER_TOKENS = 15_000
"""Longest contest answer of a batch, assumed; the default of ``atesd plan --answer``."""

GAINS = (
    ("1.7B, mean of three", 0.95, 0.23, 3),
    ("4B, mean of three", 2.05, 1.04, 3),
    ("8B, mean of three", 2.33, 0.32, 3),
    ("1.7B, AIME24", 1.97, 0.80, 1),
    ("8B, AIME24", 2.76, 0.70, 1),
)
"""The paper's differences between ATESD and OPSD: (where, points, ATESD's standard deviation over seeds, contests)."""

SAMPLING_DEVIATION = 2.0
"""Points that 30 problems x 12 samples differ by from run to run because of sampling alone."""


def presets_table() -> str:
    """Returns memory and hours of the presets of Qwen3, by the plan."""
    large, older = DEVICES["H100-80GB"], DEVICES["A100-80GB"]
    rows = []
    for size in ("1.7B", "4B", "8B"):
        config = preset(f"ATESD-Qwen3-{size}-v0")
        shape = student_shape(config.student, config.lora_r, config.lora_targets)
        typical = dataclasses.replace(Lengths.worst(config), **TYPICAL)
        whole, short = memory_plan(config, shape), memory_plan(config, shape, typical)
        small = DEVICES["RTX4090-24GB"].memory_bytes
        fits = "yes" if whole.fits(small) else "with short prompts" if short.fits(small) else "no"
        base = whole.fixed["weights"]
        batch = evaluation_batch(shape, large, CONTEST_PROMPT_TOKENS + CONTEST_TOKENS, width=2, base_bytes=base)
        answers = dataclasses.replace(typical, student_prompt=256, completion=ANSWER_TOKENS)
        rows.append(
            (
                f"`ATESD-Qwen3-{size}-v0`",
                f"{shape.num_parameters / 1e9:.2f}e9",
                f"{shape.num_adapter_parameters / 1e9:.3f}e9",
                f"{whole.peak / 1e9:.1f} GB ({short.peak / 1e9:.1f})",
                fits,
                *(f"{time_plan(config, shape, device, typical).total_sec / 3600:.1f}" for device in (large, older)),
                f"`--batch {batch}`, {evaluation_hours(shape, large, CONTEST_SAMPLES, batch, answers, 2):.1f} h",
            )
        )
    headers = (
        *("preset", "parameters", "adapter", "memory at the longest prompts (at 300 and 3,000)", "fits 24 GB"),
        *("hours, H100-80GB", "hours, A100-80GB", "evaluation, H100-80GB"),
    )
    return markdown_table(headers, rows)


def measured_table() -> str:
    """Returns planned and measured peaks, as ``benchmarks.plan_against_measured`` wrote them."""
    result = json.loads((ROOT / "benchmarks" / "results" / "plan_against_measured.json").read_text())
    rows = [
        (
            name,
            case["peak_phase"],
            f"{case['planned_mebibytes']:,.0f}",
            f"{case['measured_mebibytes']:,.0f}",
            f"{case['planned_over_measured'] - 1:+.0%}",
            f"{case['measured_mebibytes_by_defaults']:,.0f}",
        )
        for name, case in result["cases"].items()
    ]
    headers = (
        "student",
        "phase of the peak",
        "planned, MiB",
        "measured, MiB",
        "off by",
        "with libraries' defaults, MiB",
    )
    source = f"`{result['command']}`, commit `{result['commit'][:7]}`, torch {result['torch']}."
    return f"{markdown_table(headers, rows)}\n\n{source}"


def seeds_table() -> str:
    """Returns the seeds that find the paper's differences with a probability of 80%."""
    rows = []
    for name, points, deviation, contests in GAINS:
        sampling = SAMPLING_DEVIATION / math.sqrt(contests)
        seeds = [num_seeds_for(points, math.sqrt(2) * one) for one in (deviation, sampling)]
        rows.append((name, f"{points:.2f}", *map(str, seeds)))
    headers = ("comparison", "difference, points", "seeds, the paper's deviation", "seeds, sampling alone")
    return markdown_table(headers, rows)
