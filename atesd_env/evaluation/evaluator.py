"""Evaluation: k samples of each problem of a benchmark from a base model with or without an adapter, judged one by one.

A sample's random numbers come from (seed, the problem's text, number of the sample) alone. So it does not matter in which
batch it is drawn, an interrupted evaluation goes on with the samples that it would have had, more problems or samples change
none of the others, and two adapters answer with the same random numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from atesd_env.config import EnvConfig
from atesd_env.errors import ConfigError, StudentError
from atesd_env.evaluation.samples import SampleRow
from atesd_env.evaluation.sampling_presets import CONTEST_TOKENS, SamplingPreset
from atesd_env.exposure import PromptBuilder
from atesd_env.files.reading import open_regular, reading
from atesd_env.rollouts.engines.checked import check_beginnings
from atesd_env.rollouts.engines.registry import make_engine
from atesd_env.rollouts.sampling import Rollouts, SamplingSpec, decode_texts
from atesd_env.student.adapter_files import WEIGHTS_FILE, AdapterConfig, read_adapter_config
from atesd_env.student.adapters import AdapterStack
from atesd_env.student.generators import torch_stream
from atesd_env.student.loading import load_student
from atesd_env.student.model import Student, bare_copy
from atesd_env.tasks.base import Problem, Task
from atesd_env.tasks.data.rows import normalised_problem
from atesd_env.tasks.grading.workers import MAX_WORKERS

CONTEST_PROMPT_TOKENS = 2048
"""Longest prompt beside a contest's token budget."""
CONTEST_CONTEXT = CONTEST_PROMPT_TOKENS + CONTEST_TOKENS
"""Context that a contest needs, in tokens."""


@dataclass(frozen=True)
class Request:
    """One sample to draw.

    Attributes:
        problem: The problem.
        sample: Which of its samples, from 0.
    """

    problem: Problem
    sample: int


def evaluation_config(config: EnvConfig, preset: SamplingPreset, adapters: Iterable[Path] = ()) -> EnvConfig:
    """Returns the configuration under which a base model is loaded for an evaluation.

    Args:
        config: The environment's.
        preset: Gives lengths and the thinking switch.
        adapters: Directories of those that will answer: an engine of another kind must be started for their largest rank.
    """
    prompt_tokens = config.max_prompt_tokens
    if preset.spec.max_new_tokens >= CONTEST_TOKENS:
        prompt_tokens = min(prompt_tokens, CONTEST_PROMPT_TOKENS)
    return config.replace(
        max_prompt_tokens=prompt_tokens,
        max_new_tokens=preset.spec.max_new_tokens,
        probe_max_tokens=1,
        student_thinking=preset.thinking,
        gradient_checkpointing=False,
        lora_r=max([config.lora_r, *(_lora_config(adapter).r for adapter in adapters)]),
        engine_sleep=False,  # nothing is trained between two batches
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
        EngineError: If the rollout engine that the configuration names cannot be used.
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
        self.builder = PromptBuilder.of(config, task, self.base.tokenizer)
        self._config = config
        self._engine = make_engine(config)

    def samples(self, label: str, adapter: Path | None, requests: Sequence[Request]) -> Iterator[SampleRow]:
        """Yields the judged samples in the order of the requests.

        Args:
            label: What the rows call the adapter.
            adapter: A peft adapter's directory (see ``adapter_files.find_adapter``); None is the bare base model.
            requests: What to draw.

        Raises:
            StudentError: If the adapter does not fit the model.
            DataError: If a problem does not fit the prompt.
            EngineError: If another rollout engine fails its start-up test, does not answer, or tells other log-probabilities than
                this model's by now.
        """
        if not requests:
            return
        student, stack = self._with_adapter(adapter)
        students = () if adapter is None else (0,)
        # A thread only waits for the process that checks its answer; one that takes long does not hold up the others.
        with ThreadPoolExecutor(MAX_WORKERS) as judges:
            for start in range(0, len(requests), self.batch_size):
                batch = requests[start : start + self.batch_size]
                prompts = [self.builder.student_prompt(request.problem) for request in batch]
                streams = [torch_stream(self.seed, "evaluation", _stream_index(request)) for request in batch]
                rollouts = self._engine.sample(student, stack, prompts, self.spec, students, streams)
                tolerance = self._config.engine_tolerance
                index = None if adapter is None else 0
                check_beginnings(self._engine.description, student, stack, index, rollouts, tolerance)
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

    def _with_adapter(self, adapter: Path | None) -> tuple[Student, AdapterStack]:
        """Returns a student on the base's weights, and its adapter."""
        student = bare_copy(self.base)
        if adapter is None:
            # The bare base has no place for one, except for the start-up test of an engine that needs it.
            config = self._config
            targets = config.lora_targets if self._engine.can_fail else ()
            return student, AdapterStack(student.model, 1, config.lora_r, config.lora_alpha, targets)
        with reading(adapter, "an adapter of this base model", StudentError):
            lora = _lora_config(adapter)
            stack = AdapterStack(student.model, 1, lora.r, lora.alpha, sorted(lora.targets))
            stack.load(0, adapter)
        return student, stack

    def close(self) -> None:
        """Lets go of the rollout engine's memory and processes."""
        self._engine.close()


def _lora_config(adapter: Path) -> AdapterConfig:
    config = read_adapter_config(adapter)
    if not config.targets:
        raise StudentError(
            f"adapter {adapter}: expected plain LoRA with a list of target_modules, got a pattern or none; not supported."
        )
    return config


def _stream_index(request: Request) -> int:
    digest = hashlib.sha256(normalised_problem(request.problem.problem).encode()).digest()
    return (int.from_bytes(digest[:5], "big") << 20) | request.sample


def adapter_checksum(adapter: Path | None) -> str:
    """Returns the SHA-256 of an adapter's weights, "base" for none."""
    if adapter is None:
        return "base"
    path = adapter / WEIGHTS_FILE
    with reading(path, "an adapter's weights", StudentError), open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
