"""The page of the console command: each verb's own ``--help``."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Sequence

from atesd.commands.cli import main
from atesd.commands.verbs import VERBS


def command_page() -> str:
    """Returns the command-line reference."""
    parts = [
        "# Command line",
        "What `atesd --help` and `atesd VERB --help` print. Exit codes: 0, 1 (a run failed), 2 (wrong arguments), 130 (Ctrl-C), "
        "143 (terminated). [Completion in your shell](installation.md#shell-completion).",
        f"```text\n{help_of(['--help'])}\n```",
    ]
    parts += [f"## atesd {verb}\n\n```text\n{help_of([verb, '--help'])}\n```" for verb in VERBS]
    return "\n\n".join(parts) + "\n"


def help_of(arguments: Sequence[str], columns: int = 100) -> str:
    """Returns what the command prints for arguments that ask for help, as plain text of a given width."""
    output = io.StringIO()
    before = dict(os.environ)
    os.environ.update({"COLUMNS": str(columns), "NO_COLOR": "1"})
    try:
        with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
            main(arguments)
    finally:
        os.environ.clear()
        os.environ.update(before)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", output.getvalue()).splitlines()
    return "\n".join(line.rstrip() for line in lines).strip()
