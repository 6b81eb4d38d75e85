"""The verb ``atesd evaluate``: Average@k of a base model and its adapters on a benchmark, with what can be said about it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from atesd_env.config import EnvConfig, preset_of
from atesd_env.errors import ConfigError

if TYPE_CHECKING:
    from atesd_env.evaluation.benchmarks import Benchmark
    from atesd_env.evaluation.estimators import Comparison
    from atesd_env.evaluation.evaluator import Evaluator
    from atesd_env.evaluation.samples import SampleFile
    from atesd_env.evaluation.summary import Summary

SUMMARY_FILE = "summary.json"
"""What an evaluation found, in its folder."""


@dataclass(frozen=True)
class EvaluateCommand:
    """Answer each problem of a benchmark k times, with the base model and with each adapter, and compare.

    On a GPU: atesd evaluate --env ATESD-Qwen3-1.7B-v0 --adapter beta=runs/beta-seed0 beta=runs/beta-seed1
    --benchmark aime24 --k 12 --sampling paper --out evaluations/aime24

    Every sample is a line of samples.jsonl. An interrupted evaluation goes on with the same arguments and --resume; adapters
    may be added then, and --k raised. A field of the environment's configuration is a flag behind --config, such as
    --config.student.
    """

    out: Path
    """Folder of the evaluation: evaluation.json, samples.jsonl, summary.json."""
    benchmark: str
    """aime24, aime25, hmmt25, math500, gsm8k (data sets of the hub), a hub id, a JSONL or Parquet file of problem and
    answer, or "heldout": the environment's own held-out problems."""
    env: str = "ATESD-Tiny-v0"
    """Environment id: gives the base model and the wording of requests."""
    adapter: tuple[str, ...] = ()
    """Adapters as [NAME=]DIRECTORY: a peft adapter or a run's folder. Adapters with one name are training seeds of one
    method."""
    k: int = 12
    """Samples of each problem."""
    sampling: str = "paper"
    """Sampling preset: paper, qwen3-thinking, qwen3-instruct, env (as the environment's rollouts) or greedy. The paper's
    needs a context of 40,960 tokens."""
    sampling_temperature: float | None = None
    """Instead of the preset's temperature."""
    sampling_top_p: float | None = None
    """Instead of the preset's top-p."""
    sampling_top_k: int | None = None
    """Instead of the preset's top-k; 0 is off."""
    sampling_tokens: int | None = None
    """Instead of the preset's token budget."""
    thinking: bool | None = None
    """Instead of the preset's thinking switch."""
    max_problems: int | None = None
    """Only the first problems of the benchmark; None is all, and 64 of "heldout"."""
    seed: int = 0
    """Seed of the samples' random numbers."""
    batch: int = 16
    """Samples drawn together: memory against speed. Another engine (--config.rollout-engine) gets as many at once, and may take
    --config.engine-timeout-sec for them."""
    base: bool = True
    """Also evaluate the base model without an adapter."""
    training_data: str | None = None
    """Training problems (file or hub id) that are searched for the benchmark's; None searches the environment's own if it
    has a data_path."""
    resume: bool = False
    """Go on with the evaluation in the folder."""
    quiet: bool = False
    """Show no progress bar."""
    config: EnvConfig = field(default_factory=EnvConfig)
    """The environment's configuration."""


def evaluate(arguments: Sequence[str]) -> None:
    """``atesd evaluate``."""
    only_env = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    only_env.add_argument("--env", default="ATESD-Tiny-v0")
    env_id = only_env.parse_known_args(arguments)[0].env
    default = EvaluateCommand(out=tyro.MISSING, benchmark=tyro.MISSING, env=env_id, config=preset_of(EnvConfig, env_id))
    command = tyro.cli(EvaluateCommand, args=list(arguments), default=default, prog="atesd evaluate")
    if command.k < 1 or (command.max_problems is not None and command.max_problems < 1) or command.seed < 0:
        raise ConfigError(
            f"evaluate: expected k and max_problems of at least 1 and a seed of 0 or more, got {command.k}, "
            f"{command.max_problems} and {command.seed}; "
            "correct --k, --max-problems or --seed."
        )

    # Heavy imports only now, so that --help is quick.
    from atesd_env.evaluation.evaluator import Evaluator, adapter_checksum, evaluation_config, find_adapter
    from atesd_env.evaluation.samples import SampleFile
    from atesd_env.evaluation.sampling_presets import sampling_preset
    from atesd_env.files.atomic import locked_folder, write_atomically
    from atesd_env.tasks.registry import make_task

    methods, adapters = named_adapters(command.adapter, with_base=command.base)
    directories = {label: None if path is None else find_adapter(path) for label, path in adapters.items()}
    chosen = sampling_preset(command.sampling, command.config)
    overrides: dict[str, Any] = {
        "temperature": command.sampling_temperature,
        "top_p": command.sampling_top_p,
        "top_k": command.sampling_top_k,
        "max_new_tokens": command.sampling_tokens,
    }
    given = {name: value for name, value in overrides.items() if value is not None}
    # The configuration's checks of these fields apply here too.
    checked = command.config.replace(**given)
    spec = dataclasses.replace(chosen.spec, **{name: getattr(checked, name) for name in given})
    thinking = chosen.enable_thinking if command.thinking is None else command.thinking
    config = evaluation_config(
        command.config,
        dataclasses.replace(chosen, spec=spec, enable_thinking=thinking),
        [directory for directory in directories.values() if directory is not None],
    )
    task = make_task(config)
    benchmark = _benchmark(command, task)
    settings = {
        "benchmark": benchmark.name,
        "fingerprint": benchmark.fingerprint,
        "env": command.env,
        "student": config.student,
        "dtype": config.dtype,
        "task": config.task,
        "max_prompt_tokens": config.max_prompt_tokens,
        "sampling": dataclasses.asdict(spec),
        "enable_thinking": thinking,
        "seed": command.seed,
        "num_samples": command.k,
        "adapters": {label: adapter_checksum(path) for label, path in directories.items()},
        # Another engine gives other samples; which server it is does not matter.
        **({} if config.rollout_engine == "own" else {"rollout_engine": "vllm"}),
    }
    overlaps = _contaminated(command, benchmark)
    with locked_folder(command.out), SampleFile(command.out, settings, resume=command.resume) as file:
        evaluator = Evaluator(config, task, spec, command.seed, command.batch)
        try:
            _sample(evaluator, benchmark, directories, command.k, file, quiet=command.quiet)
        except KeyboardInterrupt as interrupt:
            raise type(interrupt)(
                f"interrupted; {len(file.rows)} samples are kept. The same arguments and --resume go on from there."
            ) from None
        finally:
            evaluator.close()
        summary = _summary(file, benchmark, task, methods, command.k)
    content = {**summary, "contaminated_training_problems": overlaps}
    write_atomically(command.out / SUMMARY_FILE, (json.dumps(content, indent=2) + "\n").encode())
    print(f"samples: {command.out / 'samples.jsonl'}")
    print(f"summary: {command.out / SUMMARY_FILE}")


def named_adapters(specs: Sequence[str], *, with_base: bool) -> tuple[dict[str, list[str]], dict[str, Path | None]]:
    """Returns (method -> labels of its training seeds, label -> directory) of ``[NAME=]DIRECTORY``.

    Raises:
        ConfigError: If there is nothing to evaluate, a directory comes twice, or a method is called "base".
    """
    methods: dict[str, list[str]] = {"base": ["base"]} if with_base else {}
    adapters: dict[str, Path | None] = {"base": None} if with_base else {}
    for spec in specs:
        name, equals, directory = spec.partition("=")
        if not equals:
            directory = name
        if not name or not directory or name == "base":
            raise ConfigError(
                f"adapter: expected [NAME=]DIRECTORY with another name than 'base', got {spec!r}; choose another name."
            )
        if Path(directory) in adapters.values():
            raise ConfigError(f"adapter: expected each directory once, got {directory!r} twice; leave one out.")
        labels = methods.setdefault(name, [])
        # The directory is in the label, so that it stays the same when other seeds are added or left out.
        labels.append(f"{name}={directory}" if equals else name)
        adapters[labels[-1]] = Path(directory)
    if not adapters:
        raise ConfigError("adapter: expected something to evaluate, got --no-base and no --adapter; pass one.")
    return methods, adapters


def _benchmark(command: EvaluateCommand, task: Any) -> Benchmark:
    from atesd_env.evaluation.benchmarks import make_benchmark, read_benchmark

    if command.benchmark == "heldout":
        return make_benchmark("heldout", task.heldout_problems(command.max_problems or 64))
    return read_benchmark(command.benchmark, command.max_problems)


def _contaminated(command: EvaluateCommand, benchmark: Benchmark) -> list[str]:
    """Looks for the benchmark among the training problems and says what was found."""
    from atesd_env.evaluation.contamination import find_overlaps
    from atesd_env.tasks.data.rows import read_rows
    from atesd_env.tasks.registry import PACKAGED_DATA

    source = command.training_data or (command.config.data_path if command.config.task == "math" else None)
    if source is None:
        return []
    rows, _ = read_rows(PACKAGED_DATA / "train.jsonl" if source == "gsm8k" else source)
    texts = {problem.id: problem.problem for problem in benchmark.problems}
    overlaps = find_overlaps(((row.id, row.problem) for row in rows), texts)
    if overlaps:
        named = ", ".join(f"{o.training_id} ~ {o.benchmark_id} ({o.shared_ratio:.0%})" for o in overlaps[:5])
        print(
            f"warning: {len(overlaps)} of {len(rows)} training problems share 13 words in a row with the benchmark: {named}"
            f"{', ...' if len(overlaps) > 5 else ''}. `atesd data {source} --benchmark {command.benchmark} --out FILE` "
            "writes the training data without them."
        )
    else:
        print(f"contamination: none of {len(rows)} training problems shares 13 words in a row with the benchmark.")
    return [overlap.training_id for overlap in overlaps]


def _sample(
    evaluator: Evaluator,
    benchmark: Benchmark,
    directories: dict[str, Path | None],
    num_samples: int,
    file: SampleFile,
    *,
    quiet: bool,
) -> None:
    """Draws what is missing. All samples of a problem are drawn together: they are about equally long."""
    from rich.console import Console
    from rich.progress import Progress

    from atesd_env.evaluation.evaluator import Request

    console = Console(stderr=True)
    with Progress(console=console, disable=quiet or not console.is_terminal) as progress:
        for label, directory in directories.items():
            requests = [
                Request(problem, sample)
                for problem in benchmark.problems
                for sample in range(num_samples)
                if (label, problem.id, sample) not in file
            ]
            bar = progress.add_task(label, total=len(requests))
            for row in evaluator.samples(label, directory, requests):
                file.append(row)
                progress.advance(bar)


def _summary(
    file: SampleFile, benchmark: Benchmark, task: Any, methods: dict[str, list[str]], num_samples: int
) -> dict[str, Any]:
    """Prints the tables; returns them as JSON can hold them."""
    from atesd_env.evaluation.estimators import compare
    from atesd_env.evaluation.summary import NOISE_NOTE, comparison_as_json, correctness, sample_table, summarise

    problems = [problem.id for problem in benchmark.problems]
    tables = {
        label: sample_table(file.rows, label, problems, num_samples) for labels in methods.values() for label in labels
    }
    summaries = {label: summarise(table, task.same_answer) for label, table in tables.items()}
    _print_summaries(benchmark, summaries)
    names = list(methods)
    pairs = [(second, first) for index, first in enumerate(names) for second in names[index + 1 :]]
    comparisons = {
        pair: compare(
            *([correctness(tables[label]) for label in methods[name]] for name in pair),
            is_second_untrained=pair[1] == "base",
        )
        for pair in pairs
    }
    if comparisons:
        _print_comparisons(comparisons)
    print(NOISE_NOTE)
    for label, summary in summaries.items():
        if summary.timeouts:
            listed = ", ".join(f"{problem} sample {sample}" for problem, sample in summary.timeouts)
            print(
                f"{label}: {len(summary.timeouts)} answers could not be checked (time, memory or a crash) and count as wrong: "
                f"{listed}"
            )
    return {
        "summaries": {label: summary.as_json() for label, summary in summaries.items()},
        "comparisons": [
            {"first": first, "second": second, **comparison_as_json(comparison, problems)}
            for (first, second), comparison in comparisons.items()
        ],
    }


def _print_summaries(benchmark: Benchmark, summaries: dict[str, Summary]) -> None:
    from rich.table import Table
    from rich.text import Text

    first = next(iter(summaries.values()))
    k = first.num_samples
    table = Table(title=f"{benchmark.name}: {first.num_problems} problems, {k} samples each (percent)")
    for heading in (
        "who",
        f"Average@{k}",
        "sampling error",
        "95% over problems",
        *(f"pass@{j}" for j in first.pass_at if j > 1),
        f"maj@{k}",
        "format",
        "cut",
        "tokens",
        "time-outs",
    ):
        table.add_column(heading, justify="left" if heading == "who" else "right")
    for label, summary in summaries.items():
        average = summary.average
        table.add_row(
            Text(label),
            f"{100 * average.mean:.1f}",
            _error(average.sampling_error),
            f"{100 * average.low:.1f} .. {100 * average.high:.1f}",
            *(f"{100 * value:.1f}" for j, value in summary.pass_at.items() if j > 1),
            f"{100 * summary.majority:.1f}",
            f"{100 * summary.format_rate:.1f}",
            f"{100 * summary.truncation_rate:.1f}",
            f"{summary.mean_tokens:.0f}",
            str(len(summary.timeouts)),
        )
    _print(table)


def _print_comparisons(comparisons: dict[tuple[str, str], Comparison]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Paired differences, problem by problem (points)")
    for heading in (
        "first - second",
        "difference",
        "sampling error",
        "95% over problems",
        "seed error",
        "better / worse",
    ):
        table.add_column(heading, justify="left" if heading == "first - second" else "right")
    for (first, second), comparison in comparisons.items():
        difference = comparison.difference
        table.add_row(
            Text(f"{first} - {second}"),
            f"{100 * difference.mean:+.1f}",
            _error(difference.sampling_error),
            f"{100 * difference.low:+.1f} .. {100 * difference.high:+.1f}",
            _error(comparison.seed_error),
            f"{comparison.num_better} / {comparison.num_worse}",
        )
    _print(table)


def _error(value: float) -> str:
    return f"+-{100 * value:.1f}" if value == value else "-"  # noqa: PLR0124  (NaN: it cannot be estimated)


def _print(table: Any) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 140).print(table)
