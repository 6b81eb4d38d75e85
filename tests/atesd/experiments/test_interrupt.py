"""Ctrl-C: the first waits for the window, the second does not."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from atesd.experiments.interrupt import deferred_interrupt


@pytest.fixture(autouse=True)
def pythons_own_handler() -> Iterator[None]:
    """A test run in the background may have been started with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_is_remembered_and_announced(capfd: pytest.CaptureFixture[str]):
    with deferred_interrupt() as interruption:
        assert not interruption.is_requested
        press()
        assert interruption.is_requested
    assert "Ctrl-C again stops at once" in capfd.readouterr().err


def test_the_second_stops_at_once():
    with deferred_interrupt() as interruption:
        press()
        with pytest.raises(KeyboardInterrupt):
            press()
    assert interruption.is_requested


def test_afterwards_it_is_as_before():
    with deferred_interrupt():
        pass
    with pytest.raises(KeyboardInterrupt):
        press()


def test_a_handler_of_the_program_is_left_alone():
    seen: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    with deferred_interrupt() as interruption:
        press()
    assert seen == [signal.SIGINT]
    assert not interruption.is_requested


def test_another_thread_changes_nothing():
    flags: list[bool] = []

    def work() -> None:
        with deferred_interrupt() as interruption:
            flags.append(interruption.is_requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert flags == [False]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
