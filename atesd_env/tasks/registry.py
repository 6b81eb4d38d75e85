"""From a configuration to a task."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from atesd_env.config import EnvConfig
from atesd_env.config.phases import phase_ranges
from atesd_env.config.task import ROW_TASKS, installed_tasks
from atesd_env.errors import ConfigError
from atesd_env.tasks.arithmetic import ArithmeticTask
from atesd_env.tasks.base import Task
from atesd_env.tasks.from_rows import RowsTask
from atesd_env.tasks.generated import check_levels
from atesd_env.tasks.lists import MAX_OPERATIONS, ListsTask
from atesd_env.tasks.phases import Phases

PACKAGED_DATA = Path(__file__).parent.parent / "assets" / "gsm8k"
"""A sample of GSM8K: train.jsonl for training, test.jsonl for the probe and the held-out problems."""


def make_task(config: EnvConfig) -> Task:
    """Returns the task that a configuration names.

    Raises:
        DataError: If the task's data cannot be used.
        ConfigError: If ``data_columns`` cannot be read, or the levels are outside of what the task has.
    """
    if config.task == "arithmetic":
        phases = None
        if config.phases is not None:
            num_problems = config.windows * config.hold_window * config.num_rollouts
            phases = Phases(phase_ranges(config.phases), num_problems, config.phase_jitter)
        return ArithmeticTask(config.min_addends, config.max_addends, phases)
    if config.task == "lists":
        return ListsTask(*check_levels(config, 1, MAX_OPERATIONS))
    if config.task in ROW_TASKS:
        return _row_task(config)
    own = {"facts": "facts:FactsTask", "engram": "engram:EngramTask", "reasoning_gym": "reasoning:ReasoningGymTask"}
    if config.task in own:
        return _imported(f"atesd_env.tasks.{own[config.task]}", config)
    return _imported(installed_tasks().get(config.task, config.task), config)


def _row_task(config: EnvConfig) -> Task:
    """Returns a task whose problems are rows of files."""
    from atesd_env.tasks.data.shapes import parse_columns

    if config.data_path == "gsm8k":
        probe_path: str | None = config.probe_data_path or str(PACKAGED_DATA / "test.jsonl")
        training_path = str(PACKAGED_DATA / "train.jsonl")
    else:
        assert config.data_path is not None  # EnvConfig has checked it
        training_path, probe_path = config.data_path, config.probe_data_path
    options: dict[str, Any] = {
        "probe_size": config.probe_size,
        "columns": parse_columns(config.data_columns),
        "train_on_benchmark": config.train_on_benchmark,
    }
    if config.task == "code":
        options["shown_answer"] = config.code_answer
    return rows_task(config.task)(training_path, probe_path, **options)


def rows_task(name: str) -> type[RowsTask]:
    """Returns the class of a task whose problems are rows of files; of another name, task math's, whose benchmarks any model answers."""
    if name == "choice":
        from atesd_env.tasks.choice import ChoiceTask

        return ChoiceTask
    if name == "code":
        from atesd_env.tasks.code import CodeTask

        return CodeTask
    from atesd_env.tasks.math import MathTask

    return MathTask


def _imported(target: str, config: EnvConfig) -> Task:
    """Returns the task of a class given as package.module:Class, which is called with the configuration."""
    module, _, name = target.partition(":")
    try:
        made = getattr(importlib.import_module(module), name)(config)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"task: expected a class that can be imported as package.module:Class, got {target!r} ({error}); check the name, and that "
            "its folder is on the import path."
        ) from error
    if not isinstance(made, Task):
        raise ConfigError(
            f"task: expected a subclass of atesd_env.tasks.Task, got {target!r}, which makes a {type(made).__name__}; derive it from Task."
        )
    return made
