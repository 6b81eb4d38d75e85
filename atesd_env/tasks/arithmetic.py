"""Task `arithmetic`: running sums of two-digit numbers with worked steps, generated without end.

``37+48+25`` has the reference solution ``37+48=85;85+25=110#110``: one step for each addition, then ``#`` and the final
answer. Difficulty is the number of addends. Every problem is a pure function of (seed, index). A checksum of the
problem's text assigns it to training, probe or held-out use, so the three never overlap, whatever the seed.
"""

from __future__ import annotations

import zlib
from typing import Literal

import numpy as np

from atesd_env.errors import ConfigError
from atesd_env.streams import numpy_stream
from atesd_env.tasks.base import Problem
from atesd_env.tasks.hashed import HashedTask
from atesd_env.tasks.phases import Phases

Split = Literal["training", "probe", "heldout"]
"""Which of the disjoint sets of sums a problem is from."""

# Of 16 checksum classes two are set apart. The classes are fixed for ever: moving them would leak held-out problems.
_NUM_CLASSES = 16
_PROBE_CLASS = 0
_HELDOUT_CLASS = 1
_FIXED_SEED = 20_260_511
# So many draws in a row without a new problem mean that all are found: of 500, one would be missed with odds of 5e-5.
_MAX_REPEATS = 5_000


def split_of(problem_text: str) -> Split:
    """Returns which use a problem is assigned to, by a checksum of its text.

    >>> split_of("37+48+25")
    'training'
    """
    checksum_class = zlib.crc32(problem_text.encode()) % _NUM_CLASSES
    return {_PROBE_CLASS: "probe", _HELDOUT_CLASS: "heldout"}.get(checksum_class, "training")  # type: ignore[return-value]


def running_sum(addends: list[int]) -> Problem:
    """Returns the problem of adding two or more ``addends`` from left to right, with one step for each addition.

    >>> running_sum([37, 48, 25]).steps
    ('37+48=85;', '85+25=110')
    """
    total = addends[0]
    steps = []
    for addend in addends[1:]:
        steps.append(f"{total}+{addend}={total + addend};")
        total += addend
    steps[-1] = steps[-1].removesuffix(";")
    text = "+".join(str(addend) for addend in addends)
    return Problem(id=text, problem=text, steps=tuple(steps), answer=str(total), difficulty=float(len(addends)))


class ArithmeticTask(HashedTask):
    """Running sums with ``min_addends`` to ``max_addends`` numbers between 10 and 99.

    Args:
        min_addends: Fewest numbers in a sum, at least 2.
        max_addends: Most numbers in a sum.
        phases: Training problems have the addends of their phase; None draws from all at any time.

    Raises:
        ConfigError: If ``2 <= min_addends <= max_addends`` does not hold.
    """

    def __init__(self, min_addends: int = 4, max_addends: int = 5, phases: Phases | None = None) -> None:
        if not 2 <= min_addends <= max_addends:
            raise ConfigError(
                f"min_addends and max_addends: expected 2 <= min_addends <= max_addends, got {min_addends} and "
                f"{max_addends}; set both."
            )
        self.min_addends = min_addends
        self.max_addends = max_addends
        self.phases = phases

    def training_problem(self, seed: int, index: int) -> Problem:
        in_phase = None if self.phases is None else self.phases.addends(seed, index)
        return self._draw("training", numpy_stream(seed, "task", index), in_phase)

    def typical_problem(self, index: int) -> Problem:
        whole = self if self.phases is None else ArithmeticTask(self.min_addends, self.max_addends)
        return whole.training_problem(0, index)

    def probe_problems(self, num_problems: int) -> list[Problem]:
        return self._fixed("probe", num_problems)

    def heldout_problems(self, num_problems: int) -> list[Problem]:
        return self._fixed("heldout", num_problems)

    def _fixed(self, split: Split, num_problems: int) -> list[Problem]:
        number = ("probe", "heldout").index(split)
        rng = numpy_stream(_FIXED_SEED, "task", self.min_addends, self.max_addends, number)
        found: dict[str, Problem] = {}
        repeats = 0
        while len(found) < num_problems:
            problem = self._draw(split, rng)
            repeats = repeats + 1 if problem.id in found else 0
            found[problem.id] = problem
            if repeats == _MAX_REPEATS:
                raise ConfigError(
                    f"{split} problems: expected {num_problems} different ones with {self.min_addends} to "
                    f"{self.max_addends} addends, but there are only {len(found)}; ask for fewer or allow more addends."
                )
        return list(found.values())

    def _draw(self, split: Split, rng: np.random.Generator, addends_range: tuple[int, int] | None = None) -> Problem:
        """Draws a number of addends uniformly, of the task's or of a phase's, then addends until the text belongs to ``split``."""
        low, high = addends_range or (self.min_addends, self.max_addends)
        num_addends = int(rng.integers(low, high + 1))
        while True:
            addends = rng.integers(10, 100, size=num_addends).tolist()
            if split_of("+".join(map(str, addends))) == split:
                return running_sum(addends)
