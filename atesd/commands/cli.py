"""The console command ``atesd``: one verb a task, each with ``--help`` and an example."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from agents.credit import Credit
from atesd.commands.environment import parse_command
from atesd_env.config import EnvConfig, RunConfig
from atesd_env.errors import AgentError, AtesdError, ConfigError

if TYPE_CHECKING:
    import pandas

_RUN_EXAMPLE = "atesd run --env ATESD-Tiny-v0 --agent beta fixed:1 --seeds 0 1 2 --out runs/first"
_SHARED_VERBS = ("run", "train")
_AGENTS_EXAMPLE = "atesd agents beta"


@dataclass(frozen=True)
class RunCommand:
    """Train a student under each agent and seed, write one folder a run, end with a table and a picture.

    Runs with the same seed see the same problems and the same rollout seeds, so they are paired. Every field of the
    environment's configuration is a flag; its default is the chosen environment's.

    An interrupted command goes on with the same arguments and --resume (instead of --overwrite).
    """

    out: Path
    """Folder that gets one folder for each run."""
    agent: tuple[str, ...]
    """Who chooses the reveal ratio: beta, fixed:A, ... (`atesd agents` lists them), with options as key=value."""
    env: str = "ATESD-Tiny-v0"
    """Environment id."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the runs."""
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
    track: Literal["wandb", "trackio", "mlflow"] | None = None
    """Send each window's numbers to this tool too (needs its package)."""
    quiet: bool = False
    """Show no progress bar."""
    config: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=EnvConfig)
    """The environment's configuration."""


def run(arguments: Sequence[str]) -> None:
    """``atesd run``."""
    command = parse_command(RunCommand, arguments, "atesd run")
    _check_seeds(command.seeds)
    if command.resume and command.overwrite:
        raise ConfigError("resume: expected either --resume or --overwrite, got both; leave one out.")

    sys.path.insert(0, "")  # as `python -m` does: a class of the user's own may stand in the current folder
    from agents.specs.registry import with_option
    from analysis import load_runs, plot_exposure
    from atesd.experiments.run import execute, plan_runs, refuse_changed, refuse_existing
    from atesd.experiments.tracking import tracker

    names = (*(["tensorboard"] if command.tensorboard else []), *([command.track] if command.track else []))
    track = [tracker(name) for name in names]
    chosen = command.agent if command.credit is None else with_option(command.agent, "credit", command.credit)
    specs = plan_runs(command.env, command.config, chosen, command.seeds, command.out)
    if command.resume:
        refuse_changed(specs)
    elif not command.overwrite:
        refuse_existing(specs)
    with _Progress(len(specs), command.config.windows, quiet=command.quiet) as progress:
        for spec in specs:
            execute(
                spec,
                overwrite=command.overwrite,
                resume=command.resume,
                checkpoint_every=command.checkpoint_every,
                report=progress.start(f"{spec.agent} seed {spec.seed}"),
                track=track,
            )
    frame = load_runs(command.out)
    frame = frame[frame["run"].isin([spec.folder.name for spec in specs])]
    _print_summary(frame)
    if frame["exposure/reveal_ratio"].notna().any():  # baselines have none
        picture = command.out / "exposure.png"
        plot_exposure(frame).savefig(picture, dpi=150)
        print(f"picture: {picture}")
    print(f"runs:    {command.out}")


@dataclass(frozen=True)
class AgentsCommand:
    """List the agents, or the options of one.

    An option is written behind the agent's name: beta:credit=one-step, fixed:0.5, staged:0.3:1.
    """

    agent: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[SPEC]")] = ""
    """Spec of an agent whose options are to be listed."""


def list_agents(arguments: Sequence[str]) -> None:
    """``atesd agents``."""
    command = tyro.cli(AgentsCommand, args=list(arguments), prog="atesd agents")
    sys.path.insert(0, "")
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from agents.specs.registry import available, described_options

    if not command.agent:
        table, lines = Table("spec", "who decides"), available()
    else:
        table, lines = Table("option", "default"), described_options(command.agent)
    for first, second in lines.items():
        table.add_row(Text(first, no_wrap=True), Text(second))  # Text: brackets in a form are no markup
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if not command.agent:
        print("options: name:key=value, such as beta:credit=one-step; `atesd agents NAME` lists an agent's.")


def train(arguments: Sequence[str]) -> None:
    """``atesd train``."""
    from atesd.commands.train import train as train_agent

    train_agent(arguments)


def evaluate(arguments: Sequence[str]) -> None:
    """``atesd evaluate``."""
    from atesd.commands.evaluate import evaluate as evaluate_adapters

    evaluate_adapters(arguments)


def data(arguments: Sequence[str]) -> None:
    """``atesd data``."""
    from atesd.commands.data import data as show_data

    show_data(arguments)


def _files_verb(name: str) -> Callable[[Sequence[str]], None]:
    """Returns a verb of ``files_command``, which is imported when the verb is used."""

    def verb(arguments: Sequence[str]) -> None:
        from atesd.commands import files as files_command

        getattr(files_command, name)(arguments)

    return verb


def _check_seeds(seeds: Sequence[int]) -> None:
    if any(seed < 0 for seed in seeds):
        raise ConfigError(f"seeds: expected whole numbers from 0, got {list(seeds)}; correct --seeds.")


class _Progress:
    """A progress bar with the newest reveal ratio, probe NLL and accuracy; silent when quiet or not on a terminal."""

    def __init__(self, num_runs: int, windows: int, *, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._windows = windows
        self._num_runs = num_runs
        self._num_started = 0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        )

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def start(self, name: str) -> Callable[[dict[str, Any]], None]:
        """Begins the line of one run; returns what to call after each of its windows."""
        self._num_started += 1
        task = self._bar.add_task(
            f"[{self._num_started}/{self._num_runs}] {name}", total=self._windows, status="loading"
        )

        def report(info: dict[str, Any]) -> None:
            parts = []
            if info["exposure/reveal_ratio"] is not None:
                parts.append(f"ratio {info['exposure/reveal_ratio']:.2f}")
            if info["probe/nll"] is not None:
                parts.append(f"probe NLL {info['probe/nll']:.3f}")
            if info["probe/accuracy"] is not None:
                parts.append(f"accuracy {info['probe/accuracy']:.1%}")
            self._bar.update(task, advance=1, status="  ".join(parts))

        return report


def _print_summary(frame: pandas.DataFrame) -> None:
    """Prints the table of final results, one line an agent, means over its seeds."""
    from rich.console import Console
    from rich.table import Table

    from analysis.statistics import run_seconds

    table = Table(title="After the last window (mean over seeds, +- standard deviation)")
    for heading in ("agent", "seeds", "probe NLL", "probe accuracy", "mean reveal ratio", "return", "seconds"):
        table.add_column(heading, justify="left" if heading == "agent" else "right")
    for agent, runs in frame.groupby("agent", observed=True, sort=False):
        last = runs.sort_values("window").groupby("run", observed=True).last()
        by_run = runs.groupby("run", observed=True)
        seconds = run_seconds(runs)
        table.add_row(
            str(agent),
            str(len(last)),
            _mean_and_spread(last["probe/nll"], "{:.3f}"),
            _mean_and_spread(last["probe/accuracy"], "{:.1%}"),
            _mean_and_spread(by_run["exposure/reveal_ratio"].mean(), "{:.2f}"),
            _mean_and_spread(by_run["reward/total"].sum(min_count=1), "{:.3f}"),
            _mean_and_spread(seconds, "{:.0f}"),
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _mean_and_spread(values: pandas.Series[Any], pattern: str) -> str:
    values = values.dropna().astype(float)
    if values.empty:
        return "-"
    mean = pattern.format(values.mean())
    return mean if len(values) == 1 else f"{mean} +- {pattern.format(values.std())}"


def compare(arguments: Sequence[str]) -> None:
    """``atesd compare``."""
    from atesd.commands.compare import compare as command

    command(arguments)


def fit_surrogate(arguments: Sequence[str]) -> None:
    """``atesd fit-surrogate``."""
    from atesd.commands.fit_surrogate import fit_surrogate as command

    command(arguments)


def completion(arguments: Sequence[str]) -> None:
    """``atesd completion``."""
    from atesd.commands.completion import completion as command

    command(arguments)


def doctor(arguments: Sequence[str]) -> None:
    """``atesd doctor``."""
    from atesd.commands.doctor import doctor as command

    command(arguments)


def plan(arguments: Sequence[str]) -> None:
    """``atesd plan``."""
    from atesd.commands.plan import plan as command

    command(arguments)


_VERBS: dict[str, tuple[Callable[[Sequence[str]], None], str]] = {
    "run": (run, "train a student under each agent and seed"),
    "agents": (list_agents, "list the agents, or the options of one"),
    "report": (_files_verb("report"), "write one HTML file about a folder of runs"),
    "watch": (_files_verb("watch"), "show how the runs of a folder stand, live"),
    "export": (_files_verb("export"), "write runs as Parquet, CSV or a Minari dataset"),
    "train": (train, "train an agent over many runs, side by side"),
    "compare": (compare, "run agents x seeds in several processes and compare them, paired by seed"),
    "fit-surrogate": (fit_surrogate, "fit a fast environment to logged runs"),
    "evaluate": (evaluate, "answer a benchmark k times with a base model and its adapters"),
    "plan": (plan, "show a run's memory, tokens and hours, and what to change if it does not fit"),
    "data": (data, "show, filter and clean a file of worked problems"),
    "doctor": (doctor, "tell what an issue about an installation needs: versions, devices, threads, conflicts"),
    "completion": (completion, "print a script with which bash completes the command"),
}

EXAMPLES: dict[str, str] = {
    "run": _RUN_EXAMPLE,
    "agents": _AGENTS_EXAMPLE,
    "report": "atesd report runs/first",
    "watch": "atesd watch runs/first",
    "export": "atesd export runs/first --to parquet",
    "train": "atesd train --env ATESD-Toy-v0 --agent ppo --total-windows 20000 --num-envs 16 --out trained/ppo",
    "compare": "atesd compare --env ATESD-Tiny-v0 --agents beta random fixed:0.5 fixed:1 --seeds 0 1 2 3 --out runs/compare",
    "fit-surrogate": "atesd fit-surrogate runs/first runs/compare --out surrogate.safetensors",
    "evaluate": "atesd evaluate --benchmark heldout --max-problems 20 --k 4 --sampling env --out evaluations/tiny",
    "plan": "atesd plan ATESD-Qwen3-8B-v0 --gpus 1xH100-80GB --runs 6",
    "data": "atesd data gsm8k",
    "doctor": "atesd doctor",
    "completion": 'eval "$(atesd completion)"',
}
"""What the help of each verb begins with."""


def _overview() -> str:
    verbs = "\n".join(f"  {verb:14} {meaning}" for verb, (_, meaning) in _VERBS.items())
    usage = f"usage: atesd VERB [OPTIONS]\n\n{verbs}\n\n`atesd VERB --help` lists a verb's options."
    return f"example: {_RUN_EXAMPLE}\n         {_AGENTS_EXAMPLE}\n\n{usage}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: exits with 0, 1 (a run failed), 2 (wrong arguments), 130 (Ctrl-C) or 143 (terminated)."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return
    verb = arguments[0]
    if verb not in _VERBS:
        print(f"atesd: expected one of the verbs {', '.join(_VERBS)}, got {verb!r}.\n\n{_overview()}", file=sys.stderr)
        sys.exit(2)
    if {"-h", "--help"} & set(arguments[1:]) and verb in EXAMPLES:
        print(f"example: {EXAMPLES[verb]}\n")
    try:
        with _terminable(), _several_processes(verb):
            _VERBS[verb][0](arguments[1:])
    except ConfigError as error:
        print(f"atesd {verb}: {error}", file=sys.stderr)
        sys.exit(2)
    except AtesdError as error:
        if isinstance(error, AgentError) and isinstance(error.__cause__, Exception):
            traceback.print_exception(error.__cause__)  # the user's own code: they want to see the way through it
        print(f"atesd {verb}: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        sys.stderr.close()
    except KeyboardInterrupt as interrupt:
        message = (
            interrupt.args[0]
            if interrupt.args
            else (
                "interrupted; the windows written so far can be read. The same arguments and --resume (instead of "
                "--overwrite) go on from there."
            )
        )
        print(f"atesd {verb}: {message}", file=sys.stderr)
        sys.exit(143 if isinstance(interrupt, _Terminated) else 130)


def _several_processes(verb: str) -> AbstractContextManager[None]:
    """Lets the other processes of a launcher (``torchrun``) help the first one, for the verbs that train in its process."""
    # Asked of the environment first: torch takes a second to import, and most commands need none.
    if int(os.environ.get("WORLD_SIZE") or 1) == 1:
        return nullcontext()
    from atesd_env.population.distributed import is_launched, several_processes

    if is_launched() and verb not in _SHARED_VERBS:
        raise ConfigError(
            f"{verb}: expected one process, got {os.environ['WORLD_SIZE']} of a launcher, which are for the verbs "
            f"{' and '.join(_SHARED_VERBS)}; start `atesd {verb}` by itself (many runs on many machines: `atesd compare --ray`)."
        )
    return several_processes()


class _Terminated(KeyboardInterrupt):
    """SIGTERM came, as from a batch system at the end of its time."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Lets SIGTERM end the command as Ctrl-C does: files are closed, and a message says how to go on."""

    def stop(*_: object) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
