r"""Benchmarks: named sets of problems with an answer each; a worked solution is not needed.

A name stands for a data set of the hub; a JSONL or Parquet file of problem and answer is always possible. Rows are read by the same
rules as those to train on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from atesd_env.errors import DataError
from atesd_env.tasks.base import Problem
from atesd_env.tasks.data.rows import log_report, read_rows

BENCHMARKS = {
    "aime24": "HuggingFaceH4/aime_2024",
    "aime25": "yentinglin/aime_2025",
    "hmmt25": "MathArena/hmmt_feb_2025",
    "math500": "HuggingFaceH4/MATH-500",
    "gsm8k": "openai/gsm8k",
}
"""Data set of the hub behind each name."""


@dataclass(frozen=True)
class Benchmark:
    """Problems to evaluate on.

    Attributes:
        name: As it was asked for.
        problems: In the order of the source; ``steps`` are empty.
        fingerprint: SHA-256 of ids, problems and answers: two evaluations with the same one asked the same.
    """

    name: str
    problems: tuple[Problem, ...]
    fingerprint: str


def make_benchmark(name: str, problems: list[Problem]) -> Benchmark:
    """Returns problems as a benchmark.

    Raises:
        DataError: If there is none.
    """
    if not problems:
        raise DataError(f"benchmark {name}: expected at least one problem, got none; check the file.")
    checksum = hashlib.sha256()
    for problem in problems:
        for text in (problem.id, problem.problem, problem.answer):
            checksum.update(f"{len(text)}:{text}".encode())
    return Benchmark(name, tuple(problems), checksum.hexdigest())


def read_benchmark(
    name: str, max_problems: int | None = None, *, columns: Mapping[str, str] | None = None
) -> Benchmark:
    """Reads a benchmark by its name, hub id or file.

    A problem that came before is left out; a warning says so, and says where two of them have different answers.

    Args:
        name: One of ``BENCHMARKS``, a hub id, or a JSONL or Parquet file with problem and answer (and perhaps id).
        max_problems: Only the first ones; None takes all.
        columns: Our field -> theirs, where they differ (`shapes.parse_columns`).

    Raises:
        DataError: If it cannot be read, a row is malformed, or an id stands twice.
    """
    rows, report = read_rows(BENCHMARKS.get(name, name), "measuring", needs_solution=False, columns=columns)
    log_report(report)
    problems = [
        Problem(id=row.id, problem=row.problem, steps=(), answer=row.answer, difficulty=0.0)
        for row in rows[:max_problems]
    ]
    return make_benchmark(name, problems)
