"""Programs of a model, judged by their tests in isolation; nothing of a model's ever runs bare, and no switch makes it.

Monty comes first; what that subset of Python cannot run goes to bubblewrap where it is installed; what neither runs is *not executed*,
and counted as such. How program and tests are kept apart says `sandbox`.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from atesd_env.errors import ConfigError
from atesd_env.tasks.grading import sandbox
from atesd_env.tasks.grading.workers import Pool

LIMIT_SEC = 8 * sandbox.STAGE_SEC
"""Seconds after which a worker that has not answered is killed. An endless loop takes ``sandbox.STAGE_SEC``; this is for the worst."""

Outcome = Literal["passed", "failed", "not executed"]
"""What comes of a program and its tests."""


@dataclass(frozen=True)
class Verdict:
    """What the tests say of a program.

    Attributes:
        outcome: "passed", "failed" (limits of time, memory and output too), or "not executed".
        reason: The failing test and what came of it; "" if all passed.
        by: What ran the program: "monty", "bubblewrap", or "" if the judge itself was given up.
    """

    outcome: Outcome
    reason: str
    by: str = ""


@lru_cache(maxsize=4096)
def run_tests(
    program: str, context: str, tests: str, entry_point: str, stage_sec: float = sandbox.STAGE_SEC
) -> Verdict:
    """Returns what a program's tests say of it, after a bounded time, whatever the program does.

    Args:
        program: Of a model; defines the function.
        context: Of the problem: imports and helpers that come before it, perhaps nothing.
        tests: Of the problem: assertions about the function by its name, or a function ``check`` that is given it.
        entry_point: The function's name.
        stage_sec: Seconds that the function's calls may take together.

    Raises:
        AtesdError: If the judge cannot be started.
    """
    # Cached because the same greedy programs come back in every window.
    request = {
        "program": program,
        "context": context,
        "tests": tests,
        "entry_point": entry_point,
        "stage_sec": stage_sec,
    }
    reply = _pool.ask(request, LIMIT_SEC)
    if reply is None:
        return Verdict("failed", f"the judge was given up (more than {LIMIT_SEC:g} s, too much memory, or a crash)")
    return Verdict(**reply)


def check_installed() -> None:
    """Refuses to go on where there is no sandbox.

    Raises:
        ConfigError: If the package pydantic-monty is not installed.
    """
    if importlib.util.find_spec("pydantic_monty") is None:
        raise ConfigError(
            "task: expected the package 'pydantic-monty', in which task 'code' runs programs, got none; install it "
            "(pip install 'atesd-env[code]'). Nothing of a model's runs without it."
        )


_pool = Pool(sandbox.serve, "pydantic_monty")
