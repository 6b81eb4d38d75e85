"""``atesd run``: agents x seeds one after the other, and at the end a table and a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from agents.credit import Credit
from atesd.commands import config_file, defaults, shared
from atesd.commands.environment import parse_command
from atesd.console import say
from atesd_env.config import RunConfig, preset

if TYPE_CHECKING:
    import pandas as pd

    from atesd.experiments.specs import RunSpec

_PICTURE = "exposure.png"


@dataclass(frozen=True)
class Command:
    """Train a student under each agent and seed, write one folder a run, end with a table and a picture.

    Runs with the same seed see the same problems and the same rollout seeds, so they are paired. Every field of the
    environment's configuration is a flag; its default is the chosen environment's.

    An interrupted command goes on with the same arguments and --resume (instead of --overwrite).
    """

    out: Path
    """Folder that gets one folder for each run."""
    agent: tuple[str, ...]
    """Who chooses the reveal ratio: beta, fixed:A, ... (`atesd agents` lists them), with options as key=value."""
    env: str = shared.DEFAULT_ENV
    """Environment id."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the runs."""
    trust_pickle: bool = False
    """Unpickle Stable-Baselines3's .zip agents, which can run any code: for files that you trust."""
    credit: Credit | None = None
    """What decisions are credited with, for the agents that take it: short for the option credit=... of their specs."""
    overwrite: bool = False
    """Replace runs that are already in the folder."""
    resume: bool = False
    """Go on with the runs in the folder, each at its last whole checkpoint; finished ones are skipped."""
    checkpoint_every: int = 0
    """Windows between checkpoints; 0 writes as many as take at most a twentieth of the run's time."""
    tensorboard: bool = False
    """Write TensorBoard events while running, to tensorboard/ in each run's folder (needs the package tensorboard)."""
    track: Literal["wandb", "trackio"] | None = None
    """Send each window's numbers to this tool too (needs its package)."""
    quiet: bool = False
    """Show no progress."""
    config_file: Annotated[Path | None, tyro.conf.arg(name="config")] = None
    """A file (YAML, JSON, or a run's config.json) with any of these options by name; flags go before it."""
    save_config: Path | None = None
    """Write all options to this file, for --config, and end."""
    config: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=partial(preset, shared.DEFAULT_ENV))
    """The environment's configuration."""


def main(arguments: Sequence[str]) -> None:
    """``atesd run``."""
    arguments = config_file.with_file(arguments)
    command = parse_command(Command, arguments, "atesd run")
    command = dataclasses.replace(command, config=defaults.fitted(command.config, arguments))
    if command.save_config is not None:
        config_file.save(command.save_config, _entries(command))
        say(f"options: {command.save_config}")
        return
    shared.check_resume_or_overwrite(resume=command.resume, overwrite=command.overwrite)
    shared.find_own_classes()
    from agents.specs.registry import trusted, with_option
    from atesd.experiments.baselines.registry import NAMES
    from atesd.experiments.play import play_all
    from atesd.experiments.specs import plan_runs
    from atesd.experiments.tracking import tracker

    names = (*(["tensorboard"] if command.tensorboard else []), *([command.track] if command.track else []))
    track = [tracker(name) for name in names]
    credit = command.credit
    agents = trusted(command.agent) if command.trust_pickle else command.agent
    agents = agents if credit is None else with_option(agents, "credit", credit, NAMES)
    specs = plan_runs(command.env, command.config, agents, command.seeds, command.out)
    shared.check_picture(command.out / _PICTURE, overwrite=command.overwrite)
    play_all(
        specs,
        overwrite=command.overwrite,
        resume=command.resume,
        checkpoint_every=command.checkpoint_every,
        track=track,
        quiet=command.quiet,
    )
    _show_results(command.out, specs)


def _entries(command: Command) -> dict[str, Any]:
    """Returns the options of a command by name, as far as they say what is run."""
    about = {"out": str(command.out), "agent": command.agent, "env": command.env, "seeds": command.seeds}
    return about | ({"credit": command.credit} if command.credit else {}) | command.config.keywords()


def _show_results(out: Path, specs: Sequence[RunSpec]) -> None:
    from analysis.load import load_runs
    from analysis.plots.comparison import plot_exposure

    frame = load_runs(out)
    frame = frame[frame["run"].isin([spec.folder.name for spec in specs])]
    _show_summary(frame)
    if frame["exposure/reveal_ratio"].notna().any():  # baselines have none
        picture = out / _PICTURE
        shared.write_picture(plot_exposure(frame), picture)
        say(f"picture: {picture}")
    say(f"runs:    {out}")


def _show_summary(frame: pd.DataFrame) -> None:
    """Prints the table of final results, one line an agent, means over its seeds."""
    from analysis.statistics import run_seconds

    table = shared.table_of(
        "After the last window (mean over seeds, +- standard deviation)",
        ("agent", "seeds", "probe NLL", "probe accuracy", "mean reveal ratio", "return", "seconds"),
    )
    for agent, runs in frame.groupby("agent", observed=True, sort=False):
        last = runs.sort_values("window").groupby("run", observed=True).last()
        by_run = runs.groupby("run", observed=True)
        table.add_row(
            str(agent),
            str(len(last)),
            _mean_and_spread(last["probe/nll"], "{:.3f}"),
            _mean_and_spread(last["probe/accuracy"], "{:.1%}"),
            _mean_and_spread(by_run["exposure/reveal_ratio"].mean(), "{:.2f}"),
            _mean_and_spread(by_run["reward/total"].sum(min_count=1), "{:.3f}"),
            _mean_and_spread(run_seconds(runs), "{:.0f}"),
        )
    shared.show(table)


def _mean_and_spread(values: pd.Series[Any], pattern: str) -> str:
    values = values.dropna().astype(float)
    if values.empty:
        return "-"
    mean = pattern.format(values.mean())
    return mean if len(values) == 1 else f"{mean} +- {pattern.format(values.std())}"
