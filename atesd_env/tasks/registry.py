"""From a configuration to a task."""

from __future__ import annotations

from pathlib import Path

from atesd_env.config import EnvConfig
from atesd_env.config.phases import phase_ranges
from atesd_env.tasks.arithmetic import ArithmeticTask
from atesd_env.tasks.base import Task
from atesd_env.tasks.phases import Phases

PACKAGED_DATA = Path(__file__).parent.parent / "assets" / "gsm8k"
"""A sample of GSM8K: train.jsonl for training, test.jsonl for the probe and the held-out problems."""


def make_task(config: EnvConfig) -> Task:
    """Returns the task that a configuration names.

    Raises:
        DataError: If the task's data cannot be used.
        ConfigError: If ``data_columns`` cannot be read.
    """
    if config.task == "arithmetic":
        phases = None
        if config.phases is not None:
            num_problems = config.windows * config.hold_window * config.num_rollouts
            phases = Phases(phase_ranges(config.phases), num_problems, config.phase_jitter)
        return ArithmeticTask(config.min_addends, config.max_addends, phases)
    from atesd_env.tasks.data.shapes import parse_columns
    from atesd_env.tasks.math import MathTask

    if config.data_path == "gsm8k":
        probe_path: str | None = config.probe_data_path or str(PACKAGED_DATA / "test.jsonl")
        training_path = str(PACKAGED_DATA / "train.jsonl")
    else:
        assert config.data_path is not None  # EnvConfig has checked it
        training_path, probe_path = config.data_path, config.probe_data_path
    return MathTask(
        training_path,
        probe_path,
        probe_size=config.probe_size,
        columns=parse_columns(config.data_columns),
        train_on_benchmark=config.train_on_benchmark,
    )
