"""Which rows of a data file are kept: limits on lengths, and nothing that a benchmark has too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from atesd_env.tasks.data.rows import DataRow
from atesd_env.tasks.segmentation import split_steps


@dataclass(frozen=True)
class LengthLimits:
    """Inclusive limits; None is no limit.

    Attributes:
        min_steps: Fewest steps of the solution.
        max_steps: Most steps.
        max_problem_tokens: Longest problem.
        max_solution_tokens: Longest solution.
    """

    min_steps: int | None = None
    max_steps: int | None = None
    max_problem_tokens: int | None = None
    max_solution_tokens: int | None = None


@dataclass(frozen=True)
class RowLengths:
    """How long a row is.

    Attributes:
        steps: Steps of its solution, by our rule of segmentation.
        problem_tokens: Tokens of its problem.
        solution_tokens: Tokens of its solution.
    """

    steps: int
    problem_tokens: int
    solution_tokens: int

    def breach(self, limits: LengthLimits) -> str | None:
        """Returns the name of the first limit that is not kept, or None.

        >>> RowLengths(3, 20, 90).breach(LengthLimits(max_solution_tokens=80))
        'max_solution_tokens'
        """
        checks = (
            ("min_steps", limits.min_steps, self.steps, -1),
            ("max_steps", limits.max_steps, self.steps, 1),
            ("max_problem_tokens", limits.max_problem_tokens, self.problem_tokens, 1),
            ("max_solution_tokens", limits.max_solution_tokens, self.solution_tokens, 1),
        )
        return next(
            (name for name, limit, value, sign in checks if limit is not None and sign * (value - limit) > 0), None
        )


def measured(
    rows: Iterable[DataRow],
    count_tokens: Callable[[str], int],
    steps: Callable[[str], Sequence[str]] = split_steps,
) -> Iterator[tuple[DataRow, RowLengths]]:
    """Yields each row with its lengths.

    Args:
        rows: The rows.
        count_tokens: Tokens of a text.
        steps: Cuts a solution.
    """
    for row in rows:
        yield (
            row,
            RowLengths(len(steps(row.solution)), count_tokens(row.problem), count_tokens(row.solution)),
        )
