"""``atesd compare``: agents x seeds in several processes, and at the end a table, its files and a picture."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from atesd.commands import defaults, shared
from atesd.commands.environment import parse_command
from atesd.console import say
from atesd_env.config import RunConfig, preset
from atesd_env.errors import ConfigError
from atesd_env.files.atomic import write_atomically
from atesd_env.files.ownership import FolderKind

if TYPE_CHECKING:
    import pandas as pd

    from atesd.commands.side_by_side import Settings

_DEFAULT_METRICS = ("probe/accuracy", "probe/nll")

COMPARISON = FolderKind(
    "comparison",
    "comparison.json",
    (r"comparison\.csv", r"comparison\.png", r"comparison\.json"),
    ("env_id", "agents", "seeds", "wall_sec", "interval", "best_fixed", "comparison", "runs"),
)
"""What a comparison leaves beside its runs; a later one in the same folder takes its place."""


@dataclass(frozen=True)
class Command:
    """Compare agents over seeds: common problems and rollout seeds, paired differences with intervals that hold together.

    The folder gets a run for each agent and seed, as `atesd run` makes them, comparison.csv, comparison.json and
    comparison.png. Every field of the environment's configuration is a flag; its default is the chosen environment's.

    Differences are paired by seed, on the seeds that all agents have. Their 95% intervals hold for all agents at once, and
    allow for the best fixed ratio having been found on these seeds; below 6 seeds no winner is named.
    """

    out: Path
    """Folder that gets one folder for each run, and the comparison."""
    agent: tuple[str, ...]
    """Agents to compare, such as beta fixed:1 fixed:0.5; with fixed:1 and other fixed ratios among them, all are compared
    to these."""
    env: str = shared.DEFAULT_ENV
    """Environment id."""
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    """Seeds of the runs."""
    trust_pickle: bool = False
    """Unpickle Stable-Baselines3's .zip agents, which can run any code: for files that you trust."""
    processes: int = 0
    """Processes at once, each with cores / processes threads; 0 is one for each core."""
    ray: str | None = None
    """Run on a Ray cluster instead (docs/many-devices.md): its address, such as auto or 10.0.0.1:6379; without a value the
    cluster that runs on this machine, or one started for these runs."""
    ray_cpus: float = 1.0
    """With --ray: cores of a run, which are its threads."""
    ray_gpus: float = 0.0
    """With --ray: GPUs of a run; 0.5 lets two runs share one."""
    ray_retries: int = 3
    """With --ray: how often a run whose worker died goes on at its last checkpoint."""
    metric: tuple[str, ...] = ()
    """What runs are judged by: probe/accuracy, probe/nll, probe/pass_at_k, probe/grounded, rollout/success_rate,
    student/mismatch, student/loss, return. Without one, probe accuracy (where it is measured) and probe NLL."""
    overwrite: bool = False
    """Replace runs that are already in the folder."""
    resume: bool = False
    """Go on with the runs in the folder, each at its last whole checkpoint; finished ones are skipped."""
    checkpoint_every: int = 0
    """Windows between checkpoints; 0 writes as many as take at most a twentieth of the run's time."""
    quiet: bool = False
    """Show no progress."""
    config: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=partial(preset, shared.DEFAULT_ENV))
    """The environment's configuration."""


def main(arguments: Sequence[str]) -> None:
    """``atesd compare``.

    Raises:
        ConfigError: If an argument cannot be used; nothing was run.
        AtesdError: If runs failed; the others have been compared.
    """
    command, settings = _parsed(arguments)
    shared.find_own_classes()
    from agents.specs.registry import trusted
    from atesd.commands.side_by_side import execute_side_by_side, raise_failures
    from atesd.experiments.specs import check_folders, plan_runs

    agents = trusted(command.agent) if command.trust_pickle else command.agent
    config = defaults.fitted(command.config, arguments)
    specs = plan_runs(command.env, config, agents, command.seeds, command.out)
    check_folders(specs, resume=command.resume, overwrite=command.overwrite)
    COMPARISON.check(command.out)
    began_sec = time.perf_counter()
    failed = execute_side_by_side(
        specs,
        settings,
        quiet=command.quiet,
        overwrite=command.overwrite,
        resume=command.resume,
        checkpoint_every=command.checkpoint_every,
    )
    names = {spec.folder.name for spec in specs} - {failure.spec.folder.name for failure in failed}
    if names:
        wall_sec = time.perf_counter() - began_sec
        where = settings.told(len(specs))
        failures = [{"agent": one.spec.agent_name, "seed": one.spec.seed, "reason": one.reason} for one in failed]
        _evaluate(command, names, {**where, "wall_sec": wall_sec, "failed": failures})
    raise_failures(failed, len(specs))


def _parsed(arguments: Sequence[str]) -> tuple[Command, Settings]:
    from analysis.checks import nearest
    from analysis.metrics import METRICS
    from atesd.commands.side_by_side import Settings, with_ray_value

    command = parse_command(Command, with_ray_value(arguments), "atesd compare")
    shared.check_resume_or_overwrite(resume=command.resume, overwrite=command.overwrite)
    settings = Settings(command.processes, command.ray, command.ray_cpus, command.ray_gpus, command.ray_retries)
    unknown = [metric for metric in command.metric if metric not in METRICS]
    if unknown:  # found out now, not after the runs
        hint = nearest(unknown[0], METRICS, " ({})")
        raise ConfigError(f"metric: expected one of {', '.join(METRICS)}, got {unknown[0]!r}; correct --metric{hint}.")
    return command, settings


def _evaluate(command: Command, names: set[str], facts: dict[str, Any]) -> None:
    """Compares the runs, writes the files and prints the tables."""
    from agents.specs.registry import label
    from analysis.load import load_runs
    from analysis.plots.comparison import plot_comparison
    from analysis.statistics import compare_agents, final_outcomes
    from analysis.verdict import judge
    from atesd.experiments.export import csv_bytes

    frame = load_runs(command.out)
    frame = frame[frame["run"].isin(names)]
    is_measured = {name: name in frame and bool(frame[name].notna().any()) for name in _DEFAULT_METRICS}
    metrics = command.metric or tuple(name for name in _DEFAULT_METRICS if is_measured[name])
    outcomes = final_outcomes(frame, metrics)
    comparison = compare_agents(outcomes, metrics)
    verdict = judge(frame)
    content = {
        "env_id": command.env,
        "agents": [label(agent) for agent in command.agent],
        "seeds": list(command.seeds),
        **facts,
        "interval": "means: Student's t over shared seeds, 95%; differences: paired t, 95% for all agents at once (max-t)",
        "best_fixed": "the best mean on the shared seeds; the intervals allow for the choice",
        "comparison": _records(comparison),
        "runs": _records(outcomes),
    }
    described = json.dumps(COMPARISON.marked(content), indent=2, allow_nan=False) + "\n"
    write_atomically(command.out / COMPARISON.described, described.encode())
    write_atomically(command.out / "comparison.csv", csv_bytes(comparison))
    picture = command.out / "comparison.png"
    shared.write_picture(plot_comparison(comparison), picture)
    for _, rows in comparison.groupby("metric", sort=False):
        _show_table(rows)
    where = (
        f"with {facts['processes']} process(es) side by side" if "processes" in facts else "in tasks of a Ray cluster"
    )
    for sentence in filter(None, (verdict.sentence, verdict.certainty, *verdict.remarks)):
        say(sentence)
    say(
        "[low, high]: 95% intervals; those of differences (agent minus the other on the same seed) hold for all agents of a\n"
        "table at once, and allow for the best having been found on these seeds. * marks those that leave out 0. Costs are means\n"
        "over runs: updates, tokens sampled and answer tokens trained on (neither has the probe's, which is the same for all),\n"
        "seconds of the controller and of the run, measured\n"
        f"{where}, checkpoints and loading left out. "
        f"Wall time of everything: {facts['wall_sec']:.0f} s."
    )
    say(f"picture: {picture}")
    say(f"table:   {command.out / 'comparison.csv'}")
    say(f"runs:    {command.out}")


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns a frame's lines as JSON can hold them: NaN becomes None."""
    return [
        {str(name): None if isinstance(value, float) and math.isnan(value) else value for name, value in line.items()}
        for line in frame.astype(object).to_dict(orient="records")
    ]


def _show_table(rows: pd.DataFrame) -> None:
    first = rows.iloc[0]
    direction = "higher" if first["higher_is_better"] else "lower"
    best_fixed = next(iter(rows["best_fixed"].mode()), "none")
    others = (f"minus {first['reference'] or 'fixed:1'}", f"minus best fixed: {best_fixed}", "minus best")
    costs = ("updates", "sampled", "trained", "controller s", "s")
    title = f"{first['metric']} after the last window ({direction} is better)"
    table = shared.table_of(title, ("agent", "seeds", "mean", *others, *costs))
    for _, row in rows.iterrows():
        broken = f" ({row['num_broken']} broke)" if row["num_broken"] else ""
        table.add_row(
            row["agent"],
            f"{row['num_seeds']}{broken}",
            _interval_text(row["mean"], row["low"], row["high"]),
            *(_difference_text(row, name) for name in ("to_reference", "to_best_fixed", "to_best")),
            f"{row['num_updates']:.0f}",
            f"{row['num_tokens']:.0f}",
            f"{row['num_trained_tokens']:.0f}",
            "-" if math.isnan(row["controller_sec"]) else f"{row['controller_sec']:.2g}",
            f"{row['run_sec']:.3g}",
        )
    shared.show(table, width=240)


def _difference_text(row: pd.Series[Any], name: str) -> str:
    if (name == "to_best" and row["agent"] == row["best"]) or (
        name == "to_reference" and row["agent"] == row["reference"]
    ):
        return "-"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return _interval_text(row[name], low, high, sign="+") + (" *" if low > 0 or high < 0 else "")


def _interval_text(mean: float, low: float, high: float, sign: str = "") -> str:
    if math.isnan(mean):
        return "-"
    text = f"{mean:{sign}.4f}"
    return text if math.isnan(low) else f"{text} [{low:{sign}.4f}, {high:{sign}.4f}]"
