"""``atesd data``: what is in a file of worked problems, what a teacher would be shown of it, and filters."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from atesd.console import say
from atesd_env.config.task import OWN_TASK, ROW_TASKS, TASKS
from atesd_env.errors import ConfigError, DataError
from atesd_env.files.atomic import check_writable, is_own_file, make_parent, write_atomically

if TYPE_CHECKING:
    from atesd_env.tasks.base import Problem
    from atesd_env.tasks.data.rows import DataRow

_RATIOS = (0.0, 0.25, 0.5, 0.75, 1.0)
_BAR_WIDTH = 40
_NUM_GENERATED = 200


@dataclass(frozen=True)
class Command:
    """Show what is in a data file: lengths, steps, what each reveal ratio shows; write the rows that are kept.

    From the hub: atesd data siyanzhao/Openthoughts_math_30k_opsd --student Qwen/Qwen3-1.7B --max-solution-tokens 4096
    --benchmark aime24 aime25 hmmt25 --out data/train.jsonl

    Then: atesd run --env ATESD-Qwen3-1.7B-v0 --data-path data/train.jsonl ...
    """

    source: Annotated[str, tyro.conf.Positional]
    """JSONL or Parquet file of problem, solution and answer, or a data set of the hub by its id, perhaps with a split
    (openai/gsm8k:train, openai/gsm8k:main:train); "gsm8k" is packaged. Or a task whose problems are generated (arithmetic, lists, facts,
    engram, reasoning_gym, package.module:Class), of which 200 are looked at."""
    data_split: str | None = None
    """Split of the data set, where it is not written behind its id."""
    data_config: str | None = None
    """Configuration of the data set."""
    task: str = "math"
    """Whose rows they are: math, code or choice."""
    data_columns: str | None = None
    """Which columns hold problem, solution, answer, id or level, where their names differ: problem=question,answer=final."""
    student: str | None = None
    """Model (hub id or directory) whose tokenizer counts tokens; None counts words."""
    min_steps: int | None = None
    """Leave out solutions of fewer steps."""
    max_steps: int | None = None
    """Leave out solutions of more steps."""
    max_problem_tokens: int | None = None
    """Leave out longer problems."""
    max_solution_tokens: int | None = None
    """Leave out longer solutions."""
    benchmark: tuple[str, ...] = ()
    """Benchmarks (names, hub ids or files) whose problems are looked for; rows that share 13 words in a row are left
    out."""
    examples: int = 1
    """Problems of which is shown what each reveal ratio lets the teacher see."""
    out: Path | None = None
    """JSONL file to write the kept rows to."""
    overwrite: bool = False
    """Replace that file."""


def main(arguments: Sequence[str]) -> None:
    """``atesd data``."""
    command = tyro.cli(Command, args=list(arguments), prog="atesd data")
    if command.out is not None:
        check_writable(command.out)
        if is_own_file(command.out) and not command.overwrite:
            raise ConfigError(f"out: expected a new file, got {command.out}; pass --overwrite to replace it.")

    from atesd_env.evaluation.benchmarks import read_benchmark
    from atesd_env.evaluation.contamination import find_overlaps
    from atesd_env.tasks.data.filters import LengthLimits, measured
    from atesd_env.tasks.data.rows import read_rows
    from atesd_env.tasks.data.shapes import parse_columns
    from atesd_env.tasks.data.sources import named_source
    from atesd_env.tasks.registry import PACKAGED_DATA, rows_task

    if _is_generated(command.source):
        _show_generated(command)
        return
    kind = rows_task(command.task)
    source = named_source(command.source, command.data_config, command.data_split)
    source = str(PACKAGED_DATA / "train.jsonl") if source == "gsm8k" else source
    rows, report = read_rows(source, columns=parse_columns(command.data_columns), parse=kind.parse)
    say(report)
    limits = LengthLimits(command.min_steps, command.max_steps, command.max_problem_tokens, command.max_solution_tokens)
    kept = []
    dropped: dict[str, int] = {}
    for row, lengths in measured(rows, _token_counter(command.student), kind.steps):
        breach = lengths.breach(limits)
        if breach is None:
            kept.append((row, lengths))
        else:
            dropped[breach] = dropped.get(breach, 0) + 1
    for name, count in dropped.items():
        say(f"left out by {name}: {count}")
    for name in command.benchmark:
        texts = {problem.id: problem.problem for problem in read_benchmark(name, task=command.task).problems}
        overlaps = find_overlaps(((row.id, row.problem) for row, _ in kept), texts)
        say(f"shares 13 words in a row with {name}: {len(overlaps)}")
        for overlap in overlaps[:10]:
            say(f"  {overlap.training_id} ~ {overlap.benchmark_id} ({overlap.shared_ratio:.0%}): {overlap.example}")
        found = {overlap.training_id for overlap in overlaps}
        kept = [(row, lengths) for row, lengths in kept if row.id not in found]
    say(f"kept: {len(kept)} of {len(rows)}")
    if not kept:
        raise DataError(f"{command.source}: expected at least one row within the limits, got none; relax them.")

    unit = "words" if command.student is None else "tokens"
    for title, values in (
        ("steps of a solution", [lengths.steps for _, lengths in kept]),
        (f"{unit} of a problem", [lengths.problem_tokens for _, lengths in kept]),
        (f"{unit} of a solution", [lengths.solution_tokens for _, lengths in kept]),
    ):
        say(f"\n{title}\n{histogram(values)}")
    for row, _ in kept[: command.examples]:
        say(f"\n{_example(kind.as_problem(row, has_levels=False))}")
    if command.out is not None:
        _write(command.out, [row for row, _ in kept])
        say(f"\nwritten: {command.out}")


def histogram(values: Sequence[int], num_bins: int = 10) -> str:
    """Returns a histogram of whole numbers as text, with mean, median, 95th percentile and maximum above it.

    Args:
        values: At least one.
        num_bins: Most lines; bins are equally wide and cover every value.
    """
    import numpy as np

    numbers = np.asarray(values)
    low, high = int(numbers.min()), int(numbers.max())
    width = -(-(high - low + 1) // num_bins)
    counts = np.bincount((numbers - low) // width)
    lines = [
        f"  mean {numbers.mean():.1f}, median {np.median(numbers):g}, 95% are at most {np.quantile(numbers, 0.95):g}, "
        f"most {high}"
    ]
    for index, count in enumerate(counts.tolist()):
        start, end = low + index * width, low + (index + 1) * width - 1
        label = str(start) if start == end else f"{start}-{end}"
        lines.append(f"  {label:>13} {count:7} {'#' * round(_BAR_WIDTH * count / int(counts.max()))}")
    return "\n".join(lines)


def _is_generated(source: str) -> bool:
    return (
        not os.path.exists(source)
        and source not in ROW_TASKS
        and (source in TASKS or OWN_TASK.fullmatch(source) is not None)
    )


def _show_generated(command: Command) -> None:
    """Shows what a task generates: its first training problems under seed 0."""
    from atesd_env.config import EnvConfig
    from atesd_env.tasks.registry import make_task

    if command.out is not None or command.benchmark:
        raise ConfigError(
            f"source: expected a file for --out and --benchmark, got {command.source!r}, whose problems are generated without end; "
            "leave them out."
        )
    task = make_task(EnvConfig(task=command.source))
    problems = [task.training_problem(0, index) for index in range(_NUM_GENERATED)]
    say(f"{command.source}: {len({problem.problem for problem in problems})} different problems of {_NUM_GENERATED}")
    say(f"\nsteps of a solution\n{histogram([len(problem.steps) for problem in problems])}")
    for problem in problems[: command.examples]:
        say(f"\n{_example(problem)}")


def _example(problem: Problem) -> str:
    """Returns what each reveal ratio shows of one problem."""
    from atesd_env.exposure import num_shown_steps

    steps, answer = problem.steps, problem.answer.replace("\n", "; ")
    lines = [f"{problem.id}: {problem.problem}"]
    lines += [f"  step {number}: {step.strip()!r}" for number, step in enumerate(steps, start=1)]
    for ratio in _RATIOS:
        num_shown = num_shown_steps(ratio, len(steps))
        shown = "no step" if num_shown == 0 else f"steps 1 to {num_shown} of {len(steps)}"
        lines.append(f"  reveal ratio {ratio:.2f}: {shown}, and the answer {answer}")
    return "\n".join(lines)


def _token_counter(student: str | None) -> Callable[[str], int]:
    if student is None:
        return lambda text: len(text.split())
    from transformers import AutoTokenizer

    from atesd_env.student.loading import check_model_folder
    from atesd_env.student.packaged import is_packaged, packaged_folder

    try:
        source = str(packaged_folder(student)) if is_packaged(student) else student
        if os.path.isdir(source):
            check_model_folder(Path(source))
        tokenizer: Any = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # what a folder of any content makes the library raise
        raise ConfigError(
            f"student: expected a hub id or a directory with a tokenizer, got {student!r} ({str(error)[:120]}); "
            "correct --student."
        ) from error
    # Nothing is fed to the model: its context is no limit here.
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False, verbose=False))


def _write(path: Path, rows: Iterable[DataRow]) -> None:
    """Writes the rows as a whole file, or not at all."""
    lines = []
    for row in rows:
        level = {} if row.level is None else {"level": row.level}
        lines.append(json.dumps({"id": row.id, **row.as_fields(), **level}) + "\n")
    make_parent(path)
    write_atomically(path, "".join(lines).encode())
