"""What verbs share: checks of arguments, tables."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from atesd.console import console
from atesd_env.errors import ConfigError, RunFilesError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

DEFAULT_ENV = "ATESD-Tiny-v0"
"""Environment of the verbs that are not told another."""


def check_resume_or_overwrite(*, resume: bool, overwrite: bool) -> None:
    """Raises ConfigError if both are asked for."""
    if resume and overwrite:
        raise ConfigError("resume: expected either --resume or --overwrite, got both; leave one out.")


def find_own_classes() -> None:
    """Lets a class of the user's own stand in the current folder, as ``python -m`` does."""
    sys.path.insert(0, "")


@contextmanager
def analysis_errors() -> Iterator[None]:
    """Lets what ``analysis`` refuses end the command with a message, like the project's own errors."""
    from analysis.errors import AnalysisError

    try:
        yield
    except AnalysisError as error:
        raise RunFilesError(str(error)) from error


_SOFTWARE = "atesd-env"


def check_picture(path: Path, *, overwrite: bool) -> None:
    """Refuses a picture that could not be written, or would take the place of one that is not ours, before the work.

    Raises:
        RunFilesError: If there is something else than a picture that ``write_picture`` wrote, and ``overwrite`` is False.
    """
    from atesd_env.files.atomic import check_writable, is_own_file
    from atesd_env.files.line_file import read_own

    check_writable(path)
    if is_own_file(path) and not overwrite and _SOFTWARE.encode() not in read_own(path, "a picture")[:1024]:
        raise RunFilesError(
            f"{path}: expected no file, or a picture that atesd-env drew, got another; move it away, pass --overwrite, or choose "
            "another folder (--out)."
        )


def write_picture(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, whole or not at all, with a mark that it is ours.

    Raises:
        RunFilesError: If it cannot be written.
    """
    from atesd_env.files.atomic import write_atomically

    content = io.BytesIO()
    with warnings.catch_warnings():
        # A path in an agent's name may be in a script that the font lacks; the picture shows boxes there.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(content, format="png", dpi=150, metadata={"Software": _SOFTWARE})
    write_atomically(path, content.getvalue())


def table_of(title: str | None, headings: Sequence[str], num_left: int = 1) -> Table:
    """Returns an empty table whose first columns are words, on the left; the others are numbers, on the right."""
    from rich.table import Table

    table = Table(title=title)
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="left" if position < num_left else "right")
    return table


def show(table: Table, width: int = 120) -> None:
    """Prints a table, as wide as the terminal, or ``width`` characters where there is none."""
    console(width=None if sys.stdout.isatty() else width).print(table)
