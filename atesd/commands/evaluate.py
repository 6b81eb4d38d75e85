"""``atesd evaluate``: Average@k of a base model and its adapters on a benchmark, with what can be said about it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from atesd.commands import shared
from atesd.commands.environment import parse_command
from atesd.console import say
from atesd.experiments.progress import live_progress
from atesd_env.config import EnvConfig, preset_of
from atesd_env.config.checks import checked_seed
from atesd_env.config.task import ROW_TASKS
from atesd_env.errors import ConfigError

if TYPE_CHECKING:
    from atesd_env.evaluation.benchmarks import Benchmark
    from atesd_env.evaluation.evaluator import Evaluator
    from atesd_env.evaluation.samples import SampleFile
    from atesd_env.rollouts.sampling import SamplingSpec


@dataclass(frozen=True)
class Command:
    """Answer each problem of a benchmark k times, with the base model and with each adapter, and compare.

    On a GPU: atesd evaluate --env ATESD-Qwen3-1.7B-v0 --adapter beta=runs/beta-seed0 beta=runs/beta-seed1
    --benchmark aime24 --k 12 --sampling paper --out evaluations/aime24

    Every sample is a line of samples.jsonl. An interrupted evaluation goes on with the same arguments and --resume (instead of
    --overwrite); adapters may be added then, and --k raised. Every field of the environment's configuration is a flag; its
    default is the chosen environment's.
    """

    out: Path
    """Folder of the evaluation: evaluation.json, samples.jsonl, summary.json."""
    benchmark: str
    """aime24, aime25, hmmt25, math500, gsm8k, with task code humaneval, mbppplus (data sets of the hub), a hub id, a JSONL or
    Parquet file of problem and answer, or "heldout": the environment's own held-out problems."""
    benchmark_columns: str | None = None
    """Which columns of the benchmark hold problem, answer or id, where their names differ: problem=question,answer=final."""
    env: str = shared.DEFAULT_ENV
    """Environment id: gives the base model and the wording of requests."""
    adapter: tuple[str, ...] = ()
    """Adapters as [NAME=]DIRECTORY: a peft adapter or a run's folder. Adapters with one name are training seeds of one
    method."""
    k: int = 12
    """Samples of each problem."""
    sampling: str | None = None
    """Sampling preset: paper, qwen3-thinking, qwen3-instruct, env (as the environment's rollouts) or greedy. The paper's
    needs a context of 40,960 tokens; None is the paper's where the student has it, else env."""
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
    """Samples drawn together: memory against speed. Another engine (--rollout-engine) gets as many at once, and may take
    --engine-timeout-sec for them."""
    base: bool = True
    """Also evaluate the base model without an adapter."""
    training_data: str | None = None
    """Training problems (file or hub id) that are searched for the benchmark's; None searches the environment's own if it
    has a data_path."""
    overwrite: bool = False
    """Replace the evaluation that is in the folder."""
    resume: bool = False
    """Go on with the evaluation in the folder."""
    quiet: bool = False
    """Show no progress."""
    config: Annotated[EnvConfig, tyro.conf.arg(name="")] = field(
        default_factory=partial(preset_of, EnvConfig, shared.DEFAULT_ENV)
    )
    """The environment's configuration."""


def main(arguments: Sequence[str]) -> None:
    """``atesd evaluate``."""
    command = _parsed(arguments)
    # Heavy imports only now, so that --help is quick.
    from atesd_env.evaluation.evaluator import Evaluator
    from atesd_env.evaluation.samples import SUMMARY_FILE, SampleFile
    from atesd_env.files.atomic import locked_folder, write_atomically
    from atesd_env.student.adapter_files import find_adapter
    from atesd_env.tasks.registry import make_task

    methods, adapters = named_adapters(command.adapter, with_base=command.base)
    directories = {label: None if path is None else find_adapter(path) for label, path in adapters.items()}
    config, spec = _sampled_with(command, directories)
    task = make_task(config)
    benchmark = _benchmark(command, task)
    settings = _settings(command, config, spec, benchmark, directories)
    overlaps = _contaminated(command, benchmark)
    with (
        locked_folder(command.out),
        SampleFile(command.out, settings, resume=command.resume, overwrite=command.overwrite) as file,
    ):
        evaluator = Evaluator(config, task, spec, command.seed, command.batch)
        try:
            _sample(evaluator, benchmark, directories, command.k, file, quiet=command.quiet)
        except KeyboardInterrupt as interrupt:
            raise type(interrupt)(
                f"interrupted; {len(file.rows)} samples are kept. The same arguments and --resume (instead of --overwrite) go on "
                "from there."
            ) from None
        finally:
            evaluator.close()
        summary = _summary(file, benchmark, task, methods, command.k)
    content = {**summary, "contaminated_training_problems": overlaps}
    write_atomically(command.out / SUMMARY_FILE, (json.dumps(content, indent=2) + "\n").encode())
    say(f"samples: {command.out / 'samples.jsonl'}")
    say(f"summary: {command.out / SUMMARY_FILE}")


def _parsed(arguments: Sequence[str]) -> Command:
    command = parse_command(Command, arguments, "atesd evaluate", EnvConfig)
    shared.check_resume_or_overwrite(resume=command.resume, overwrite=command.overwrite)
    checked_seed(command.seed)
    if command.k < 1 or (command.max_problems is not None and command.max_problems < 1):
        raise ConfigError(
            f"evaluate: expected k and max_problems of at least 1, got {command.k} and {command.max_problems}; "
            "correct --k or --max-problems."
        )
    return command


def _sampled_with(command: Command, directories: dict[str, Path | None]) -> tuple[EnvConfig, SamplingSpec]:
    """Returns the configuration of the evaluation, and how answers are sampled: the preset's way with the flags' changes."""
    from atesd_env.evaluation.evaluator import CONTEST_CONTEXT, evaluation_config
    from atesd_env.evaluation.sampling_presets import sampling_preset
    from atesd_env.student.loading import load_tokenizer

    name = command.sampling
    if name is None:
        context = load_tokenizer(command.config.student)[1]
        name = "paper" if context is None or context >= CONTEST_CONTEXT else "env"
    chosen = sampling_preset(name, command.config)
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
    thinking = chosen.thinking if command.thinking is None else command.thinking
    chosen = dataclasses.replace(chosen, spec=spec, thinking=thinking)
    adapters = [directory for directory in directories.values() if directory is not None]
    return evaluation_config(command.config, chosen, adapters), spec


def _settings(
    command: Command,
    config: EnvConfig,
    spec: SamplingSpec,
    benchmark: Benchmark,
    directories: dict[str, Path | None],
) -> dict[str, Any]:
    """Returns what makes an evaluation this evaluation."""
    from atesd_env.evaluation.evaluator import adapter_checksum

    return {
        "benchmark": benchmark.name,
        "fingerprint": benchmark.fingerprint,
        "env": command.env,
        "student": config.student,
        "dtype": config.dtype,
        "task": config.task,
        "max_prompt_tokens": config.max_prompt_tokens,
        "sampling": dataclasses.asdict(spec),
        "enable_thinking": config.student_thinking,
        "seed": command.seed,
        "num_samples": command.k,
        "adapters": {label: adapter_checksum(path) for label, path in directories.items()},
        # Another engine gives other samples; which server it is does not matter.
        **({} if config.rollout_engine == "own" else {"rollout_engine": "vllm"}),
    }


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


def _benchmark(command: Command, task: Any) -> Benchmark:
    from atesd_env.evaluation.benchmarks import make_benchmark, read_benchmark
    from atesd_env.tasks.data.shapes import parse_columns

    if command.benchmark == "heldout":
        return make_benchmark("heldout", task.heldout_problems(command.max_problems or 64))
    columns = parse_columns(command.benchmark_columns, "benchmark_columns")
    return read_benchmark(command.benchmark, command.max_problems, columns=columns, task=command.config.task)


def _contaminated(command: Command, benchmark: Benchmark) -> list[str]:
    """Looks for the benchmark among the training problems and says what was found."""
    from atesd_env.evaluation.contamination import find_overlaps
    from atesd_env.tasks.data.rows import read_rows
    from atesd_env.tasks.data.shapes import parse_columns
    from atesd_env.tasks.registry import PACKAGED_DATA, rows_task

    source = command.training_data or (command.config.data_path if command.config.task in ROW_TASKS else None)
    if source is None:
        return []
    columns = None if command.training_data else parse_columns(command.config.data_columns)
    parse = rows_task(command.config.task).parse
    rows, _ = read_rows(PACKAGED_DATA / "train.jsonl" if source == "gsm8k" else source, columns=columns, parse=parse)
    texts = {problem.id: problem.problem for problem in benchmark.problems}
    overlaps = find_overlaps(((row.id, row.problem) for row in rows), texts)
    if overlaps:
        named = ", ".join(f"{o.training_id} ~ {o.benchmark_id} ({o.shared_ratio:.0%})" for o in overlaps[:5])
        say(
            f"warning: {len(overlaps)} of {len(rows)} training problems share 13 words in a row with the benchmark: {named}"
            f"{', ...' if len(overlaps) > 5 else ''}. `atesd data {source} --benchmark {command.benchmark} --out FILE` "
            "writes the training data without them."
        )
    else:
        say(f"contamination: none of {len(rows)} training problems shares 13 words in a row with the benchmark.")
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
    from atesd_env.evaluation.evaluator import Request

    with live_progress(quiet=quiet, line_every_sec=1.0) as begin:
        for label, directory in directories.items():
            requests = [
                Request(problem, sample)
                for problem in benchmark.problems
                for sample in range(num_samples)
                if (label, problem.id, sample) not in file
            ]
            tell = begin(label, len(requests))
            for number, row in enumerate(evaluator.samples(label, directory, requests), start=1):
                file.append(row)
                tell(number, "")


def _summary(
    file: SampleFile, benchmark: Benchmark, task: Any, methods: dict[str, list[str]], num_samples: int
) -> dict[str, Any]:
    """Prints the tables; returns them as JSON can hold them."""
    from atesd.commands.evaluation_tables import show_comparisons, show_summaries
    from atesd_env.evaluation.estimators import compare
    from atesd_env.evaluation.summary import NOISE_NOTE, comparison_as_json, correctness, sample_table, summarise

    problems = [problem.id for problem in benchmark.problems]
    tables = {
        label: sample_table(file.rows, label, problems, num_samples) for labels in methods.values() for label in labels
    }
    summaries = {label: summarise(table, task.same_answer) for label, table in tables.items()}
    show_summaries(benchmark, summaries)
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
        show_comparisons(comparisons)
    say(NOISE_NOTE)
    for label, summary in summaries.items():
        if summary.timeouts:
            listed = ", ".join(f"{problem} sample {sample}" for problem, sample in summary.timeouts)
            say(
                f"{label}: {len(summary.timeouts)} answers could not be checked (time, memory, a crash, or a program that "
                f"no sandbox here runs) and count as wrong: {listed}"
            )
    return {
        "summaries": {label: summary.as_json() for label, summary in summaries.items()},
        "comparisons": [
            {"first": first, "second": second, **comparison_as_json(comparison, problems)}
            for (first, second), comparison in comparisons.items()
        ],
    }
