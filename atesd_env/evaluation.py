"""Evaluation: k samples of each problem of a benchmark from a base model with or without an adapter, judged one by one.

A sample's random numbers come from (seed, the problem's text, number of the sample) alone. So it does not matter in which
batch it is drawn, an interrupted evaluation goes on with the samples that it would have had, more problems or samples change
none of the others, and two adapters answer with the same random numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig
from torch import Tensor

from atesd_env.adapters import AdapterStack
from atesd_env.config import EnvConfig
from atesd_env.errors import ConfigError, StudentError
from atesd_env.evaluation_files import SampleRow
from atesd_env.exposure import PromptBuilder
from atesd_env.rollout import Rollouts, SamplingSpec, decode_texts, generate
from atesd_env.sampling_presets import CONTEST_TOKENS, SamplingPreset
from atesd_env.streams import torch_stream
from atesd_env.student import Student, bare_copy, load_student
from atesd_env.tasks.base import Problem, Task
from atesd_env.tasks.data import normalised_problem
from atesd_env.verification import MAX_WORKERS

CONTEST_PROMPT_TOKENS = 2048
"""Longest prompt beside a contest's token budget."""
ADAPTER_FILE = "adapter_model.safetensors"
"""The weights in a folder of peft's."""


@dataclass(frozen=True)
class Request:
    """One sample to draw.

    Attributes:
        problem: The problem.
        sample: Which of its samples, from 0.
    """

    problem: Problem
    sample: int


def evaluation_config(config: EnvConfig, preset: SamplingPreset) -> EnvConfig:
    """Returns the configuration under which a base model is loaded for an evaluation: lengths that the preset needs."""
    prompt_tokens = config.max_prompt_tokens
    if preset.spec.max_new_tokens >= CONTEST_TOKENS:
        prompt_tokens = min(prompt_tokens, CONTEST_PROMPT_TOKENS)
    return config.replace(
        max_prompt_tokens=prompt_tokens,
        max_new_tokens=preset.spec.max_new_tokens,
        probe_max_tokens=1,
        enable_thinking=preset.enable_thinking,
        gradient_checkpointing=False,
    )


class Evaluator:
    """One base model that answers with one adapter after the other.

    Args:
        config: From ``evaluation_config``.
        task: Wording of the request, and the judge.
        spec: How to sample.
        seed: Of the random numbers, 0 or more.
        batch_size: Samples drawn together.

    Raises:
        StudentError: If the model cannot be loaded, or its context is too short.
        ConfigError: If a number is out of range.
    """

    def __init__(self, config: EnvConfig, task: Task, spec: SamplingSpec, seed: int, batch_size: int) -> None:
        if batch_size < 1 or seed < 0:
            raise ConfigError(
                f"evaluation: expected a seed of 0 or more and batches of at least 1, got {seed} and {batch_size}; "
                "raise them."
            )
        self.task = task
        self.spec = spec
        self.seed = seed
        self.batch_size = batch_size
        self.base = load_student(config)
        self.builder = PromptBuilder(task, self.base.tokenizer, config.max_prompt_tokens, config.enable_thinking)

    def samples(self, label: str, adapter: Path | None, requests: Sequence[Request]) -> Iterator[SampleRow]:
        """Yields the judged samples in the order of the requests.

        Args:
            label: What the rows call the adapter.
            adapter: A peft adapter's directory (see ``find_adapter``); None is the bare base model.
            requests: What to draw.

        Raises:
            StudentError: If the adapter does not fit the model.
            DataError: If a problem does not fit the prompt.
        """
        if not requests:
            return
        student, using = self._with_adapter(adapter)
        # A thread only waits for the process that checks its answer; one that takes long does not hold up the others.
        with ThreadPoolExecutor(MAX_WORKERS) as judges:
            for start in range(0, len(requests), self.batch_size):
                batch = requests[start : start + self.batch_size]
                prompts = [self.builder.student_prompt(request.problem) for request in batch]
                with using():
                    rollouts = generate(student, prompts, self.spec, self._uniforms(batch))
                texts = decode_texts(student, rollouts)
                yield from self._judged(label, batch, rollouts, texts, judges)

    def _judged(
        self,
        label: str,
        batch: Sequence[Request],
        rollouts: Rollouts,
        texts: Sequence[str],
        judges: ThreadPoolExecutor,
    ) -> Iterator[SampleRow]:
        verdicts = judges.map(self.task.judge, texts, [request.problem for request in batch])
        lengths, is_finished = rollouts.lengths.tolist(), rollouts.is_finished.tolist()
        for request, text, num_tokens, finished, verdict in zip(
            batch, texts, lengths, is_finished, verdicts, strict=True
        ):
            yield SampleRow(
                adapter=label,
                problem=request.problem.id,
                sample=request.sample,
                num_tokens=num_tokens,
                is_finished=finished,
                answer=self.task.extract_answer(text),
                is_correct=verdict is True,
                has_timed_out=verdict is None,
                text=text,
            )

    def _uniforms(self, batch: Sequence[Request]) -> Tensor | None:
        if self.spec.temperature == 0:
            return None
        rows = []
        for request in batch:
            generator = torch_stream(self.seed, "evaluation", _stream_index(request))
            rows.append(torch.rand(self.spec.max_new_tokens, generator=generator))
        return torch.stack(rows)

    def _with_adapter(self, adapter: Path | None) -> tuple[Student, _Using]:
        if adapter is None:
            return self.base, _Using(None)
        peft_config = PeftConfig.from_pretrained(str(adapter))
        if not isinstance(peft_config, LoraConfig) or not isinstance(peft_config.target_modules, set | list | tuple):
            raise StudentError(
                f"adapter {adapter}: expected plain LoRA with a list of target_modules, got "
                f"{type(peft_config).__name__}; not supported."
            )
        student = bare_copy(self.base)
        targets = sorted(peft_config.target_modules)
        stack = AdapterStack(student.model, 1, peft_config.r, float(peft_config.lora_alpha), targets)
        stack.load(0, adapter)
        return student, _Using(stack)


@dataclass(frozen=True)
class _Using:
    """Switches an adapter on for one forward pass, if there is one."""

    stack: AdapterStack | None

    def __call__(self) -> AbstractContextManager[None]:
        return nullcontext() if self.stack is None else self.stack.use("student", [0])


def _stream_index(request: Request) -> int:
    digest = hashlib.sha256(normalised_problem(request.problem.problem).encode()).digest()
    return (int.from_bytes(digest[:5], "big") << 20) | request.sample


def find_adapter(directory: Path) -> Path:
    """Returns where a peft adapter lies: the directory itself, or the folder "adapter" of a run in it.

    Raises:
        StudentError: If there is none.
    """
    for candidate in (directory, directory / "adapter"):
        if (candidate / "adapter_config.json").is_file() and (candidate / ADAPTER_FILE).is_file():
            return candidate
    raise StudentError(
        f"adapter: expected a peft adapter directory (adapter_config.json and {ADAPTER_FILE}) or a run's folder with one, "
        f"got {directory}; check the path."
    )


def adapter_checksum(adapter: Path | None) -> str:
    """Returns the SHA-256 of an adapter's weights, "base" for none."""
    if adapter is None:
        return "base"
    return hashlib.sha256((adapter / ADAPTER_FILE).read_bytes()).hexdigest()
