"""``atesd export``: runs in the formats of other tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from atesd.commands import shared
from atesd.console import say
from atesd_env.errors import ConfigError


@dataclass(frozen=True)
class Command:
    """Write runs as one table (parquet, csv) or as a Minari dataset of transitions for offline reinforcement learning.

    A Minari dataset holds runs of one environment with one configuration, an episode a run, with the observations that the
    agent saw. To open it: MINARI_DATASETS_PATH=runs/first/minari, then minari.load_dataset("atesd/ATESD-Tiny-v0"). Of a packaged
    instance set, such as atesd-bench, the runs of its landscapes are written, each episode with its instance in its options.
    """

    runs: tyro.conf.Positional[Path]
    """Folder of runs, or of one run; or the name of a packaged instance set."""
    to: Literal["parquet", "csv", "minari"]
    """Format; parquet keeps the columns' types. minari needs the package minari."""
    out: Path | None = None
    """The file, or the folder of Minari datasets; None is runs.parquet, runs.csv or minari/ in the folder of runs."""
    name: str | None = None
    """Name of the Minari dataset, [namespace/]name-vN; None is atesd/ and the environment's id."""
    overwrite: bool = False
    """Replace what is there."""


def main(arguments: Sequence[str]) -> None:
    """``atesd export``."""
    command = tyro.cli(Command, args=list(arguments), prog="atesd export")
    from analysis.load import load_runs
    from atesd.experiments.export import export_minari, export_table, landscapes_config, shared_config
    from atesd_env.bench.instances import PACKAGED, InstanceSet
    from atesd_env.bench.landscapes import by_group, landscape

    if command.name is not None and command.to != "minari":
        raise ConfigError(f"--name: expected with --to minari only, got it with --to {command.to}; leave it out.")
    is_set = not command.runs.exists() and (PACKAGED / f"{command.runs}.json").exists()
    instances = InstanceSet.load(str(command.runs)) if is_set else None
    with shared.analysis_errors():
        frame = load_runs(command.runs) if instances is None else landscape(instances)
    if command.to == "minari":
        root = command.out or command.runs / "minari"
        if instances is None:
            config = shared_config(frame, command.runs)
        else:  # a dataset has actions of one kind
            frame, config = by_group(frame), landscapes_config(instances, frame)
        name = export_minari(frame, config, root, command.name, overwrite=command.overwrite)
        say(f"dataset: {name} ({frame['run'].nunique()} episodes)\nopen:    MINARI_DATASETS_PATH={root}")
    else:
        out = command.out or command.runs / f"runs.{command.to}"
        say(f"table: {export_table(frame, out, command.to, overwrite=command.overwrite)} ({len(frame)} rows)")
