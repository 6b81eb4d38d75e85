"""``atesd train``: an agent over many runs, and at the end a table of its evaluations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from atesd.commands import defaults, shared
from atesd.commands.environment import parse_command
from atesd.console import say
from atesd.experiments.progress import live_progress
from atesd_env.config import RunConfig, preset

_DEFAULT_ENV = "ATESD-Toy-v0"


@dataclass(frozen=True)
class Command:
    """Train an agent over many runs, of students side by side, and keep the one that does best on held-out seeds.

    Then: atesd run --env ATESD-Toy-v0 --agent trained/ppo/best_agent.zip fixed:1 --trust-pickle --out runs/deployed

    An agent of Stable-Baselines3 (ppo, a2c, sac, td3, dqn, recurrent_ppo, tqc) learns from a population; an agent of ours
    from one student after the other. Every field of the environment's configuration is a flag; its default is the chosen
    environment's.

    An interrupted command goes on with the same arguments and --resume (instead of --overwrite).
    """

    out: Path
    """Folder of the training: training.json, evaluations.jsonl, best_agent, last_agent, checkpoint.safetensors."""
    agent: str
    """Who is trained: ppo, sac:learning_rate=0.0003, beta, package.module:Class, ..."""
    trust_pickle: bool = False
    """Unpickle a .zip agent of Stable-Baselines3 to go on from, which can run any code: for a file that you trust."""
    env: str = _DEFAULT_ENV
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
    """Show no progress."""
    config: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=partial(preset, _DEFAULT_ENV))
    """The environment's configuration."""


def main(arguments: Sequence[str]) -> None:
    """``atesd train``."""
    command = parse_command(Command, arguments, "atesd train")
    command = dataclasses.replace(command, config=defaults.fitted(command.config, arguments))
    shared.find_own_classes()
    from agents.specs.registry import trusted
    from atesd.experiments.training.training import TrainSpec, train

    (agent,) = trusted([command.agent]) if command.trust_pickle else [command.agent]
    spec = TrainSpec(
        env_id=command.env,
        config=command.config,
        agent=str(agent),
        num_envs=command.num_envs,
        total_windows=command.total_windows,
        seed=command.seed,
        eval_every=command.eval_every,
        eval_seeds=command.eval_seeds,
        folder=command.out,
    )
    with live_progress(quiet=command.quiet, line_every_sec=1.0) as begin:
        tell = begin("windows", command.total_windows)

        def report(windows: int, row: dict[str, Any] | None) -> None:
            tell(windows, "" if row is None else f"return {row['evaluation/return_mean']:.3f} after {row['windows']}")

        trained = train(spec, resume=command.resume, overwrite=command.overwrite, report=report)
    _show_summary(trained.rows)
    say(f"best agent: {trained.best_agent}")
    say(f"last agent: {trained.last_agent}")


def _show_summary(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the evaluations: the untrained agent's, the best and the last."""
    best = max(index for index, row in enumerate(rows) if row["is_best"])
    table = shared.table_of(
        f"Evaluations on {len(rows[0]['evaluation/returns'])} held-out seeds (mean +- standard deviation)",
        ("agent", "windows", "return", "probe NLL", "mean reveal ratio"),
    )
    for name, index in (("untrained", 0), ("best", best), ("last", len(rows) - 1)):
        row = rows[index]
        table.add_row(
            name,
            str(row["windows"]),
            f"{row['evaluation/return_mean']:.3f} +- {row['evaluation/return_std']:.3f}",
            f"{row['evaluation/probe_nll']:.3f}",
            f"{row['evaluation/reveal_ratio']:.2f}",
        )
    shared.show(table)
