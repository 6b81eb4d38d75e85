"""``atesd report``: a folder of runs as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from atesd.commands import shared
from atesd.console import say
from atesd_env.errors import ConfigError


@dataclass(frozen=True)
class Command:
    """Write one HTML file about a folder of runs: verdict, pictures, sample rollouts, configuration and versions.

    The file stands alone: it loads nothing, so it can be mailed. Runs are compared where environment and configuration agree.
    """

    runs: tyro.conf.Positional[Path]
    """Folder of runs, or of one run."""
    out: Path | None = None
    """The file; None is report.html in the folder. An existing one is replaced."""
    samples: int = 3
    """Sample rollouts of each run, spread from its first window to its last."""


def main(arguments: Sequence[str]) -> None:
    """``atesd report``."""
    command = tyro.cli(Command, args=list(arguments), prog="atesd report")
    from analysis.report.page import write_report

    if command.samples < 0:
        raise ConfigError(f"--samples: expected a number from 0, got {command.samples}; correct it.")
    with shared.analysis_errors():
        say(f"report: {write_report(command.runs, command.out, num_samples=command.samples)}")
