"""The field `task`: which sources of problems there are, and which other fields go with each."""

from __future__ import annotations

import re
import sys

from atesd_env.errors import ConfigError
from atesd_env.hints import suggestion

ROW_TASKS = ("math", "code", "choice")
"""Tasks whose problems are rows of a file."""
TASKS = ("arithmetic", "lists", *ROW_TASKS, "facts", "engram", "reasoning_gym")
"""Tasks of ours by name; another installed package may add to them, and a class of one's own is named by its module."""
OWN_TASK = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""``package.module:Class``."""


def check_task(task: str, data_path: str | None, probe_data_path: str | None, phases: str | None) -> None:
    """Refuses a task that is none, and fields that do not go with it.

    Raises:
        ConfigError: If something does not fit; the message names the field.
    """
    if task not in TASKS and not (OWN_TASK.fullmatch(task) or task in installed_tasks()):
        raise ConfigError(
            f"task: expected one of {', '.join(TASKS)}, or a class of your own as package.module:Class, got {task!r}; pass one "
            f"of these.{suggestion(task, TASKS)}"
        )
    if task in ROW_TASKS and not data_path:
        raise ConfigError(
            f"data_path: expected a JSONL file of problem, solution, answer (task={task!r}), got none; pass "
            "data_path='problems.jsonl'."
        )
    if task in ROW_TASKS and task != "math" and data_path == "gsm8k":
        raise ConfigError(
            f"data_path: expected a file of rows of task {task!r}, got 'gsm8k', the packaged problems of task 'math'; pass "
            "data_path='problems.jsonl'."
        )
    if task in TASKS and task not in ROW_TASKS and (data_path or probe_data_path):
        raise ConfigError(
            f"data_path: expected None with task={task!r}, which generates its problems, got "
            f"{data_path or probe_data_path!r}; pass task='math' to train on a file."
        )
    if phases is not None and task != "arithmetic":
        raise ConfigError(
            f"phases: expected None with task={task!r}, whose problems have no addends, got {phases!r}; leave it out."
        )


def check_read_task(task: object) -> None:
    """Refuses a task of somebody's own that a file names, unless its module is imported already: a file imports nothing.

    Raises:
        ConfigError: If it is such a task.
    """
    if isinstance(task, str) and OWN_TASK.fullmatch(task) and task.partition(":")[0] not in sys.modules:
        raise ConfigError(
            f"task: expected one of ours in a file, got {task!r}, which is code; import its module first if you trust it."
        )


def installed_tasks() -> dict[str, str]:
    """Returns the tasks of other installed packages (entry points of ``atesd_env.tasks``), as package.module:Class by name."""
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group="atesd_env.tasks") if point.name not in TASKS}
