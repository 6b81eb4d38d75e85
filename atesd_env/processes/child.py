"""A process of our own behind two pipes: requests go to its input, replies come from its output, one for one.

A message is bytes; what they mean is the caller's (JSON where the process reads what strangers wrote, else pickle).
"""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

Serve = Callable[[Iterator[bytes], Callable[[bytes], None]], None]
"""What runs in the process: a function at the top of a module, of the requests and of what sends a reply."""

_LENGTH_BYTES = 8  # before each message
_LAST_SEC = 10.0  # for a process whose pipe is closed to end by itself


class ChildEndedError(Exception):
    """The process ended, or was killed, before it took the request or gave the whole reply.

    Attributes:
        exitcode: As ``subprocess`` has it: a negative signal number, or what the process returned.
    """

    def __init__(self, exitcode: int) -> None:
        super().__init__(f"the process ended with exit code {exitcode}")
        self.exitcode = exitcode


class Child:
    """A process that answers requests; the caller kills it, and waits for each reply before the next request.

    Args:
        serve: What runs in it. What it prints goes to the standard error.
        is_silent: Throw its standard error away.

    Attributes:
        process: The process.
    """

    def __init__(self, serve: Serve, *, is_silent: bool = False) -> None:
        # Not multiprocessing: it refuses daemonic parents, and its spawn imports the user's main script once more.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", f"from {__name__} import run; run({serve.__module__!r}, {serve.__name__!r})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if is_silent else None,
            bufsize=0,  # nothing unsent is left that a fork of this process would send once more
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
            start_new_session=True,  # Ctrl-C is for the parent
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._requests: IO[bytes] = self.process.stdin
        self._replies: IO[bytes] = io.BufferedReader(self.process.stdout)  # type: ignore[type-var]

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def send(self, request: bytes) -> None:
        """Sends a request.

        Raises:
            ChildEndedError: If the process has ended.
        """
        try:
            _write(self._requests, request)
        except BrokenPipeError:
            raise self._ended() from None

    def receive(self) -> bytes:
        """Waits for the reply to a request, and returns it.

        Raises:
            ChildEndedError: If the process ends before.
        """
        try:
            return _read(self._replies)
        except EOFError:
            raise self._ended() from None

    @contextmanager
    def deadline(self, limit_sec: float) -> Iterator[None]:
        """Kills the process if what is done in here takes longer; sending and receiving then raise."""
        timer = threading.Timer(limit_sec, self.process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()  # so that it cannot kill the process during the next exchange

    def kill(self) -> None:
        """Ends the process at once, and closes both pipes."""
        self.process.kill()
        self.process.wait()
        self._close()

    def forget(self) -> None:
        """Leaves the process to the parent, after a fork; two owners would read each other's replies."""
        self._close()
        self.process.returncode = 0  # not ours to wait for

    def _close(self) -> None:
        self._requests.close()
        self._replies.close()

    def _ended(self) -> ChildEndedError:
        with suppress(subprocess.TimeoutExpired):
            return ChildEndedError(self.process.wait(_LAST_SEC))
        self.process.kill()
        return ChildEndedError(self.process.wait())


def run(module: str, name: str) -> None:
    """Runs in the process: calls a function with the requests, until there are no more, and what sends a reply."""
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # a stray print must not look like a reply

    def received() -> Iterator[bytes]:
        with suppress(EOFError):
            while True:
                yield _read(requests)

    def reply(message: bytes) -> None:
        _write(replies, message)
        replies.flush()

    getattr(importlib.import_module(module), name)(received(), reply)


def _write(pipe: IO[bytes], message: bytes) -> None:
    for part in (len(message).to_bytes(_LENGTH_BYTES, "little"), message):
        unsent = memoryview(part)
        while unsent:  # a pipe takes as much as fits
            unsent = unsent[pipe.write(unsent) :]


def _read(pipe: IO[bytes]) -> bytes:
    length = int.from_bytes(_exactly(pipe, _LENGTH_BYTES), "little")
    return _exactly(pipe, length)


def _exactly(pipe: IO[bytes], num_bytes: int) -> bytes:
    content = pipe.read(num_bytes)
    if len(content) < num_bytes:
        raise EOFError
    return content
