"""Ctrl-C between windows: the first one waits for the window that is being made, so that nothing of it is lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Interruption:
    """Whether Ctrl-C was pressed.

    Attributes:
        is_requested: It was, and the window may come to its end.
    """

    def __init__(self) -> None:
        self.is_requested = False


@contextmanager
def deferred_interrupt() -> Iterator[Interruption]:
    """Turns the first Ctrl-C into ``is_requested``; a second one raises KeyboardInterrupt at once, as always.

    Where Ctrl-C is not Python's own (another thread, a handler of the program, ignored in the background), it is left
    alone.
    """
    interruption = Interruption()
    is_ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not is_ours:
        yield interruption
        return

    def request(number: int, frame: Any) -> None:
        if interruption.is_requested:
            signal.default_int_handler(number, frame)
        interruption.is_requested = True
        # Not sys.stderr: a handler may come in the middle of one of its writes.
        with suppress(OSError):
            os.write(2, b"\ninterrupted: this window is finished and saved first; Ctrl-C again stops at once\n")

    signal.signal(signal.SIGINT, request)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
