"""What the judge of programs does with hostile ones, how many reference programs it runs, and how many checks a second.

Writes ``benchmarks/results/grading_programs.json``; the page on task code shows it as tables.

    python -m benchmarks.grading_programs tests/data/humaneval_sample.jsonl tests/data/mbppplus_sample.jsonl
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path
from typing import Any

from atesd_env.tasks.code import CodeTask
from atesd_env.tasks.data.rows import read_rows
from atesd_env.tasks.grading import programs
from atesd_env.tasks.grading.bubblewrap import is_usable
from benchmarks.common import save
from benchmarks.hostile_programs import HOSTILE, TESTS

# Monty has no module of this name, so a program that imports it goes to CPython in bubblewrap.
_TO_BUBBLEWRAP = "import heapq\n"


def hostile(prefix: str) -> dict[str, dict[str, Any]]:
    """Returns what comes of each hostile program, with some text before it, and after how long."""
    found = {}
    for name, program in HOSTILE.items():
        start = time.perf_counter()
        verdict = programs.run_tests(prefix + program, "", TESTS, "f")
        found[name] = {
            "outcome": verdict.outcome,
            "reason": verdict.reason,
            "sec": round(time.perf_counter() - start, 2),
        }
    return found


def references(path: Path) -> dict[str, Any]:
    """Returns what comes of the reference programs of a file, and the checks a second of one thread in Monty."""
    rows, _ = read_rows(path, parse=CodeTask.parse)
    requests = [(row.solution, row.context, row.tests, row.entry_point) for row in rows]
    programs.run_tests("def f(): return 1", "", "assert f() == 1", "f")  # the worker is started
    start = time.perf_counter()
    verdicts = [programs.run_tests(*request) for request in requests]
    seconds = time.perf_counter() - start
    return {
        "rows": len(rows),
        "outcomes": dict(Counter(f"{verdict.outcome} ({verdict.by})" for verdict in verdicts)),
        "checks_a_second": round(len(rows) / seconds, 1),
        "not_passed": {row.id: v.reason for row, v in zip(rows, verdicts, strict=True) if v.outcome != "passed"},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="JSONL of programs with tests")
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "bubblewrap": is_usable(),
        "references": {path.stem: references(path) for path in arguments.files},
        "hostile_in_monty": hostile(""),
    }
    if is_usable():
        result["hostile_in_bubblewrap"] = hostile(_TO_BUBBLEWRAP)
    save("grading_programs", result)


if __name__ == "__main__":
    main()
