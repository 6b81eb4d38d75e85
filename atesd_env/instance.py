"""An instance: what a student's episode is drawn from beside its base model, problems and the settings of its updates.

Students of one population may have different instances. What shapes their common batch (base model, adapters, rollouts, the
length of windows and episodes) is theirs together.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atesd_env.adapters import AdapterStack
from atesd_env.config import EnvConfig
from atesd_env.distillation import UpdateSettings
from atesd_env.divergence import DivergenceSpec
from atesd_env.errors import ConfigError
from atesd_env.exposure import PromptBuilder
from atesd_env.probe import Probe
from atesd_env.student import Student
from atesd_env.tasks.base import Task
from atesd_env.tasks.groups import DifficultyGroups
from atesd_env.tasks.registry import make_task

INSTANCE_FIELDS = (
    "task",
    "data_path",
    "probe_data_path",
    "min_addends",
    "max_addends",
    "divergence",
    "jsd_beta",
    "token_clip",
    "divergence_top_k",
    "learning_rate",
    "weight_decay",
    "max_grad_norm",
    "ema_decay",
)
"""Fields of ``EnvConfig`` that may differ between the students of a population."""


@dataclass(frozen=True)
class Instance:
    """One instance, ready to train on.

    Attributes:
        config: The whole configuration.
        task: Problems.
        builder: Both prompts of a problem.
        groups: Difficulty groups of the problems.
        probe: Held-out problems.
        settings: How an update is made.
    """

    config: EnvConfig
    task: Task
    builder: PromptBuilder
    groups: DifficultyGroups
    probe: Probe
    settings: UpdateSettings


def instance_configs(
    config: EnvConfig, changes: Sequence[Mapping[str, Any]] | None, num_students: int
) -> list[EnvConfig]:
    """Returns the configuration of each student.

    Args:
        config: What they share.
        changes: For each student the fields that differ, out of ``INSTANCE_FIELDS``; None changes nothing.
        num_students: K.

    Raises:
        ConfigError: If there are not K of them, or a field may not differ.
    """
    if changes is None:
        return [config] * num_students
    if len(changes) != num_students:
        raise ConfigError(
            f"instances: expected one dictionary of fields for each of {num_students} students, got {len(changes)}."
        )
    for fields in changes:
        for name in fields:
            if name not in INSTANCE_FIELDS:
                nearest = difflib.get_close_matches(name, INSTANCE_FIELDS, n=1)
                hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
                raise ConfigError(
                    f"instances: expected fields that may differ between students ({', '.join(INSTANCE_FIELDS)}), got {name!r}"
                    f"{hint}; set it for all students instead."
                )
    return [config.replace(**fields) for fields in changes]


def make_instance(config: EnvConfig, student: Student, adapters: AdapterStack) -> Instance:
    """Reads an instance's data and tokenizes its probe.

    Raises:
        DataError: If the data cannot be used.
    """
    task = make_task(config)
    builder = PromptBuilder(task, student.tokenizer, config.max_prompt_tokens, config.enable_thinking)
    task.restrict(builder.is_usable)
    probe = Probe(
        student,
        adapters,
        builder,
        task.probe_problems(config.probe_size),
        config.probe_max_tokens,
        config.probe_batch_size,
    )
    groups = DifficultyGroups.from_task(task, config.groups)
    return Instance(config, task, builder, groups, probe, _update_settings(config))


def _update_settings(config: EnvConfig) -> UpdateSettings:
    return UpdateSettings(
        divergence=DivergenceSpec(
            kind=config.divergence,
            jsd_beta=config.jsd_beta,
            token_clip=config.token_clip,
            top_k=config.divergence_top_k,
            chunk_size=config.divergence_chunk,
        ),
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        micro_batch_size=config.micro_batch_size,
        ema_decay=config.ema_decay if config.teacher == "ema" else None,
        recompute_activations=config.gradient_checkpointing,
    )
