"""The verbs that read folders of runs: ``atesd report``, ``atesd watch`` and ``atesd export``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from atesd_env.errors import ConfigError, RunFilesError

_Runs = Annotated[Path, tyro.conf.Positional]


@dataclass(frozen=True)
class ReportCommand:
    """Write one HTML file about a folder of runs: verdict, pictures, sample rollouts, configuration and versions.

    The file stands alone: it loads nothing, so it can be mailed. Runs are compared where environment and configuration agree.
    """

    runs: _Runs
    """Folder of runs, or of one run."""
    out: Path | None = None
    """The file; None is report.html in the folder. An existing one is replaced."""
    samples: int = 3
    """Sample rollouts of each run, spread from its first window to its last."""


def report(arguments: Sequence[str]) -> None:
    """``atesd report``."""
    command = tyro.cli(ReportCommand, args=list(arguments), prog="atesd report")
    from analysis.report.page import write_report

    if command.samples < 0:
        raise ConfigError(f"--samples: expected a number from 0, got {command.samples}; correct it.")
    with _analysis_errors():
        print(f"report: {write_report(command.runs, command.out, num_samples=command.samples)}")


@dataclass(frozen=True)
class WatchCommand:
    """Show how the runs of a folder stand, live, until Ctrl-C; it only reads files."""

    runs: _Runs
    """Folder of runs; those that begin later appear."""
    once: bool = False
    """Print the table once and end."""
    every: float = 2.0
    """Seconds between two looks."""


def watch(arguments: Sequence[str]) -> None:
    """``atesd watch``."""
    command = tyro.cli(WatchCommand, args=list(arguments), prog="atesd watch")
    from atesd.commands.watch import watch as watch_runs

    if not command.every > 0:
        raise ConfigError(f"--every: expected seconds above 0, got {command.every}; correct it.")
    if not command.runs.is_dir():
        raise RunFilesError(f"{command.runs}: expected a folder, got none; pass the folder given to --out.")
    watch_runs(command.runs, once=command.once, every_sec=command.every)


@dataclass(frozen=True)
class ExportCommand:
    """Write runs as one table (parquet, csv) or as a Minari dataset of transitions for offline reinforcement learning.

    A Minari dataset holds runs of one environment with one configuration, an episode a run, with the observations that the
    agent saw. To open it: MINARI_DATASETS_PATH=runs/first/minari, then minari.load_dataset("atesd/ATESD-Tiny-v0").
    """

    runs: _Runs
    """Folder of runs, or of one run."""
    to: Literal["parquet", "csv", "minari"]
    """Format; parquet keeps the columns' types. minari needs the package minari."""
    out: Path | None = None
    """The file, or the folder of Minari datasets; None is runs.parquet, runs.csv or minari/ in the folder of runs."""
    name: str | None = None
    """Name of the Minari dataset, [namespace/]name-vN; None is atesd/ and the environment's id."""
    overwrite: bool = False
    """Replace what is there."""


def export(arguments: Sequence[str]) -> None:
    """``atesd export``."""
    command = tyro.cli(ExportCommand, args=list(arguments), prog="atesd export")
    from analysis import load_runs
    from atesd.experiments.export import export_minari, export_table, shared_config

    if command.name is not None and command.to != "minari":
        raise ConfigError(f"--name: expected with --to minari only, got it with --to {command.to}; leave it out.")
    with _analysis_errors():
        frame = load_runs(command.runs)
    if command.to == "minari":
        root = command.out or command.runs / "minari"
        config = shared_config(frame, command.runs)
        name = export_minari(frame, config, root, command.name, overwrite=command.overwrite)
        print(f"dataset: {name} ({frame['run'].nunique()} episodes)\nopen:    MINARI_DATASETS_PATH={root}")
    else:
        out = command.out or command.runs / f"runs.{command.to}"
        print(f"table: {export_table(frame, out, command.to, overwrite=command.overwrite)} ({len(frame)} rows)")


@contextmanager
def _analysis_errors() -> Iterator[None]:
    """Lets what ``analysis`` refuses end the command with a message, like the project's own errors."""
    from analysis import AnalysisError

    try:
        yield
    except AnalysisError as error:
        raise RunFilesError(str(error)) from error
