"""math-verify in a worker process that can be killed.

math-verify hands model-written text to a computer algebra system, which ten characters (``9^{9^9}``) can keep busy for
hours, and its own time limit needs signals and so the main thread. Here it runs in one worker process with a hard time
limit (`workers`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from functools import lru_cache

from atesd_env.tasks.grading.algebra import are_equal
from atesd_env.tasks.grading.workers import MAX_WORKERS, Pool, last_deadline, limit_memory

_logger = logging.getLogger(__name__)

TIME_LIMIT_SEC = 5.0
"""Seconds that math-verify may take for one pair of answers; after that they count as different."""


@lru_cache(maxsize=4096)
def verified(given: str, expected: str) -> bool | None:
    """Returns whether math-verify finds two answers equal; None for what takes longer than ``TIME_LIMIT_SEC``.

    Args:
        given: A rollout's answer, without a box.
        expected: The reference answer.

    Raises:
        AtesdError: If math-verify cannot be started.
    """
    # Cached because the same greedy answers come back in every window, and a time-out should be paid for once.
    return _pool.verify(given, expected)


def num_grading_timeouts() -> int:
    """Returns how many comparisons of this process were given up, because of time, memory or a crash of math-verify."""
    return _pool.num_timeouts


class _Pool(Pool):
    """Worker processes that compare answers, one pair each at a time."""

    def __init__(self, max_workers: int) -> None:
        super().__init__(_serve, "math_verify", max_workers)

    def verify(self, given: str, expected: str) -> bool | None:
        """Returns what ``verified`` does, when a worker is free."""
        reply = self.ask({"given": given, "expected": expected}, TIME_LIMIT_SEC)
        if reply is None:
            _logger.warning(
                "comparing the answers %.80r and %.80r was given up (more than %g s, too much memory, or a crash); they "
                "count as different.",
                given,
                expected,
                TIME_LIMIT_SEC,
            )
        return None if reply is None else bool(reply["equal"])


def _serve(requests: Iterator[bytes], reply: Callable[[bytes], None]) -> None:
    """Runs in the worker process: says what keeps math-verify from being loaded (nothing, if all is well), then answers."""
    try:
        import math_verify  # noqa: F401
    except Exception as error:
        reply(f"{type(error).__name__}: {error}".encode())
        return
    limit_memory()
    reply(b"")
    for line in requests:
        request = json.loads(line)
        with last_deadline(request["limit_sec"]):
            equal = are_equal(request["given"], request["expected"])
        reply(json.dumps({"equal": equal}).encode())


_pool = _Pool(MAX_WORKERS)
