"""Many runs in several processes: one that fails, or whose process dies, does not take the others with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from atesd.experiments.run import execute
from atesd.experiments.specs import RunSpec
from atesd_env.errors import AgentError, AtesdError, ConfigError

GRACE_SEC = 20.0
"""How long an interrupted run may take to put its files in order before its process is killed."""

_REPORT_EVERY_SEC = 0.1
_THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True)
class FailedRun:
    """A run that did not come to its end; the rows that it wrote stay readable, and it can go on.

    Attributes:
        spec: The run.
        reason: What went wrong, for people.
        details: The traceback, where it is not one of our own errors; may be empty.
    """

    spec: RunSpec
    reason: str
    details: str = ""


@dataclass(frozen=True)
class Progress:
    """What has happened since the last report: ``num_windows`` more of a run, which has ended if ``is_over``."""

    spec: RunSpec
    num_windows: int
    is_over: bool


def num_cores() -> int:
    """Returns the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def execute_all(
    specs: Sequence[RunSpec],
    *,
    processes: int,
    overwrite: bool = False,
    resume: bool = False,
    checkpoint_every: int = 0,
    report: Callable[[Progress], None] | None = None,
) -> list[FailedRun]:
    """Executes runs (``atesd.experiments.run.execute``) in several fresh processes, and returns those that failed.

    A process takes one run after the other. Each computes with cores / processes threads, unless the environment variable
    OMP_NUM_THREADS says otherwise. Results repeat bit for bit with the same number of threads only. No more processes than
    runs are started, and runs begin in their order; ``report`` is called some ten times a second and process at most, and
    the other arguments are those of ``execute``.

    Raises:
        ConfigError: If ``processes`` is not at least 1.
        KeyboardInterrupt: After an interruption, once all processes have ended. ``resume`` goes on from there.
    """
    if processes < 1:
        raise ConfigError(f"processes: expected at least 1, got {processes}; pass 1 or more.")
    options = {"overwrite": overwrite, "resume": resume, "checkpoint_every": checkpoint_every}
    waiting = deque(specs)
    failed: list[FailedRun] = []
    num_threads = max(1, num_cores() // min(processes, max(len(specs), 1)))
    workers: dict[Connection, _Worker] = {}
    try:
        while waiting or workers:
            while waiting and len(workers) < processes:
                worker = _Worker(options, num_threads)
                workers[worker.connection] = worker
                worker.begin(waiting.popleft())
            for ready in wait(list(workers)):
                assert isinstance(ready, Connection)
                worker = workers[ready]
                num_windows, is_over, failure = worker.receive()
                if failure is not None:
                    failed.append(failure)
                if report is not None:
                    report(Progress(worker.spec, num_windows, is_over))
                if is_over and waiting and worker.is_alive:
                    worker.begin(waiting.popleft())
                elif is_over:
                    worker.end()
                    del workers[ready]
    finally:
        _stop(list(workers.values()))
    return failed


class _Worker:
    """A process that executes the runs that it is sent, one at a time."""

    spec: RunSpec

    def __init__(self, options: dict[str, Any], num_threads: int) -> None:
        # Spawned, since a forked torch may hang; and by multiprocessing, not as a `Child`, because its process imports the
        # user's main script, where an agent's class may stand.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        # Not a daemon: those may have no children, and answers are compared in a child process.
        self.process = context.Process(target=_work, args=(theirs, options))
        with _inherited(num_threads):
            self.process.start()
        theirs.close()  # so that the pipe breaks when the process dies

    @property
    def is_alive(self) -> bool:
        return not self.connection.closed

    def begin(self, spec: RunSpec) -> None:
        self.spec = spec
        with suppress(OSError):  # a process that is dead already is found out by `receive`
            self.connection.send(spec)

    def receive(self) -> tuple[int, bool, FailedRun | None]:
        """Returns (windows made since the last message, whether the run is over, its failure)."""
        try:
            num_windows, is_over, reason, details = self.connection.recv()
        except (EOFError, OSError):
            self.end()
            reason = f"its process ended with {_exit_text(self.process.exitcode)}"
            return 0, True, FailedRun(self.spec, reason)
        return num_windows, is_over, FailedRun(self.spec, reason, details) if reason else None

    def end(self) -> None:
        self.connection.close()
        self.process.join(GRACE_SEC)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()


def _work(connection: Connection, options: dict[str, Any]) -> None:
    """Executes the runs that come through the pipe, until it is closed."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt, EOFError, BrokenPipeError):
        signal.signal(signal.SIGTERM, stop)
        while True:
            spec = connection.recv()
            counter = _WindowCounter(connection)
            reason, details = attempt(spec, options, counter)
            connection.send((counter.num_unsent, True, reason, details))


def attempt(spec: RunSpec, options: dict[str, Any], report: Callable[[dict[str, Any]], None] | None) -> tuple[str, str]:
    """Executes one run in this process; returns why it failed and a traceback, both empty where it did not."""
    try:
        execute(spec, report=report, **options)
    except AgentError as error:
        # Our own error in form; what its user needs to see is the place in the agent.
        return str(error), traceback.format_exc()
    except AtesdError as error:
        return str(error), ""
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}", traceback.format_exc()
    return "", ""


class _WindowCounter:
    """Counts a run's windows, and tells of them not too often."""

    def __init__(self, connection: Connection) -> None:
        self.num_unsent = 0
        self._connection = connection
        self._last_sec = time.monotonic()

    def __call__(self, _: dict[str, Any]) -> None:
        self.num_unsent += 1
        if time.monotonic() - self._last_sec >= _REPORT_EVERY_SEC:
            self._connection.send((self.num_unsent, False, "", ""))
            self.num_unsent, self._last_sec = 0, time.monotonic()


@contextmanager
def _inherited(num_threads: int) -> Iterator[None]:
    """What processes started in here begin with: a number of threads, and Ctrl-C left to this process."""
    # Blocked, not ignored: one that comes in this moment reaches this process after it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if hasattr(signal, "pthread_sigmask") else None
    is_set_here = _THREADS not in os.environ
    os.environ.setdefault(_THREADS, str(num_threads))
    try:
        yield
    finally:
        if is_set_here:
            del os.environ[_THREADS]
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _stop(workers: Sequence[_Worker]) -> None:
    """Ends processes in the middle of their runs, all at once."""
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        worker.end()


def _exit_text(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        hint = " (often: out of memory)" if exitcode == -signal.SIGKILL else ""
        return f"signal {signal.Signals(-exitcode).name}{hint}"
    return f"exit status {exitcode}"
