"""The examples on the page of tasks, made by the tasks themselves: a problem, what ratios show of it, how answers to it are judged."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from atesd_env.config import EnvConfig
from atesd_env.exposure import num_shown_steps
from atesd_env.tasks.base import Problem, Task
from atesd_env.tasks.registry import make_task
from docs.generator.markdown import markdown_table
from docs.generator.public_names import ROOT
from docs.generator.result_tables import measured, source

RESULTS = ROOT / "benchmarks" / "results"
_NUM_DRAWN = 500
_RATIOS = (0.0, 0.5, 1.0)
_WINDOWS = (1, 5, 10, 20)
_VERDICTS = {True: "right", False: "wrong", None: "not judged"}


@dataclass(frozen=True)
class Example:
    """Which problem stands for a task.

    Attributes:
        index: Number of the training problem, under seed 0.
        answers: Texts to judge, with the fields of the problem to fill in: ``{answer}``, ``{solution}``,
            ``{reference}``.
        fields: Configuration beside the task's name.
    """

    index: int
    answers: tuple[str, ...]
    fields: tuple[tuple[str, Any], ...] = ()


def _of_sample(name: str) -> tuple[tuple[str, Any], ...]:
    return ("data_path", str(ROOT / "tests" / "data" / f"{name}_sample.jsonl")), ("probe_size", 10)


_BOXED = (r"So it is \boxed{{{answer}}}.", "So it is {answer}.")
_HASHED = ("{reference}", "#{answer}", "{answer}")
EXAMPLES = {
    "arithmetic": Example(0, _HASHED),
    "lists": Example(2, _HASHED),
    "math": Example(0, _BOXED, _of_sample("gsm8k")),
    "code": Example(4, ("{reference}", "```python\ndef remove_Occ(s, ch):\n    return s\n```"), _of_sample("mbppplus")),
    "choice": Example(0, (r"\boxed{{{answer}}}", r"\boxed{{({answer})}}", "{answer}"), _of_sample("aqua")),
    "facts": Example(2, _BOXED),
    "engram": Example(2, _BOXED),
    "reasoning_gym": Example(0, _BOXED),
}
"""A problem of each task of ours."""


def task_example(name: str) -> str:
    """Returns the example of a task, as a block of text."""
    example = EXAMPLES[name]
    task = make_task(EnvConfig(task=name, **dict(example.fields)))
    problem = task.training_problem(0, example.index)
    parts = {
        "answer": problem.answer,
        "solution": "".join(problem.steps),
        "reference": task.reference_completion(problem),
    }
    lines = [("problem", problem.problem)]
    lines += [(f"ratio {ratio:g}", shown(task, problem, ratio)) for ratio in _RATIOS]
    for answer in example.answers:
        text = answer.format(**parts)
        remark = task.remark(text, problem)
        lines.append((_VERDICTS[task.judge(text, problem)], f"{text}\n({remark})" if remark else text))
    if not example.fields:
        drawn = {task.training_problem(0, index).problem for index in range(_NUM_DRAWN)}
        lines.append(("size", f"{len(drawn)} of {_NUM_DRAWN} problems drawn are different"))
    return _block(lines)


def shown(task: Task, problem: Problem, ratio: float) -> str:
    """Returns what of a reference stands in the teacher's request: what is between the markers, or all where a task has none."""
    steps = problem.steps[: num_shown_steps(ratio, len(problem.steps))]
    request = task.teacher_request(problem, steps, problem.answer)
    between = re.search(r"^=== .*? ===\n(.*?)\n=== ", request, re.DOTALL | re.MULTILINE)
    return between[1] if between else request


def _block(lines: Iterable[tuple[str, str]]) -> str:
    return "````text\n" + "\n".join(_indented(label, text) for label, text in lines) + "\n````"


def _indented(label: str, text: str) -> str:
    lines = [part for line in text.strip("\n").split("\n") for part in _wrapped(line)]
    return "\n".join(f"{label if index == 0 else '':12}{line}".rstrip() for index, line in enumerate(lines))


def _wrapped(line: str, width: int = 110) -> list[str]:
    """Returns a line as one or more of at most ``width`` characters, or as it is where it fits: programs keep their form."""
    return textwrap.wrap(line, width) if len(line) > width else [line]


def lists_tables() -> str:
    """Returns what "tiny-lists" does as a teacher before training, and what it learns, by reveal ratio, as measured."""
    result = measured("lists_student")
    by_length: dict[int, list[str]] = {}
    for line in result["teacher"]:
        cell = f"{100 * line['accuracy']:.0f} ({100 * line['steps_right']:.0f})"
        by_length.setdefault(line["operations"], []).append(cell)
    ratios = [line["reveal_ratio"] for line in result["teacher"] if line["operations"] == 1]
    teacher = markdown_table(
        ("operations", *("plain" if ratio is None else f"{ratio:g}" for ratio in ratios)),
        [(str(length), *cells) for length, cells in by_length.items()],
    )
    by_ratio: dict[str, list[dict[str, Any]]] = {}
    for run in result["runs"]:
        by_ratio.setdefault(run["schedule"].removeprefix("fixed:"), []).append(run)

    def row(ratio: str, runs: list[dict[str, Any]]) -> tuple[str, ...]:
        right = [100 * fmean(run["rollout/success_rate"][window - 1] for run in runs) for window in _WINDOWS]
        ends = (fmean(run["student/mismatch"][window] for run in runs) for window in (0, -1))
        heldout = (f"{100 * run['accuracy']:.0f}" for run in runs)
        return ratio, *(f"{value:.0f}" for value in right), ", ".join(heldout), *(f"{end:.3f}" for end in ends)

    headers = (
        "ratio",
        *(f"rollouts right in window {window}, %" for window in _WINDOWS),
        "held-out right at the end, by seed, %",
        "mismatch in window 1",
        f"in window {_WINDOWS[-1]}",
    )
    learned = markdown_table(headers, [row(*pair) for pair in by_ratio.items()])
    return f"{teacher}\n\n{learned}\n\n{source(result)}"


def smollm2_windows() -> str:
    """Returns what SmolLM2 made of tasks, window by window, as measured, with a rollout of the first and one of the last."""
    parts = []
    for path in sorted(RESULTS.glob("smollm2_*.json")):
        result = measured(path.stem)
        rows = [
            (
                str(number),
                f"{window['probe/nll']:.3f}",
                f"{window['student/mismatch']:.3f}",
                f"{window['rollout/length']:.0f}",
                f"{100 * window['rollout/success_rate']:.0f}",
            )
            for number, window in enumerate(result["windows"], start=1)
        ]
        headers = ("window", "probe NLL", "mismatch", "tokens of a rollout", "right, %")
        lines = []
        for window in (result["windows"][0], result["windows"][-1]):
            sample = window["sample"]
            verdict = _VERDICTS[sample["is_correct"]]
            lines += [
                ("problem", sample["problem"]),
                ("rollout", sample["rollout"]),
                (verdict, f"it is {sample['answer']}"),
            ]
        parts += [f"`{result['fields']['task']}`:", markdown_table(headers, rows), _block(lines), source(result)]
    return "\n\n".join(parts)
