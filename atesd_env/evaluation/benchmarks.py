r"""Benchmarks: named sets of problems with an answer each; a worked solution is not needed.

A name stands for a data set of the hub; a JSONL or Parquet file of problem and answer is always possible. Rows are read by the same
rules as those to train on.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from atesd_env.errors import ConfigError, DataError
from atesd_env.tasks.base import Problem
from atesd_env.tasks.data.rows import log_report, read_rows
from atesd_env.tasks.registry import rows_task

BENCHMARKS = {
    "aime24": "HuggingFaceH4/aime_2024",
    "aime25": "yentinglin/aime_2025",
    "hmmt25": "MathArena/hmmt_feb_2025",
    "math500": "HuggingFaceH4/MATH-500",
    "gsm8k": "openai/gsm8k",
    "humaneval": "openai/openai_humaneval",
    "mbppplus": "evalplus/mbppplus",
}
"""Data set of the hub behind each name."""
CODE_BENCHMARKS = ("humaneval", "mbppplus")
"""Those whose answers are programs."""


@dataclass(frozen=True)
class Benchmark:
    """Problems to evaluate on.

    Attributes:
        name: As it was asked for.
        problems: In the order of the source; ``steps`` are empty.
        fingerprint: SHA-256 of ids, problems and answers (of programs, their tests): two evaluations with the same one asked the same.
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
        for text in (problem.id, problem.problem, *problem.what_counts):
            checksum.update(f"{len(text)}:{text}".encode())
    return Benchmark(name, tuple(problems), checksum.hexdigest())


def read_benchmark(
    name: str, max_problems: int | None = None, *, columns: Mapping[str, str] | None = None, task: str = "math"
) -> Benchmark:
    """Reads a benchmark by its name, hub id or file.

    A problem that came before is left out; a warning says so, and says where two of them have different answers.

    Args:
        name: One of ``BENCHMARKS``, a hub id, or a JSONL or Parquet file with problem and answer (and perhaps id).
        max_problems: Only the first ones; None takes all.
        columns: Our field -> theirs, where they differ (`shapes.parse_columns`).
        task: Whose rows they are: "code", "choice", or any other for problems with a final answer.

    Raises:
        ConfigError: If the benchmark is another task's.
        DataError: If it cannot be read, a row is malformed, or an id stands twice.
    """
    if (name in CODE_BENCHMARKS) != (task == "code") and name in BENCHMARKS:
        raise ConfigError(
            f"benchmark: expected one that task {task!r} can judge, got {name!r}; pass --task "
            f"{'code' if name in CODE_BENCHMARKS else 'math'} with its --data-path, or another benchmark."
        )
    kind = rows_task(task)
    source = BENCHMARKS.get(name, name)
    rows, report = read_rows(source, "measuring", needs_solution=False, columns=columns, parse=kind.parse)
    log_report(report)
    problems = [
        dataclasses.replace(kind.as_problem(row, has_levels=False), steps=(), difficulty=0.0)
        for row in rows[:max_problems]
    ]
    return make_benchmark(name, problems)
