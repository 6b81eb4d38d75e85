"""What samples rollouts: this package's decode loop, vLLM in a process of this machine, or a vLLM server.

One interface, chosen by the field ``rollout_engine``; docs/rollout-engines.md tells how to use each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch

from atesd_env.config import EnvConfig
from atesd_env.errors import ConfigError
from atesd_env.rollouts.engines.external import ExternalEngine
from atesd_env.rollouts.sampling import Rollouts, SamplingSpec, generate
from atesd_env.student.adapters import AdapterStack
from atesd_env.student.loading import model_directory
from atesd_env.student.model import Student
from atesd_env.student.ranks import ALONE, Ranks


class RolloutEngine(Protocol):
    """Samples answers of students as they are at the moment of the call.

    Attributes:
        description: What it is, for messages.
    """

    @property
    def description(self) -> str: ...

    def sample(
        self,
        student: Student,
        adapters: AdapterStack,
        prompts: Sequence[Sequence[int]],
        spec: SamplingSpec,
        students: Sequence[int],
        generators: Sequence[torch.Generator],
    ) -> Rollouts:
        """Samples one answer to each prompt.

        Args:
            student: The frozen base.
            adapters: All students' adapters.
            prompts: R prompts of token ids, in equal shares to ``students``, in order.
            spec: How to sample.
            students: Which S students.
            generators: One for each of them, from which all its random numbers come: the same ones give the same answers.

        Returns:
            The rollouts; ``token_log_probs`` is None only if the trainer's own numbers were sampled from.

        Raises:
            EngineError: If the engine cannot be used; nothing of the students has changed.
        """
        ...

    def close(self) -> None:
        """Lets go of memory and processes; a later ``sample`` may start them again."""
        ...


class OwnEngine:
    """The decode loop of ``rollout``: the trainer's weights and numbers, nothing to hand over.

    Args:
        num_rollouts: Rows of a student's batch, over all processes; None: those that are asked for.
        mine: This process's rows. Random numbers are drawn for all and cut, so that a row's do not depend on who samples it.
    """

    description = "rollout engine own"

    def __init__(self, num_rollouts: int | None = None, mine: slice = slice(None)) -> None:
        self._num_rollouts = num_rollouts
        self._mine = mine

    def sample(
        self,
        student: Student,
        adapters: AdapterStack,
        prompts: Sequence[Sequence[int]],
        spec: SamplingSpec,
        students: Sequence[int],
        generators: Sequence[torch.Generator],
    ) -> Rollouts:
        """Samples one answer to each prompt; see ``RolloutEngine.sample``."""
        num_rows = self._num_rollouts or len(prompts) // len(students)
        uniforms = torch.cat(
            [torch.rand(num_rows, spec.max_new_tokens, generator=generator)[self._mine] for generator in generators]
        )
        with adapters.use("student", students):
            return generate(student, prompts, spec, uniforms, len(students))

    def close(self) -> None:
        """Holds nothing."""


def make_engine(config: EnvConfig, num_students: int = 1, ranks: Ranks = ALONE) -> RolloutEngine:
    """Returns the engine that ``config.rollout_engine`` names; another one than the own starts with its first rollouts.

    Args:
        config: The environment's configuration.
        num_students: K, adapters that a batch may need at once.
        ranks: The processes that share each batch's rows.

    Raises:
        ConfigError: If several processes are to share an engine that is not ours.
        EngineError: If vLLM is needed and not installed.
    """
    if config.rollout_engine == "own":
        return OwnEngine(config.num_rollouts, ranks.share(config.num_rollouts))
    if ranks.size > 1:
        raise ConfigError(
            f"rollout_engine: expected 'own' with {ranks.size} processes, got {config.rollout_engine!r}; start one process, or leave "
            "rollout_engine out."
        )
    return make_external_engine(config, num_students)


def make_external_engine(config: EnvConfig, num_students: int = 1) -> ExternalEngine:
    """Returns the engine that ``config.rollout_engine`` names, which is not the own one; arguments and errors as above."""
    context = config.max_prompt_tokens + config.max_new_tokens
    folder = None if config.engine_folder is None else Path(config.engine_folder)
    if config.rollout_engine == "vllm":
        from atesd_env.rollouts.engines.vllm_process import VllmProcess, VllmSettings

        settings = VllmSettings(
            model=model_directory(config.student),
            dtype=config.dtype,
            context=context,
            lora_r=config.lora_r if config.engine_adapter == "lora" else None,
            num_students=num_students,
            cache_gib=config.engine_cache_gib,
            sleeps=config.engine_sleep,
            timeout_sec=config.engine_timeout_sec,
        )
        return ExternalEngine(VllmProcess(settings), config.engine_adapter, folder, config.engine_retries)
    from atesd_env.rollouts.engines.vllm_server import VllmServer

    server = VllmServer(config.rollout_engine, config.engine_timeout_sec, context)
    return ExternalEngine(server, config.engine_adapter, folder, config.engine_retries)
