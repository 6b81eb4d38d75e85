"""The page of the console command: each verb's own ``--help``."""

from __future__ import annotations

from atesd.commands.cli import EXAMPLES
from atesd.commands.completion import help_of


def command_page() -> str:
    """Returns the command-line reference."""
    parts = [
        "# Command line",
        "What `atesd --help` and `atesd VERB --help` print. Exit codes: 0, 1 (a run failed), 2 (wrong arguments), 130 (Ctrl-C), "
        "143 (terminated). [Completion in your shell](installation.md#shell-completion).",
        f"```text\n{help_of(['--help'])}\n```",
    ]
    parts += [f"## atesd {verb}\n\n```text\n{help_of([verb, '--help'])}\n```" for verb in EXAMPLES]
    return "\n\n".join(parts) + "\n"
