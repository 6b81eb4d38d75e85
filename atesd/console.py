"""The one way to the terminal: texts of users, data and models arrive as text, never as markup or as escape sequences.

A control character could hide or rearrange what stands on the screen, or drive the terminal; it is shown as a visible sign.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from analysis.samples import printable

if TYPE_CHECKING:
    from rich.console import Console


def say(text: object = "", *, error: bool = False) -> None:
    """Prints a text to stdout (results) or stderr (everything else), made harmless."""
    stream = sys.stderr if error else sys.stdout
    safe = harmless(str(text))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(safe.encode(encoding, errors="replace").decode(encoding), file=stream, flush=error)


def console(**options: Any) -> Console:
    """Returns rich's console with these options; what is printed with it is no markup, and made harmless."""
    made: Console = _console_class()(markup=False, emoji=False, **options)
    return made


def log_harmlessly() -> None:
    """Makes warnings of the log harmless too, where nobody has set up another log."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Formatter())


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return harmless(super().format(record))


def harmless(text: str) -> str:
    """Returns a text with visible signs for its control characters."""
    return printable(text, longest=len(text))


@functools.cache
def _console_class() -> type[Any]:
    # Here, not above: rich takes a while to import, and `--help` needs none of it.
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.text import Text

    class HarmlessConsole(Console):
        """A console through whose ``render`` every text passes, those of tables and bars too."""

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(harmless(text), **options)  # before it is measured

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                # Control segments are rich's own: they move the cursor.
                yield segment if segment.control else Segment(harmless(segment.text), segment.style)

    return HarmlessConsole
