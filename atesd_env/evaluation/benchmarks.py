r"""Benchmarks: named sets of problems with an answer each; a worked solution is not needed.

A name stands for a data set of the hub; a JSONL or Parquet file of problem and answer is always possible.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from atesd_env.errors import DataError
from atesd_env.tasks.base import Problem
from atesd_env.tasks.data.rows import normalised_problem, parse_row
from atesd_env.tasks.data.sources import raw_rows

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


def read_benchmark(name: str, max_problems: int | None = None) -> Benchmark:
    """Reads a benchmark by its name, hub id or file.

    A problem that came before is left out. Whole-number answers may stand without quotes.

    Args:
        name: One of ``BENCHMARKS``, a hub id, or a JSONL or Parquet file with problem and answer (and perhaps id).
        max_problems: Only the first ones; None takes all.

    Raises:
        DataError: If it cannot be read, a row is malformed, or an id stands twice.
    """
    source = BENCHMARKS.get(name, name)
    problems: list[Problem] = []
    seen: set[str] = set()
    ids: set[str] = set()
    for line, fields in raw_rows(source):
        if max_problems is not None and len(problems) >= max_problems:
            break
        if isinstance(fields, dict):
            answer, solution = fields.get("answer"), fields.get("solution")
            # Level and the like are not used here, and a benchmark's spelling of them must not stop an evaluation.
            fields = {
                "problem": fields.get("problem"),
                "solution": solution if isinstance(solution, str) else "",
                "answer": str(answer) if isinstance(answer, int) and not isinstance(answer, bool) else answer,
                "id": fields.get("id"),
            }
        row = parse_row(Path(source) if name == source else name, line, fields)
        if not row.answer:
            raise DataError(f"{name}, line {line}, field 'answer': expected text, got none; add it.")
        if normalised_problem(row.problem) in seen:
            continue
        if row.id in ids:
            raise DataError(f"{name}, line {line}, field 'id': expected an id of its own, got {row.id!r}; rename it.")
        seen.add(normalised_problem(row.problem))
        ids.add(row.id)
        problems.append(Problem(id=row.id, problem=row.problem, steps=(), answer=row.answer, difficulty=0.0))
    return make_benchmark(name, problems)
