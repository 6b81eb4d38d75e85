"""math-verify in a worker process that can be killed.

math-verify hands model-written text to a computer algebra system, which ten characters (``9^{9^9}``) can keep busy for
hours, and its own time limit needs signals and so the main thread. Here it runs in one worker process with a hard time
limit. The process is started when it is first needed, shared by all threads, and replaced after a time-out.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from atesd_env.errors import AtesdError
from atesd_env.processes import Child, ChildEndedError
from atesd_env.tasks.grading.algebra import are_equal

_logger = logging.getLogger(__name__)

TIME_LIMIT_SEC = 5.0
"""Seconds that math-verify may take for one pair of answers; after that they count as different."""
START_LIMIT_SEC = 120.0
"""Seconds that the worker process may take to load math-verify."""
MEMORY_LIMIT_BYTES = 4 * 2**30
"""Address space of a worker process, where the system can limit it."""
MAX_WORKERS = max(2, min(8, os.cpu_count() or 2))
"""Most worker processes of this process; as many threads can have answers compared at the same time."""


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


class _Pool:
    """Worker processes that compare answers, one pair each at a time. A caller without rivals meets the same one again."""

    def __init__(self, max_workers: int) -> None:
        self.workers = [_Worker() for _ in range(max_workers)]
        # Last in, first out: so no more processes are started than there are callers at the same time.
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._fill()

    @property
    def num_timeouts(self) -> int:
        """Comparisons that were given up."""
        return sum(worker.num_timeouts for worker in self.workers)

    def verify(self, given: str, expected: str) -> bool | None:
        """Returns what ``verified`` does, when a worker is free."""
        worker = self._idle.get()
        try:
            return worker.verify(given, expected)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """Ends the processes."""
        for worker in self.workers:
            worker.close()

    def forget(self) -> None:
        """Leaves the processes to the parent, after a fork."""
        for worker in self.workers:
            worker.forget()
        self._idle = queue.LifoQueue()
        self._fill()

    def _fill(self) -> None:
        for worker in self.workers:
            self._idle.put(worker)


class _Worker:
    """One worker process that compares answers with math-verify, one pair at a time, in the order of the callers."""

    def __init__(self) -> None:
        self.num_timeouts = 0
        self._lock = threading.Lock()
        self.child: Child | None = None

    def verify(self, given: str, expected: str) -> bool | None:
        request = {"given": given, "expected": expected, "limit_sec": TIME_LIMIT_SEC}
        with self._lock:
            try:
                reply = self._exchange(request)
            except ChildEndedError:
                self._stop()
                self.num_timeouts += 1
                _logger.warning(
                    "comparing the answers %.80r and %.80r was given up (more than %g s, too much memory, or a crash); they "
                    "count as different.",
                    given,
                    expected,
                    TIME_LIMIT_SEC,
                )
                return None
            except BaseException:
                # A reply that was not waited for would be taken for the answer to the next request.
                self._stop()
                raise
            return bool(reply["equal"])

    def close(self) -> None:
        with self._lock:
            self._stop()

    def forget(self) -> None:
        """Leaves the process to the parent, after a fork."""
        self._lock = threading.Lock()
        if self.child is not None:
            self.child.forget()
            self.child = None

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        if self.child is None or not self.child.is_alive:
            self._stop()
            self.child = _started()
        with self.child.deadline(TIME_LIMIT_SEC):
            self.child.send(json.dumps(request).encode())
            reply: dict[str, Any] = json.loads(self.child.receive())
        return reply

    def _stop(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child = None


def _started() -> Child:
    """Returns a process that has loaded math-verify."""
    child = Child(_serve, is_silent=True)
    try:
        with child.deadline(START_LIMIT_SEC):
            problem = child.receive().decode()
    except ChildEndedError as ended:
        problem = f"{ended} (it may take {START_LIMIT_SEC:g} s to start)"
    except BaseException:
        child.kill()
        raise
    if problem:
        child.kill()
        raise AtesdError(
            f"answers: expected math-verify to run in a worker process, got: {problem}; try "
            f"`{sys.executable} -c 'import math_verify'`."
        )
    return child


def _serve(requests: Iterator[bytes], reply: Callable[[bytes], None]) -> None:
    """Runs in the worker process: says what keeps math-verify from being loaded (nothing, if all is well), then answers."""
    try:
        import math_verify  # noqa: F401
    except Exception as error:
        reply(f"{type(error).__name__}: {error}".encode())
        return
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    reply(b"")
    for line in requests:
        request = json.loads(line)
        with _deadline(request["limit_sec"]):
            equal = are_equal(request["given"], request["expected"])
        reply(json.dumps({"equal": equal}).encode())


@contextlib.contextmanager
def _deadline(limit_sec: float) -> Iterator[None]:
    """Ends this process some seconds after the parent should have, in case that the parent is gone."""
    # The default action of the signal works even inside one long multiplication, where no Python handler would run.
    if hasattr(signal, "alarm"):
        signal.alarm(int(limit_sec) + 10)
        yield
        signal.alarm(0)
    else:
        yield


_pool = _Pool(MAX_WORKERS)
atexit.register(_pool.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.forget)
