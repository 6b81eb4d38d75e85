"""``atesd bench``: runs that judge an agent on the instances of a set, their score, and whether they are what they say."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from atesd.commands import shared
from atesd.console import say
from atesd_env.errors import AtesdError, ConfigError
from atesd_env.files.atomic import make_parent, write_atomically
from atesd_env.files.ownership import FolderKind

if TYPE_CHECKING:
    import pandas as pd

    from atesd_env.bench.instances import InstanceSet

_SCORE_FILE = "score"
SCORE = FolderKind(
    "score",
    f"{_SCORE_FILE}.json",
    (rf"{_SCORE_FILE}\.png", rf"{_SCORE_FILE}\.json"),
    ("budget", "set", "scores", "runs"),
)
"""What a score leaves in its folder; a later one takes its place."""


@dataclass(frozen=True)
class Command:
    """Judge agents on the instances of a set (docs/bench.md).

    `run` makes a run of each instance of a split, seed and agent, in the folder --out. `score FOLDER...` compares the agents of one or
    more such folders: accuracy, NLL and area, the gain (0 is fixed:1, 1 the oracle), interquartile means, how likely one beats the
    other, and what it cost, branches included; it writes score.json and score.png. `validate FOLDER...` makes the runs again with
    their recorded ratios and compares the rows. `pack FOLDER` puts what these two read into one file, to be handed in.
    `check FILE...` plays every instance of a set of your own.
    """

    step: tyro.conf.Positional[Literal["run", "score", "validate", "pack", "check"]]
    """What is done."""
    folders: tyro.conf.Positional[tuple[Path, ...]] = ()
    """score, validate, pack: folders that `run` made. check: instance sets."""
    agent: tuple[str, ...] = ()
    """run: agents to judge, such as beta or trained/ppo/best_agent.zip. pack: those whose runs are packed; none is all."""
    trust_pickle: bool = False
    """run: unpickle Stable-Baselines3's .zip agents, which can run any code: for files that you trust."""
    split: Literal["train", "validation", "test"] = "test"
    """run: which instances."""
    out: Path | None = None
    """run: folder for a folder of each instance; agents may be added to it. score: where its files go; the first folder without one.
    pack: folder of what is handed in."""
    instances: str = "atesd-bench"
    """run: the instance set, the name of a packaged one or a JSON file."""
    seeds: tuple[int, ...] = ()
    """run: seeds of the split; none is its first eight."""
    budget: float = 1.0
    """score: updates that count, those on branches included, as a multiple of a run's; 0 compares after the last window."""
    quick: bool = False
    """run: only the first seed of each instance. validate: only one run of each agent."""
    context: bool = False
    """run: show agents what the instance is, for those that were trained so."""
    processes: int = 0
    """run, validate: processes at once; 0 is one for each core."""
    ray: str | None = None
    """run: on a Ray cluster instead, as `atesd compare` has it."""
    ray_cpus: float = 1.0
    """run: with --ray, cores of a run."""
    ray_gpus: float = 0.0
    """run: with --ray, GPUs of a run."""
    ray_retries: int = 3
    """run: with --ray, how often a run whose worker died goes on at its last checkpoint."""
    overwrite: bool = False
    """run, pack: replace runs that are already there."""
    resume: bool = False
    """run: go on with the runs that are there, each at its last whole checkpoint; finished ones are skipped."""
    quiet: bool = False
    """Show no progress."""


def main(arguments: Sequence[str]) -> None:
    """``atesd bench``.

    Raises:
        ConfigError: If an argument cannot be used.
        AtesdError: If runs failed, cannot be read or were refused.
    """
    from atesd.commands.side_by_side import with_ray_value

    command = tyro.cli(Command, args=with_ray_value(arguments), prog="atesd bench")
    if command.step != "run" and not command.folders:
        raise ConfigError(
            f"folders: expected {'an instance set' if command.step == 'check' else 'a folder that `atesd bench run` made'}, got none; "
            f"name one behind {command.step}."
        )
    if command.step == "run" and command.folders:
        raise ConfigError(f"folders: expected none behind run, got {command.folders[0]}; name the folder with --out.")
    {"run": _run, "score": _score, "validate": _validate, "pack": _pack, "check": _check}[command.step](command)


def _run(command: Command) -> None:
    shared.check_resume_or_overwrite(resume=command.resume, overwrite=command.overwrite)
    if command.out is None or not command.agent:
        raise ConfigError("agent: expected agents and a folder, got one or none; name them with --agent and --out.")
    if command.seeds and command.quick:
        raise ConfigError("quick: expected either --quick or --seeds, got both; leave one out.")
    shared.find_own_classes()
    from agents.specs.registry import trusted
    from atesd.commands.side_by_side import Settings, execute_side_by_side, raise_failures
    from atesd.experiments.bench.plan import default_seeds, plan_bench, write_bench_file
    from atesd.experiments.specs import check_folders

    settings = Settings(command.processes, command.ray, command.ray_cpus, command.ray_gpus, command.ray_retries)
    seeds = command.seeds or default_seeds(command.split, quick=command.quick)
    agents = trusted(command.agent) if command.trust_pickle else command.agent
    specs = plan_bench(command.instances, command.split, agents, seeds, command.out, context=command.context)
    check_folders(specs, resume=command.resume, overwrite=command.overwrite)
    write_bench_file(command.out, command.instances, command.split, settings.num_threads(len(specs)))
    failed = execute_side_by_side(
        specs, settings, quiet=command.quiet, overwrite=command.overwrite, resume=command.resume
    )
    say(f"runs:  {command.out} ({len(specs) - len(failed)} of {len(specs)})")
    say(f"score: atesd bench score {command.out}")
    raise_failures(failed, len(specs))


def _score(command: Command) -> None:
    """Prints the tables of all agents in the folders, and writes the files."""
    from analysis.bench import GAIN, MEASURES, at_equal_compute, by_instance, improvements, score_agents, with_gains
    from analysis.load import load_runs
    from analysis.plots.bench import plot_bench
    from atesd.experiments.bench.packed import unpacked

    instances, split = _one_set(command.folders)
    with shared.analysis_errors(), ExitStack() as packed:
        frame = load_runs([packed.enter_context(unpacked(folder)) for folder in command.folders])
        unfinished = sorted(frame.loc[frame["run_status"] != "finished", "run"].unique())
        finished, known = frame[frame["run_status"] == "finished"], _references(instances)
        outcomes = with_gains(at_equal_compute(finished, command.budget or math.inf), known)
        measures = [name for name in (GAIN, *MEASURES) if outcomes[name].notna().any()]
        scores = {name: score_agents(outcomes, name) for name in measures}
        tables = by_instance(outcomes)
        chances = improvements(outcomes, measures[0])
        figure, profile = plot_bench(outcomes, measures[0], return_data=True)
    out = command.folders[0] if command.out is None else command.out
    SCORE.check(out)
    make_parent(out / SCORE.described)
    content = {
        "budget": command.budget,
        "set": {
            "name": instances.name,
            "version": instances.version,
            "fingerprint": instances.fingerprint,
            "split": split,
        },
        "scores": [line for name in measures for line in _records(scores[name])],
        "instances": _records(tables),
        "probability_of_improvement": {"measure": measures[0], "agents": chances.to_dict(orient="index")},
        "profile": _records(profile),
        "runs": _records(outcomes),
        "unfinished": unfinished,
    }
    described = json.dumps(SCORE.marked(content), indent=1, allow_nan=False) + "\n"
    write_atomically(out / SCORE.described, described.encode())
    shared.write_picture(figure, out / f"{_SCORE_FILE}.png")
    _show_instances(tables)
    _show_scores(scores)
    _tell_of_scores(measures[0], command.budget, unfinished, chances)
    say(f"picture: {out / _SCORE_FILE}.png\nnumbers: {out / _SCORE_FILE}.json")


def _validate(command: Command) -> None:
    """Prints what the replay of each run found.

    Raises:
        AtesdError: If a run was refused.
    """
    from atesd.experiments.bench.plan import read_bench_file

    # Before torch is loaded: results repeat bit for bit with the same number of threads only.
    os.environ.setdefault("OMP_NUM_THREADS", str(read_bench_file(command.folders[0])["threads"]))
    from atesd.experiments.bench.validation import check_submission, missing_runs

    refused = 0
    for folder in command.folders:
        runs = check_submission(
            folder,
            command.processes,
            lambda run: (
                None if command.quiet and run.verdict != "refused" else say(f"{run.folder}: {run.verdict} {run.reason}")
            ),
            is_quick=command.quick,
        )
        counts = Counter(run.verdict for run in runs)
        say(f"{folder}: {', '.join(f'{count} {verdict}' for verdict, count in counts.items())}")
        for line in missing_runs(folder):
            say(f"  missing: {line}")
        refused += counts["refused"]
    say(
        "Not checked by a replay: whether the agent would decide so again, what it had learned from before, and what it tells of its\n"
        "decisions' cost (branches, tokens scored, seconds)."
    )
    if refused:
        raise AtesdError(
            f"expected runs that come out as they are recorded, but {refused} did not; see the lines above."
        )


def _pack(command: Command) -> None:
    """Packs the runs of one folder."""
    from atesd.experiments.bench.packed import RUNS_FILE, pack

    if len(command.folders) != 1 or command.out is None:
        raise ConfigError("folders: expected one folder of runs and another for --out, got others; name both.")
    count = pack(command.folders[0], command.out, command.agent, overwrite=command.overwrite)
    say(f"runs:  {command.out / RUNS_FILE} ({count})\nscore: atesd bench score {command.out}")


def _check(command: Command) -> None:
    """Plays every instance of the sets, and says which one it is at."""
    from atesd_env.bench.checking import check_instance_set
    from atesd_env.bench.instances import InstanceSet

    for path in command.folders:
        instances = InstanceSet.load(path if path.suffix else str(path))
        check_instance_set(instances, lambda instance_id: None if command.quiet else say(instance_id))
        say(f"{path}: {len(instances)} instances, all of them can be played and gone back on")


def _one_set(folders: Sequence[Path]) -> tuple[InstanceSet, str]:
    """Returns the set that the folders' runs are of, and the split.

    Raises:
        ConfigError: If they differ, or the set is another one now.
    """
    from atesd.experiments.bench.plan import read_bench_file
    from atesd_env.bench.instances import InstanceSet

    told = [read_bench_file(folder) for folder in folders]
    kinds = {(one["set"], one["version"], one["fingerprint"], one["split"]) for one in told}
    if len(kinds) > 1:
        raise ConfigError(f"folders: expected runs of one set and split, got {sorted(kinds)}; score them apart.")
    instances = InstanceSet.load(told[0]["instances"])
    if instances.fingerprint != told[0]["fingerprint"]:
        raise ConfigError(
            f"{folders[0]}: expected the set that was run ({told[0]['set']} {told[0]['version']}), got other fields in it now; take the "
            "version that was run."
        )
    return instances, told[0]["split"]


def _references(instances: InstanceSet) -> pd.DataFrame | None:
    from atesd_env.bench.known import references, references_file

    # Without any, gains are from the runs themselves, as far as they have fixed:1 and the oracle.
    return references(instances) if references_file(instances).exists() else None


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns a frame's lines as JSON can hold them: NaN becomes None."""
    lines: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", double_precision=15))
    return lines


def _show_instances(tables: pd.DataFrame) -> None:
    """Prints the accuracy of each agent on each instance (its NLL where accuracy is not measured)."""
    for measure in ("probe/accuracy", "probe/nll"):
        lines = tables[(tables["measure"] == measure) & (tables["num_seeds"] > 0)]
        if lines.empty:
            continue
        agents = sorted(lines["agent"].unique())
        table = shared.table_of(f"{measure} of each instance", ("instance", *agents))
        for instance, part in lines.groupby("instance"):
            cells = {line["agent"]: _text(line["mean"], line["low"], line["high"]) for _, line in part.iterrows()}
            table.add_row(str(instance), *(cells.get(agent, "-") for agent in agents))
        shared.show(table, width=240)
        return


def _show_scores(scores: dict[str, pd.DataFrame]) -> None:
    """Prints each agent's score over all instances, by the first measure, with the others' means and the costs."""
    first, *others = scores
    costs = ("updates", "on branches", "tokens", "on branches", "scored", "controller s")
    title = f"all instances, by {first}"
    table = shared.table_of(title, ("agent", "runs", "mean", "IQM", "gap", *others, *costs))
    means = {name: scores[name].set_index("agent")["mean"] for name in others}
    for _, line in scores[first].iterrows():
        broken = f" ({line['num_broken']} broke)" if line["num_broken"] else ""
        table.add_row(
            line["agent"],
            f"{line['num_runs']}{broken}",
            _text(line["mean"], line["low"], line["high"]),
            _text(line["iqm"], line["iqm_low"], line["iqm_high"]),
            "-" if math.isnan(line["optimality_gap"]) else f"{line['optimality_gap']:.3f}",
            *(f"{means[name][line['agent']]:.3f}" for name in others),
            *(
                f"{line[name]:.0f}"
                for name in ("num_updates", "branch_updates", "num_tokens", "branch_tokens", "scored_tokens")
            ),
            "-" if math.isnan(line["controller_sec"]) else f"{line['controller_sec']:.2g}",
        )
    shared.show(table, width=240)
    if left_out := scores[first]["left_out"].iloc[0]:
        say(f"left out, because some agent lacks these seeds: {left_out}")


def _tell_of_scores(measure: str, budget: float, unfinished: Sequence[str], chances: pd.DataFrame) -> None:
    for agent, line in chances.iterrows():
        others = ", ".join(f"{other} {share:.2f}" for other, share in line.items() if other != agent)
        if others:
            say(f"probability that a run of {agent} beats one of: {others}")
    if unfinished:
        say(f"left out, because not finished: {', '.join(unfinished)}")
    what = (
        "gain: 0 is fixed:1, 1 the oracle"
        if measure == "gain"
        else f"{measure}, since no oracle is known or none is better"
    )
    when = f"within {budget:g} times a run's updates, those on branches included" if budget else "after the last window"
    say(
        f"Scored by {what}, {when}.\n[low, high]: 95%, of an instance from its seeds, of all from seeds within instances; - with one "
        "seed. Costs are means\nover whole runs; updates and tokens on branches are those that an agent tried and took back, scored those "
        "that the teacher's\nscores were read from before a window."
    )


def _text(mean: float, low: float, high: float) -> str:
    return f"{mean:.3f} [-]" if math.isnan(low) else f"{mean:.3f} [{low:.3f}, {high:.3f}]"
