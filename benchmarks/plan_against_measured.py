"""Memory that ``atesd plan`` predicts against measured peaks: Tiny, narrow Qwen3 models, SmolLM2; each in its own process.

A process imports everything and trains a very small student for one window, so that what libraries load at their first use is
not counted. Then its resident set is the baseline, the kernel's high-water mark is set back, the case is loaded and trained for
two windows, and the high-water mark less the baseline is the measured peak. The plan gets the lengths of prompts and rollouts
that were seen (the largest of any update), since a plan for the longest allowed would not be met by chance.

Each case runs twice: with an allocator that hands memory back as soon as it is free (glibc's, by environment variables) and without
the caches of oneDNN's compiled products, so that the resident set is what is in use, which is what a plan is about; and with both
libraries' defaults, which keep freed memory of small tensors, and in bfloat16 the code of every size of product that has been met, for
later, and so need more; by how much is reported too.

Linux only (/proc/self/clear_refs).

Example: OMP_NUM_THREADS=1 python -m benchmarks.plan_against_measured
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from atesd_env.config import EnvConfig, preset
from benchmarks.common import save

_SUMS = {"probe_accuracy_every": 0, "windows": 2}
_NARROW = {
    "student": "narrow",
    "lora_r": 16,
    "lora_alpha": 32.0,
    "num_rollouts": 16,
    "probe_size": 16,
    "probe_batch_size": 8,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "Tiny": ("ATESD-Tiny-v0", _SUMS),
    "Tiny, 64 rollouts": ("ATESD-Tiny-v0", {**_SUMS, "num_rollouts": 64}),
    "narrow Qwen3": ("ATESD-Tiny-v0", {**_SUMS, **_NARROW, "hold_window": 1}),
    "narrow Qwen3, checkpointed": (
        "ATESD-Tiny-v0",
        {**_SUMS, **_NARROW, "hold_window": 1, "num_rollouts": 64, "gradient_checkpointing": True},
    ),
    "narrow Qwen3, bfloat16": ("ATESD-Tiny-v0", {**_SUMS, **_NARROW, "hold_window": 1, "dtype": "bfloat16"}),
    "narrow Qwen3, bfloat16, many prompts": (
        "ATESD-Tiny-v0",
        {
            **_SUMS,
            **_NARROW,
            "hold_window": 1,
            "windows": 1,
            "dtype": "bfloat16",
            "num_rollouts": 256,
            "max_new_tokens": 4,
            "micro_batch_size": 32,
            "gradient_checkpointing": True,  # what is trained must need less than what reads the prompts
        },
    ),
    "narrow Qwen3, modules": ("ATESD-Tiny-v0", {**_SUMS, **_NARROW, "hold_window": 1, "forward": "modules"}),
    "narrow Qwen3, modules, bfloat16": (
        "ATESD-Tiny-v0",
        {**_SUMS, **_NARROW, "hold_window": 1, "forward": "modules", "dtype": "bfloat16"},
    ),
    "narrow Qwen3, wide vocabulary": (
        "ATESD-Tiny-v0",
        {**_SUMS, **_NARROW, "student": "narrow-151936", "hold_window": 1},
    ),
    "SmolLM2": ("ATESD-SmolLM2-135M-v0", {"windows": 2, "hold_window": 1}),
    "SmolLM2, checkpointed in halves": (
        "ATESD-SmolLM2-135M-v0",
        {"windows": 2, "hold_window": 1, "gradient_checkpointing": True, "micro_batch_size": 4},
    ),
}
"""Environment id and changed fields of each case."""
TOLERANCE = 0.15
HANDING_BACK = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_TOP_PAD_": "0",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "0",
    "LRU_CACHE_CAPACITY": "1",
}
"""glibc: tensors of 64 KiB and more are mapped one by one, and unmapped when they are freed. oneDNN, and PyTorch's layer above it:
compiled products are not kept (one, where none is not allowed)."""


def narrow_model(folder: Path, vocabulary_size: int | None) -> str:
    """Writes a Qwen3 of random weights (8 layers, 512 wide) with the packaged tokenizer; returns its directory."""
    import torch
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    from atesd_env.student.packaged import TINY_DIRECTORY

    tokenizer = AutoTokenizer.from_pretrained(TINY_DIRECTORY, trust_remote_code=False)
    sizes = Qwen3Config(
        vocab_size=vocabulary_size or len(tokenizer),
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        tie_word_embeddings=True,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    Qwen3ForCausalLM(sizes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def status_bytes(field: str) -> int:
    """Returns a line of /proc/self/status, such as VmRSS or VmHWM, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])


def measure(config: EnvConfig) -> dict[str, Any]:
    """Trains two windows; returns measured and planned bytes. To be called once in a process."""
    from atesd_env.planning.memory import Lengths, memory_plan
    from atesd_env.planning.shape import student_shape
    from atesd_env.population.population import Population

    smallest = {"num_rollouts": 1, "max_new_tokens": 1, "probe_size": 1, "hold_window": 1, "windows": 1}
    warm = Population(preset("ATESD-Tiny-v0", dtype=config.dtype, **smallest))
    warm.reset(0, 0)
    warm.window(np.ones((1, 1)))
    del warm
    shape = student_shape(config.student, config.lora_r, config.lora_targets)
    gc.collect()
    baseline = status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    population = Population(config)
    seen = {"student_prompt": 0, "teacher_prompt": 0, "completion": 0}
    update = population.learner.update

    def watched(index: int, rollouts: Any, teacher_prompts: Any, *others: Any) -> Any:
        lengths = {
            "student_prompt": rollouts.prompt_ids.shape[1],
            "teacher_prompt": round(float(np.mean([len(prompt) for prompt in teacher_prompts]))),
            "completion": round(float(rollouts.lengths.float().mean())),
        }
        seen.update({name: max(seen[name], length) for name, length in lengths.items()})
        return update(index, rollouts, teacher_prompts, *others)

    population.learner.update = watched  # type: ignore[method-assign]
    population.reset(0, 0)
    for _ in range(config.windows):
        population.window(np.ones((1, 1)))
    measured = status_bytes("VmHWM") - baseline
    probe = population.instances[0].probe
    reference = round(float(np.mean([len(ids) for ids in probe._references])))
    plan = memory_plan(config, shape, Lengths(**seen, reference=reference), is_mapped=config.dtype == "float32")
    return {
        "measured_mebibytes": round(measured / 2**20, 1),
        "planned_mebibytes": round(plan.peak / 2**20, 1),
        "planned_over_measured": round(plan.peak / measured, 3),
        "peak_phase": plan.peak_phase,
        "lengths": {**seen, "reference": reference},
        "parts_mebibytes": {
            part: round(size / 2**20, 1) for part, size in {**plan.fixed, **plan.phases[plan.peak_phase]}.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), help="which cases")
    parser.add_argument("--one", nargs=2, metavar=("CASE", "STUDENT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    if arguments.one:
        env_id, fields = CASES[arguments.one[0]]
        print(json.dumps(measure(preset(env_id, **{**fields, "student": arguments.one[1]}))))
        return
    results = {}
    for name in arguments.cases:
        env_id, fields = CASES[name]
        student = str(fields.get("student", preset(env_id).student))
        with tempfile.TemporaryDirectory() as folder:
            if student.startswith("narrow"):
                _, _, vocabulary = student.partition("-")
                student = narrow_model(Path(folder), int(vocabulary) if vocabulary else None)
            command = [sys.executable, "-m", "benchmarks.plan_against_measured", "--one", name, student]
            results[name], default = (
                json.loads(
                    subprocess.run(
                        command, capture_output=True, text=True, check=True, env=os.environ | variables
                    ).stdout.splitlines()[-1]
                )
                for variables in (HANDING_BACK, {})
            )
        results[name]["measured_mebibytes_by_defaults"] = default["measured_mebibytes"]
        print(name, results[name]["planned_over_measured"], flush=True)
    worst = max(abs(result["planned_over_measured"] - 1.0) for result in results.values())
    save("plan_against_measured", {"worst_deviation": round(worst, 3), "tolerance": TOLERANCE, "cases": results})


if __name__ == "__main__":
    main()
