"""Task `lists`: small programs on lists of digits, whose worked steps are the lists in between, generated without end.

``5294.sort.flip`` has the reference solution ``sort=2459;flip=9542#9542``: one step for each operation, then ``#`` and the list at the
end. Difficulty is the number of operations.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from atesd_env.tasks.base import Problem
from atesd_env.tasks.generated import DrawnTask
from atesd_env.tasks.hashed import HashedTask

LENGTH = 4
"""Digits of a list."""
MAX_OPERATIONS = 5
"""Most operations of a program."""
OPERATIONS: dict[str, Callable[[list[int]], list[int]]] = {
    "flip": lambda digits: digits[::-1],
    "turn": lambda digits: [*digits[1:], digits[0]],
    "swap": lambda digits: [digits[-1], *digits[1:-1], digits[0]],
    "plus": lambda digits: [(digit + 1) % 10 for digit in digits],
    "sort": sorted,
}
"""What a program is made of: back to front; the first digit goes to the end; first and last change places; one more, 0 after 9; in
ascending order."""


def program(digits: list[int], operations: list[str]) -> Problem:
    """Returns the problem of carrying out one or more ``operations`` on a list, with a step for each.

    >>> program([5, 2, 9, 4], ["sort", "flip"]).steps
    ('sort=2459;', 'flip=9542')
    """
    text = ".".join(["".join(map(str, digits)), *operations])
    steps = []
    for name in operations:
        digits = OPERATIONS[name](digits)
        steps.append(f"{name}={''.join(map(str, digits))};")
    steps[-1] = steps[-1].removesuffix(";")
    answer = "".join(map(str, digits))
    return Problem(id=text, problem=text, steps=tuple(steps), answer=answer, difficulty=float(len(operations)))


class ListsTask(HashedTask, DrawnTask):
    """Programs of ``min_operations`` to ``max_operations`` operations on lists of four digits.

    Args:
        min_operations: Fewest operations, at least 1.
        max_operations: Most operations.
    """

    def __init__(self, min_operations: int, max_operations: int) -> None:
        self.min_operations, self.max_operations = min_operations, max_operations

    def draw(self, rng: np.random.Generator) -> Problem:
        num_operations = int(rng.integers(self.min_operations, self.max_operations + 1))
        names = [list(OPERATIONS)[index] for index in rng.integers(len(OPERATIONS), size=num_operations)]
        return program(rng.integers(10, size=LENGTH).tolist(), names)
