"""Worker processes that judge what strangers wrote: one request at a time each, killed and replaced where it takes too long.

Processes are started when they are first needed, shared by all threads, and left to the parent by a fork.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from atesd_env.errors import AtesdError
from atesd_env.processes import Child, ChildEndedError
from atesd_env.processes.child import Serve

START_LIMIT_SEC = 120.0
"""Seconds that a worker process may take to load what it judges with."""
MEMORY_LIMIT_BYTES = 4 * 2**30
"""Address space of a worker process, where the system can limit it."""
MAX_WORKERS = max(2, min(8, os.cpu_count() or 2))
"""Most worker processes of a pool; as many threads can have answers judged at the same time."""


class Pool:
    """Worker processes that answer one request each at a time. A caller without rivals meets the same one again.

    Args:
        serve: What runs in a process. Its first reply says what keeps it from starting, nothing if all is well; each of the
            others is JSON, and so is each request.
        module: What it needs, as it is imported; named where it cannot start.
        max_workers: Most processes.
    """

    def __init__(self, serve: Serve, module: str, max_workers: int = MAX_WORKERS) -> None:
        self.workers = [_Worker(serve, module) for _ in range(max_workers)]
        # Last in, first out: so no more processes are started than there are callers at the same time.
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._fill()
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    @property
    def num_timeouts(self) -> int:
        """Requests that were given up."""
        return sum(worker.num_timeouts for worker in self.workers)

    def ask(self, request: dict[str, Any], limit_sec: float) -> dict[str, Any] | None:
        """Returns the reply to a request, or None if it was given up: too slow, too much memory, or a crash.

        Raises:
            AtesdError: If a process cannot be started.
        """
        worker = self._idle.get()
        try:
            return worker.ask(request, limit_sec)
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
    """One worker process; requests are answered in the order of the callers."""

    def __init__(self, serve: Serve, module: str) -> None:
        self.num_timeouts = 0
        self.child: Child | None = None
        self._serve = serve
        self._module = module
        self._lock = threading.Lock()

    def ask(self, request: dict[str, Any], limit_sec: float) -> dict[str, Any] | None:
        with self._lock:
            try:
                return self._exchange(request | {"limit_sec": limit_sec}, limit_sec)
            except ChildEndedError:
                self._stop()
                self.num_timeouts += 1
                return None
            except BaseException:
                # A reply that was not waited for would be taken for the answer to the next request.
                self._stop()
                raise

    def close(self) -> None:
        with self._lock:
            self._stop()

    def forget(self) -> None:
        """Leaves the process to the parent, after a fork."""
        self._lock = threading.Lock()
        if self.child is not None:
            self.child.forget()
            self.child = None

    def _exchange(self, request: dict[str, Any], limit_sec: float) -> dict[str, Any]:
        if self.child is None or not self.child.is_alive:
            self._stop()
            self.child = _started(self._serve, self._module)
        with self.child.deadline(limit_sec):
            self.child.send(json.dumps(request).encode())
            reply: dict[str, Any] = json.loads(self.child.receive())
        return reply

    def _stop(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child = None


def _started(serve: Serve, module: str) -> Child:
    """Returns a process that is ready."""
    child = Child(serve, is_silent=True)
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
            f"answers: expected {module.replace('_', '-')} to run in a worker process, got: {problem}; try "
            f"`{sys.executable} -c 'import {module}'`."
        )
    return child


def limit_memory() -> None:
    """Limits the address space of this process, a worker, and of the processes that it starts."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))


@contextlib.contextmanager
def last_deadline(limit_sec: float) -> Iterator[None]:
    """Ends this process, a worker, some seconds after the parent should have, in case that the parent is gone."""
    # The default action of the signal works even inside one long multiplication, where no Python handler would run.
    if hasattr(signal, "alarm"):
        signal.alarm(int(limit_sec) + 10)
        yield
        signal.alarm(0)
    else:
        yield
