"""Tasks whose problems are drawn without end: a subclass says how one problem is drawn, the rest is here.

A working task of one's own is this much::

    class Squares(GeneratedTask):
        def draw(self, rng):
            number = int(rng.integers(10, 1000))
            return Problem(
                id=str(number),
                problem=f"What is {number} times {number}?",
                steps=(f"{number} * {number} = {number * number}",),
                answer=str(number * number),
                difficulty=float(len(str(number))),
            )

``atesd run --task my_module:Squares`` plays it, and `atesd_env.tasks.check_task` says whether it keeps what the environment relies on.
"""

from __future__ import annotations

import zlib
from abc import abstractmethod
from typing import Any, Literal

import numpy as np

from atesd_env.errors import ConfigError
from atesd_env.streams import numpy_stream
from atesd_env.tasks.base import Problem, Task
from atesd_env.tasks.boxed import BoxedTask

Split = Literal["training", "probe", "heldout"]
"""Which of the disjoint sets a problem is from."""

# Fixed for ever, as are arithmetic's: moving them would leak held-out problems.
_NUM_CLASSES = 16
_FIXED_SEED = 20_260_511
# So many draws in a row without a new problem of a split mean that all are found.
_MAX_REPEATS = 5_000


def split_of(key: str) -> Split:
    """Returns which use what has this key is for, by a checksum: of sixteen classes one is the probe's, one held out.

    >>> [split_of(key) for key in ("a", "b", "4", "12")]
    ['training', 'training', 'training', 'training']
    """
    checksum_class = zlib.crc32(key.encode()) % _NUM_CLASSES
    return "probe" if checksum_class == 0 else "heldout" if checksum_class == 1 else "training"


class DrawnTask(Task):
    """Problems drawn from a stream of random numbers; a problem's text decides whether it is trained on, probed with or held out."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Problem:
        """Returns a problem, a pure function of the random numbers."""

    def split(self, problem: Problem) -> Split:
        """Returns which use a problem is for."""
        return split_of(problem.problem)

    def training_problem(self, seed: int, index: int) -> Problem:
        return self._drawn("training", numpy_stream(seed, "task", index))

    def probe_problems(self, num_problems: int) -> list[Problem]:
        return self._fixed("probe", num_problems)

    def heldout_problems(self, num_problems: int) -> list[Problem]:
        return self._fixed("heldout", num_problems)

    def _drawn(self, split: Split, rng: np.random.Generator) -> Problem:
        for _ in range(_MAX_REPEATS):
            problem = self.draw(rng)
            if self.split(problem) == split:
                return problem
        raise ConfigError(
            f"{type(self).__name__}: expected a problem for {split} among {_MAX_REPEATS} draws, got none; let it draw more different ones."
        )

    def _fixed(self, split: Split, num_problems: int) -> list[Problem]:
        rng = numpy_stream(_FIXED_SEED, "task", ("training", "probe", "heldout").index(split))
        found: dict[str, Problem] = {}
        repeats = 0
        while len(found) < num_problems:
            problem = self._drawn(split, rng)
            repeats = repeats + 1 if problem.problem in found else 0
            found.setdefault(problem.problem, problem)
            if repeats == _MAX_REPEATS:
                raise ConfigError(
                    f"{split} problems: expected {num_problems} different ones of {type(self).__name__}, but there are only "
                    f"{len(found)}; ask for fewer (--probe-size), or allow more levels (--min-level, --max-level)."
                )
        return list(found.values())


class GeneratedTask(DrawnTask, BoxedTask):
    """Problems that are drawn, answered with a boxed final answer.

    Args:
        config: The environment's configuration; a task of one's own may read its fields, this class reads none.
    """

    def __init__(self, config: Any = None) -> None:
        self.config = config


def check_levels(config: Any, least: int, most: int) -> tuple[int, int]:
    """Returns the easiest and the hardest level of a configuration.

    Raises:
        ConfigError: If they are not in order, or outside of what the task has.
    """
    low, high = config.min_level, config.max_level
    if not least <= low <= high <= most:
        raise ConfigError(
            f"min_level and max_level: expected {least} <= min_level <= max_level <= {most} with task={config.task!r}, got {low} and "
            f"{high}; set both."
        )
    return low, high


def require_package(package: str, task: str) -> None:
    """Refuses to go on without a package that a task is made of.

    Raises:
        ConfigError: If it is not installed.
    """
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"task: expected the package {package!r}, which task {task!r} is made of, got none; install it (pip install "
            f"'atesd-env[{task.replace('_', '-')}]')."
        )
