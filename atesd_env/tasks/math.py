"""Task `math`: worked problems from a JSONL file, such as GSM8K or MATH."""

from __future__ import annotations

from atesd_env.tasks.base import Problem
from atesd_env.tasks.boxed import BoxedTask
from atesd_env.tasks.data.rows import DataRow
from atesd_env.tasks.from_rows import RowsTask, difficulty_of
from atesd_env.tasks.segmentation import split_steps


class MathTask(BoxedTask, RowsTask):
    r"""Worked problems whose final answer is boxed (see `atesd_env.tasks.data.rows` for its rows)."""

    @classmethod
    def as_problem(cls, row: DataRow, has_levels: bool) -> Problem:
        steps = split_steps(row.solution)
        views = tuple((name, split_steps(text)) for name, text in row.views)
        return Problem(row.id, row.problem, steps, row.answer, difficulty_of(row, steps, has_levels), views)
