"""The verb ``atesd train``: its flags, its progress bar, and what it prints at the end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from atesd.commands.environment import parse_command
from atesd_env.config import EnvConfig, RunConfig


@dataclass(frozen=True)
class TrainCommand:
    """Train an agent over many runs, of students side by side, and keep the one that does best on held-out seeds.

    Then: atesd run --env ATESD-Toy-v0 --agent trained/ppo/best_agent.zip fixed:1 --out runs/deployed

    An agent of Stable-Baselines3 (ppo, a2c, sac, td3, dqn, recurrent_ppo, tqc) learns from a population; an agent of ours
    from one student after the other. Every field of the environment's configuration is a flag; its default is the chosen
    environment's.

    An interrupted command goes on with the same arguments and --resume (instead of --overwrite).
    """

    out: Path
    """Folder of the training: training.json, evaluations.jsonl, best_agent, last_agent, checkpoint.safetensors."""
    agent: str
    """Who is trained: ppo, sac:learning_rate=0.0003, beta, package.module:Class, ..."""
    env: str = "ATESD-Toy-v0"
    """Environment id."""
    total_windows: int = 20_000
    """Windows to make, over all students; rounded up to whole stretches between the agent's updates. (--windows is the
    length of one run.)"""
    num_envs: int | None = None
    """Students side by side; None is 8, and 1 for an agent that learns from one after the other."""
    seed: int = 0
    """Seed of the agent and of the runs that it learns from."""
    eval_every: int | None = None
    """Windows between evaluations, each of which saves everything; None is a tenth of --total-windows."""
    eval_seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7)
    """Seeds of the runs of an evaluation; runs for training draw theirs from 2^31."""
    overwrite: bool = False
    """Replace a training that is already in the folder."""
    resume: bool = False
    """Go on with the training in the folder, at its last evaluation."""
    quiet: bool = False
    """Show no progress bar."""
    config: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=EnvConfig)
    """The environment's configuration."""


def train(arguments: Sequence[str]) -> None:
    """``atesd train``."""
    command = parse_command(TrainCommand, arguments, "atesd train")
    sys.path.insert(0, "")  # as `python -m` does: a class of the user's own may stand in the current folder
    from atesd.experiments.training.training import TrainSpec
    from atesd.experiments.training.training import train as train_agent

    spec = TrainSpec(
        env_id=command.env,
        config=command.config,
        agent=command.agent,
        num_envs=command.num_envs,
        total_windows=command.total_windows,
        seed=command.seed,
        eval_every=command.eval_every,
        eval_seeds=command.eval_seeds,
        folder=command.out,
    )
    with _Progress(command.total_windows, quiet=command.quiet) as progress:
        trained = train_agent(spec, resume=command.resume, overwrite=command.overwrite, report=progress.report)
    _print_summary(trained.rows)
    print(f"best agent: {trained.best_agent}")
    print(f"last agent: {trained.last_agent}")


class _Progress:
    """A progress bar with the newest evaluation; silent when quiet or not on a terminal."""

    def __init__(self, total_windows: int, *, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("windows"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task("windows", total=total_windows, status="loading")

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def report(self, windows: int, row: dict[str, Any] | None) -> None:
        status = "" if row is None else f"return {row['evaluation/return_mean']:.3f} after {row['windows']}"
        self._bar.update(self._task, completed=windows, status=status)


def _print_summary(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the evaluations: the untrained agent's, the best and the last."""
    from rich.console import Console
    from rich.table import Table

    best = max(index for index, row in enumerate(rows) if row["is_best"])
    table = Table(
        title=f"Evaluations on {len(rows[0]['evaluation/returns'])} held-out seeds (mean +- standard deviation)"
    )
    for heading in ("agent", "windows", "return", "probe NLL", "mean reveal ratio"):
        table.add_column(heading, justify="left" if heading == "agent" else "right")
    for name, index in (("untrained", 0), ("best", best), ("last", len(rows) - 1)):
        row = rows[index]
        table.add_row(
            name,
            str(row["windows"]),
            f"{row['evaluation/return_mean']:.3f} +- {row['evaluation/return_std']:.3f}",
            f"{row['evaluation/probe_nll']:.3f}",
            f"{row['evaluation/reveal_ratio']:.2f}",
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)
