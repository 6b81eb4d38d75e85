"""A program against its tests, inside of a worker process: the two never share an interpreter.

The tests run in a session of Monty (a subset of Python in a Rust process without files, network or C code), and each of their calls of
the function is carried, as plain data, to the program, which runs in another session of Monty, or in bubblewrap. So the program can
neither read its tests, nor patch what they use, nor return an object that is equal to everything, nor leave before they have run.
"""

from __future__ import annotations

import builtins
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from atesd_env.tasks.grading.bubblewrap import BubblewrappedProgram, ProgramError, is_usable
from atesd_env.tasks.grading.workers import last_deadline, limit_memory

MEMORY_BYTES = 256 * 2**20
"""Heap of a session."""
OUTPUT_BYTES = 2**20
"""What a program may print; it is thrown away."""
STAGE_SEC = 3.0
"""Seconds that a program's calls may take together, in Monty and then in bubblewrap."""

_MAX_CALLS = 100_000
_LONGEST_REASON = 500
_PRELUDE = "import math\n"  # tests of MBPP+ use it without an import
_NOT_IN_THE_SUBSET = ("ModuleNotFoundError", "ImportError", "NotImplementedError", "AttributeError")


class _Program(Protocol):
    def define(self, source: str) -> None: ...

    def call(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any: ...


class _MontyProgram:
    """A program in a session of Monty.

    Args:
        session: A session that is open.
        deadline: When it has had its time, by ``time.monotonic``.
    """

    def __init__(self, session: Any, deadline: float) -> None:
        self._session = session
        self._deadline = deadline

    def define(self, source: str) -> None:
        self._run(source)

    def call(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        inputs = {"arguments_": list(arguments), "keywords_": keywords}
        return self._run(f"{name}(*arguments_, **keywords_)", inputs=inputs)

    def _run(self, source: str, **options: Any) -> Any:
        import pydantic_monty as monty

        if time.monotonic() > self._deadline:
            raise ProgramError("TimeoutError", "time limit exceeded")
        try:
            return self._session.feed_run(source, print_callback=monty.CollectString(OUTPUT_BYTES), **options)
        except monty.MontyError as error:
            inner = error.exception()
            kind = "SyntaxError" if isinstance(error, monty.MontySyntaxError) else type(inner).__name__
            raise ProgramError(kind, str(inner)) from error


def judge(
    pool: Any, program: str, context: str, tests: str, entry_point: str, stage_sec: float = STAGE_SEC
) -> dict[str, str]:
    """Returns the outcome ("passed", "failed" or "not executed"), the failing test and why, and what ran the program.

    Args:
        pool: Monty's.
        program: Of a model.
        context: What of the problem's own program comes before it: imports and helpers.
        tests: Assertions about the function, or a function ``check`` of it.
        entry_point: The function's name.
        stage_sec: Seconds that the calls may take together, in Monty and then in bubblewrap.
    """
    limits = {"max_memory": MEMORY_BYTES, "max_feed_duration_secs": stage_sec, "max_suspensions": _MAX_CALLS}
    case = _Case(
        partial(pool.checkout, limits=limits, os_policy={"sleep": "zero"}), program, context, tests, entry_point
    )
    with case.checkout() as session:
        outcome = case.judged(_MontyProgram(session, time.monotonic() + stage_sec)) | {"by": "monty"}
    if outcome["outcome"] == "not executed" and is_usable():
        with BubblewrappedProgram(time.monotonic() + stage_sec) as program_process:
            return case.judged(program_process) | {"by": "bubblewrap"}
    return outcome


@dataclass(frozen=True)
class _Case:
    """A program and its tests; ``checkout`` opens a session of Monty."""

    checkout: Callable[[], Any]
    program: str
    context: str
    tests: str
    entry_point: str

    def judged(self, where: _Program) -> dict[str, str]:
        """Returns outcome and reason, the program being run by ``where``."""
        raised: list[ProgramError] = []
        try:
            where.define(self.context)
            where.define(self.program)
        except ProgramError as error:
            return _outcome(where, error, "the program itself")

        def candidate(*arguments: Any, **keywords: Any) -> Any:
            try:
                return where.call(self.entry_point, arguments, keywords)
            except ProgramError as error:
                raised.append(error)
                kind: Any = getattr(builtins, error.kind, None)
                if not (isinstance(kind, type) and issubclass(kind, Exception)):
                    kind = RuntimeError
                raise kind(str(error)) from error

        failure = self._failure(candidate)
        # Tests may expect an exception; a limit that was exceeded is none.
        stopped = [error for error in raised if error.kind in ("TimeoutError", "MemoryError", "ProcessEnded")]
        if failure is None:
            return _outcome(where, stopped[0], "a call that the tests went on from") if stopped else _said("passed", "")
        line, kind, message = failure
        if raised:
            return _outcome(where, raised[-1], line)
        return _said("not executed" if kind in _NOT_IN_THE_SUBSET else "failed", f"{line}: {kind}: {message}")

    def _failure(self, candidate: Callable[..., Any]) -> tuple[str, str, str] | None:
        """Runs the tests; returns the line that fails, with the exception's kind and message, or None."""
        import pydantic_monty as monty

        check = f"\ncheck({self.entry_point})" if "def check(" in self.tests else ""
        with self.checkout() as session:
            try:
                for source in (self.context, f"{_PRELUDE}{self.entry_point} = candidate\n{self.tests}{check}"):
                    session.feed_run(
                        source,
                        print_callback=monty.CollectString(OUTPUT_BYTES),
                        external_lookup={"candidate": candidate},
                    )
            except monty.MontyError as error:
                frames: list[Any] = getattr(error, "traceback", list)()
                inner = error.exception()
                line = (frames[-1].source_line or "").strip() if frames else "the tests"
                return line, type(inner).__name__, str(inner)
        return None


def _outcome(where: _Program, error: ProgramError, test: str) -> dict[str, str]:
    is_subset = isinstance(where, _MontyProgram)
    is_unknown = is_subset and (error.kind in _NOT_IN_THE_SUBSET or str(error).endswith("is not an iterator"))
    return _said("not executed" if is_unknown else "failed", f"{test}: {error}")


def _said(outcome: str, reason: str) -> dict[str, str]:
    return {"outcome": outcome, "reason": " ".join(reason.split())[:_LONGEST_REASON]}


def serve(requests: Iterator[bytes], reply: Callable[[bytes], None]) -> None:
    """Runs in the worker process: says what keeps Monty from being loaded (nothing, if all is well), then judges."""
    try:
        import pydantic_monty as monty

        limit_memory()
        # Two sessions are open at a time. A worker that is stuck is killed by the pool, which replaces it.
        pool = monty.Monty(min_processes=2, max_processes=2, request_timeout=2 * STAGE_SEC)
        pool.__enter__()
    except Exception as error:
        reply(f"{type(error).__name__}: {error}".encode())
        return
    reply(b"")
    for line in requests:
        request = json.loads(line)
        with last_deadline(request.pop("limit_sec")):
            try:
                verdict = judge(pool, **request)
            except Exception as error:  # a text or a value that cannot be carried, such as half of a surrogate pair
                verdict = _said("failed", f"{type(error).__name__}: {error}")
        reply(json.dumps(verdict).encode())
