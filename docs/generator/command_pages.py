"""The page of the console command: each verb's own ``--help``."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Sequence

from agents.cli import EXAMPLES, main

_WIDTH = "100"


def help_of(arguments: Sequence[str]) -> str:
    """Returns what the command prints for arguments that ask for help."""
    output = io.StringIO()
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _WIDTH
    try:
        with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
            main(arguments)
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns
    lines = re.sub(r"\x1b\[[0-9;]*m", "", output.getvalue()).splitlines()
    return "\n".join(line.rstrip() for line in lines).strip()


def command_page() -> str:
    """Returns the command-line reference."""
    parts = [
        "# Command line",
        "What `atesd --help` and `atesd VERB --help` print. Exit codes: 0, 1 (a run failed), 2 (wrong arguments), 130 (Ctrl-C), "
        "143 (terminated). [Completion in your shell](installation.md#shell-completion).",
        f"```text\n{help_of(['--help'])}\n```",
    ]
    for verb in EXAMPLES:
        parts.append(f"## atesd {verb}\n\n```text\n{help_of([verb, '--help'])}\n```")
    return "\n\n".join(parts) + "\n"
