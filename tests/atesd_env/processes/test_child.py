"""A process behind two pipes: replies one for one, its death, its deadline, and what a fork leaves alone."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from atesd_env.processes import Child, ChildEndedError

LARGE = 3 * 2**20
"""Bytes of a message that is far larger than a pipe."""


def serve(requests: Iterator[bytes], reply: Callable[[bytes], None]) -> None:
    """Runs in the process."""
    for request in requests:
        if request == b"leave":
            os._exit(3)
        if request == b"sleep":
            time.sleep(600.0)
        if request == b"half":
            os.write(1, (100).to_bytes(8, "little") + b"not a hundred bytes")
            return
        sys.stdout.write("a stray print is no reply")
        reply(request[::-1])


@pytest.fixture
def child() -> Iterator[Child]:
    process = Child(serve, is_silent=True)
    yield process
    process.kill()


def asked(child: Child, request: bytes) -> bytes:
    child.send(request)
    return child.receive()


def test_replies_come_one_for_one_whatever_their_size(child: Child):
    replies = [asked(child, request) for request in (b"abc", b"", b"\n", b"xyz" * LARGE)]
    assert replies == [b"cba", b"", b"\n", b"zyx" * LARGE]
    assert child.is_alive
    child.kill()
    assert child.process.returncode == -signal.SIGKILL
    assert not child.is_alive
    child.kill()  # once more does no harm


@pytest.mark.parametrize(("request_", "exitcode"), [(b"leave", 3), (b"half", 0)])
def test_a_process_that_ends_before_its_reply_is_an_error_with_its_exit_code(
    child: Child, request_: bytes, exitcode: int
):
    with pytest.raises(ChildEndedError) as caught:
        asked(child, request_)
    assert caught.value.exitcode == exitcode
    with pytest.raises(ChildEndedError):
        child.send(b"x" * LARGE)


def test_a_deadline_kills_a_process_that_does_not_answer_or_does_not_read(child: Child):
    with pytest.raises(ChildEndedError) as caught, child.deadline(0.2):
        asked(child, b"sleep")
    assert caught.value.exitcode == -signal.SIGKILL
    other = Child(serve, is_silent=True)
    other.send(b"sleep")
    with pytest.raises(ChildEndedError), other.deadline(0.5):
        other.send(b"x" * LARGE)
    other.kill()


def test_a_deadline_that_was_kept_kills_nothing(child: Child):
    assert asked(child, b"loaded") == b"dedaol"
    with child.deadline(0.5):
        asked(child, b"a")
    time.sleep(0.7)
    assert asked(child, b"ab") == b"ba"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forks beside threads, from Python 3.12 on
def test_a_fork_that_forgets_its_parents_process_leaves_it_to_the_parent(child: Child):
    if not sys.platform.startswith("linux"):
        pytest.skip("forks")
    assert asked(child, b"ab") == b"ba"
    pid = os.fork()
    if pid == 0:
        exitcode = 1
        try:
            child.forget()
            exitcode = 0
        finally:
            os._exit(exitcode)
    assert os.waitpid(pid, 0)[1] == 0
    assert asked(child, b"abc") == b"cba"
