"""What an update costs on this machine's device, of a student in a preset's exact shape: the measuring part of ``gpu_all``.

Weights are random (they cost what trained ones cost) and made on the device; problems are made up, as long as the page about paper
scale takes them to be. With random weights hardly any rollout ends early, so that every one has the preset's full length.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PretrainedConfig, PreTrainedModel, Qwen3Config

from atesd_env.config import EnvConfig, preset
from atesd_env.distillation import chunked
from atesd_env.distillation.chunked import token_divergence
from atesd_env.distillation.divergence import DivergenceSpec
from atesd_env.planning.memory import Lengths, MemoryPlan, memory_plan
from atesd_env.planning.shape import PUBLISHED, shape_of
from atesd_env.population.population import Population
from atesd_env.student.model import Student, bare_copy, wrap_student
from atesd_env.student.packaged import TINY_DIRECTORY
from benchmarks.profile_window import Stages, fastest, operations, products_per_sec, timed_update
from benchmarks.qwen_tokenizer import make_qwen_tokenizer

NARROW = Qwen3Config(
    vocab_size=512,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=40_960,
    tie_word_embeddings=True,
)
"""In the place of Qwen3-1.7B where nothing is to be measured: that the scripts work."""
NARROW_FIELDS: dict[str, Any] = {
    "dtype": "float32",
    "lora_r": 4,
    "num_rollouts": 2,
    "micro_batch_size": 1,
    "max_new_tokens": 6,
    "probe_size": 1,
    "probe_max_tokens": 8,
}
TYPICAL = {False: (300, 3000), True: (20, 60)}
"""Tokens of the made-up texts in (student's, teacher's) prompts, in full size and in small."""


PHASES = {
    "rollout": ("prompts", "decoding"),
    "teacher": ("teacher",),
    **dict.fromkeys(("student", "divergence", "backward"), ("student",)),
}
"""The plan's phases that each stage is in; a stage that is not named needs only what is there all the time."""


class Peaks(Stages):
    """Also collects the most memory that the device held in each stage, and under "between" outside all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.peaks: dict[str, int] = {}

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        timed = super().timed(name, function)

        def call(*arguments: Any, **options: Any) -> Any:
            self.note("between")
            result = timed(*arguments, **options)
            self.note(name)
            return result

        return call

    def note(self, name: str) -> None:
        """Counts the most memory since the last note to a stage; nothing without a GPU."""
        if torch.cuda.is_available():
            self.peaks[name] = max(self.peaks.get(name, 0), torch.cuda.max_memory_allocated())
            torch.cuda.reset_peak_memory_stats()


def device_name() -> str:
    """Returns the device that everything is measured on."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def random_model(model_config: PretrainedConfig, dtype: str) -> PreTrainedModel:
    """Returns a model of random weights, made on the device."""
    with torch.random.fork_rng(), torch.device(device_name()):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(model_config, dtype=getattr(torch, dtype), trust_remote_code=False)


class Preset:
    """Qwen3-1.7B's preset on random weights and made-up problems.

    Args:
        folder: Where the problems are written.
        small: A narrow model and short rows instead, for a CPU.

    Attributes:
        student_prompt_tokens: About so long is the text of a problem.
        teacher_prompt_tokens: With its solution.
        config: The preset, with updates as windows and a small probe.
        model_config: The model's sizes.
        student: The base.
    """

    def __init__(self, folder: Path, *, small: bool, **changes: Any) -> None:
        self.student_prompt_tokens, self.teacher_prompt_tokens = TYPICAL[small]
        self.model_config = NARROW if small else PUBLISHED["Qwen/Qwen3-1.7B"]
        try:
            tokenizer = None if small else make_qwen_tokenizer()
        except ModuleNotFoundError:
            tokenizer = None
        self.tokenizer: Any = tokenizer or AutoTokenizer.from_pretrained(
            TINY_DIRECTORY, trust_remote_code=False, model_max_length=40_960
        )
        sizes: dict[str, Any] = {
            "hold_window": 1,
            "windows": 1000,
            "probe_size": 4,
            "probe_batch_size": 2,
            "probe_accuracy_every": 0,
        }
        fields = {**sizes, **(NARROW_FIELDS if small else {}), **changes}
        path = folder / "problems.jsonl"
        self._write_problems(path)
        config = preset("ATESD-Qwen3-1.7B-v0", data_path=str(path), device=device_name(), **fields)
        assert isinstance(config, EnvConfig)
        self.config = config
        self.student: Student = wrap_student(
            random_model(self.model_config, config.dtype), self.tokenizer, "random weights", config
        )

    def _write_problems(self, path: Path) -> None:
        line = "12+34+56=102; "
        tokens = len(self.tokenizer.encode(line))
        shown = self.teacher_prompt_tokens - self.student_prompt_tokens
        long, solution = line * (self.student_prompt_tokens // tokens), f"{line}\n" * (shown // tokens)
        rows = ({"problem": f"{number}: {long}", "solution": solution, "answer": str(number)} for number in range(200))
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    def plan(self, num_students: int, lengths: Lengths | None = None) -> MemoryPlan:
        """Returns what ``atesd plan`` foresees, at the lengths of the problems."""
        shape = shape_of(self.model_config, self.config.lora_r, self.config.lora_targets)
        if lengths is None:
            prompts = {"student_prompt": self.student_prompt_tokens, "teacher_prompt": self.teacher_prompt_tokens}
            lengths = dataclasses.replace(Lengths.worst(self.config), **prompts)
        return memory_plan(self.config, shape, lengths, num_students)

    def update(self, num_students: int = 1, *, cuda_graph: bool = False, triton: bool = True) -> dict[str, Any]:
        """Returns what an update of K students costs, by stage; one of a few tokens before it prepares the kernels.

        Args:
            num_students: K.
            cuda_graph: As the field.
            triton: Use Triton's kernels, where they are to be had.
        """
        with nullcontext() if triton else without_kernels():
            return self._update(num_students, cuda_graph)

    def _update(self, num_students: int, cuda_graph: bool) -> dict[str, Any]:
        student = dataclasses.replace(bare_copy(self.student), cuda_graph=cuda_graph)
        students = Population(self.config, num_students, student)
        for index in range(num_students):
            students.reset(index, seed=index)
        stages, sampling = Peaks(), students.sampling
        students.sampling = dataclasses.replace(sampling, max_new_tokens=min(4, sampling.max_new_tokens))
        timed_update(students, stages, 1.0)
        students.sampling = sampling
        stages.note("between")
        stages.peaks.clear()
        seconds = timed_update(students, stages, 1.0)
        stages.note("between")
        ways = {"cuda_graph": cuda_graph, "triton": chunked._kernel_agrees(self.student.device)}
        return {"students": num_students, **ways, **self._costs(students, stages, seconds)}

    def _costs(self, students: Population, stages: Peaks, seconds: dict[str, float]) -> dict[str, Any]:
        rollouts = stages.rollouts
        assert rollouts is not None
        rate = products_per_sec(device_name(), getattr(torch, self.config.dtype), matrix_size())
        needed = operations(students, stages)
        lengths = Lengths(
            rollouts.prompt_ids.shape[1],
            round(float(np.mean(stages.teacher_tokens))),
            round(float(rollouts.lengths.float().mean())),
            self.config.probe_max_tokens,
        )
        sampled, plan = int(rollouts.lengths.sum()), self.plan(students.num_students, lengths)
        fixed, phases = sum(plan.fixed.values()), {name: sum(parts.values()) for name, parts in plan.phases.items()}
        return {
            "sec": seconds["total"],
            "sampled_tokens": sampled,
            "lengths": dataclasses.asdict(lengths),
            "stages": {
                name: {
                    "sec": one,
                    "tokens_per_sec": sampled / one if one else None,
                    "share_of_matrix_rate": needed[name] / one / rate if name in needed else None,
                    "peak_bytes": stages.peaks.get(name),
                    "planned_bytes": fixed + max((phases[phase] for phase in PHASES.get(name, ())), default=0),
                }
                for name, one in seconds.items()
                if name != "total"
            },
            "share_of_matrix_rate": sum(needed.values()) / seconds["total"] / rate,
            "planned_bytes": plan.peak,
            "peak_bytes": max(stages.peaks.values(), default=None),
        }


def divergence_costs(config: EnvConfig, *, small: bool) -> dict[str, Any]:
    """Returns what the divergence of 8,192 tokens of Qwen3-8B's sizes costs with its gradient, by Triton's kernels and without."""
    tokens, hidden, vocabulary = (64, 32, 500) if small else (8192, 4096, 151_936)
    device, dtype = device_name(), getattr(torch, config.dtype)
    head = torch.randn(vocabulary, hidden, device=device).to(dtype) / hidden**0.5
    student, teacher = (torch.randn(tokens, hidden, device=device).to(dtype) for _ in range(2))
    chosen = torch.arange(tokens, device=device) % vocabulary
    found: dict[str, Any] = {}
    for way, chunk in (("pytorch", 128), ("triton", 128), ("triton", 1024)):
        if way == "triton" and not chunked._kernel_agrees(head.device):
            continue
        spec = DivergenceSpec(chunk_size=chunk)

        def measured(spec: DivergenceSpec = spec) -> None:
            token_divergence(student.requires_grad_(), teacher, head, chosen, spec).loss.sum().backward()

        with without_kernels() if way == "pytorch" else nullcontext():
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
            seconds = fastest(measured)
            peak = torch.cuda.max_memory_allocated() - before if torch.cuda.is_available() else None
        found[f"{way}, chunks of {chunk}"] = {"sec": seconds, "peak_bytes": peak}
    return {"tokens": tokens, "hidden": hidden, "vocabulary": vocabulary, "ways": found}


def without_kernels() -> AbstractContextManager[Any]:
    """Inside, the divergence is PyTorch's on a GPU too."""
    return patch.object(chunked, "_kernel_agrees", lambda device: False)


def matrix_size() -> int:
    """Returns the side of the square products by which the matrix rate is measured."""
    return 8192 if torch.cuda.is_available() else 256


def card() -> dict[str, Any]:
    """Returns the device, its driver, and the rates that it reaches: products and copies."""
    device, size = device_name(), matrix_size()
    numbers = torch.zeros(size * size, device=device)
    found: dict[str, Any] = {
        "device": f"CPU ({platform.processor() or platform.machine()}): not a measurement",
        "driver": None,
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split("\n")[0]
        found = {
            "device": properties.name,
            "driver": driver,
            "cuda": torch.version.cuda,
            "bytes": properties.total_memory,
        }
    return {
        **found,
        "devices": torch.cuda.device_count(),
        "matrix_rate_per_sec": {
            name: products_per_sec(device, getattr(torch, name), size) for name in ("bfloat16", "float32")
        },
        "memory_rate_bytes_per_sec": 2 * numbers.numel() * 4 / fastest(lambda: numbers + 1),
    }
