"""What is damaged: folders as our commands write them, and everything that reads them."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

import agents
import atesd_env  # noqa: F401  (registers the ids)
from atesd.experiments.bench.plan import default_seeds, plan_bench, write_bench_file
from atesd.experiments.run import execute
from atesd_env.bench import Instance, InstanceSet
from atesd_env.bench.known import COLUMNS, write_references
from atesd_env.student.packaged import TINY_DIRECTORY
from benchmarks.faults import readers
from benchmarks.faults.kills import COMMANDS, TOY, life, undisturbed
from benchmarks.faults.oracle import command, silent
from benchmarks.faults.readers import AGENTS, TINY_FIELDS, Use


@dataclass(frozen=True, eq=False)
class Subject:
    """Sound files, and who reads them.

    Attributes:
        name: Its folder.
        make: Writes them into that folder.
        files: Patterns of the files to damage.
        uses: Name of the reader, a row of the table -> how it reads.
    """

    name: str
    make: Callable[[Path], None]
    files: tuple[str, ...]
    uses: dict[str, Use]


def _interrupted(name: str, out: Path, share: float) -> None:
    """Makes a share of a command's file operations and leaves the folder as a kill leaves it."""
    life(name, out, round(share * undisturbed(name)["operations"]))


def _made_evaluation(folder: Path) -> None:
    command(*COMMANDS["evaluate, Tiny"], "--out", folder)
    samples = folder / "samples.jsonl"
    samples.write_bytes(b"".join(samples.read_bytes().splitlines(keepends=True)[:7]))


def _made_state(folder: Path) -> None:
    folder.mkdir()
    for env_id, fields in (("ATESD-Toy-v0", {}), ("ATESD-Tiny-v0", TINY_FIELDS)):
        with contextlib.closing(gymnasium.make(env_id, disable_env_checker=True, **fields)) as env:
            env.reset(seed=0)
            env.step([0.5])
            env.unwrapped.save_state(folder / f"{env_id}.safetensors")


def _made_agents(folder: Path) -> None:
    folder.mkdir()
    for spec in AGENTS:
        with contextlib.closing(gymnasium.make("ATESD-Toy-v0", windows=4, disable_env_checker=True)) as env:
            agent = agents.make(spec, env)
            if hasattr(agent, "learn"):
                agent.learn(6)
            agent.save(folder / f"{spec}.safetensors")


def _made_surrogate(folder: Path) -> None:
    folder.mkdir()
    seeds = [str(seed) for seed in range(12)]
    command("run", "--quiet", *TOY, "--windows", "5", "--agent", "random", "--seeds", *seeds, "--out", folder / "runs")
    command("fit-surrogate", folder / "runs", "--out", folder / "surrogate.safetensors", "--families", "linear")


def _made_bench(folder: Path) -> None:
    """Writes an instance set of closed forms, what is known on it, and runs of two agents on it."""
    folder.mkdir()
    instances = tuple(
        Instance(f"best-{ratio}", split, "A best ratio.", {"toy_best_ratio": 0.1 * ratio})
        for split, ratio in (("train", 1), ("test", 2), ("test", 8))
    )
    InstanceSet("mine", "1", "closed forms", TOY[1], {"windows": 3}, instances).save(folder / "set.json")
    lines = [
        (one.id, agent, "probe/accuracy", mean, 0.0, 1.0, 8, "20000-20007", 9, 900)
        for one in instances
        for agent, mean in (("fixed:1", 0.0), ("oracle", 0.5))
    ]
    card = dict.fromkeys(("what", "command", "commit", "licence"), "none")
    write_references(InstanceSet.load(folder / "set.json"), pd.DataFrame(lines, columns=list(COLUMNS)), **card)
    given = str(folder / "set.json"), "test"
    write_bench_file(folder / "runs", *given, threads=1)
    for spec in plan_bench(*given, ["fixed:0.5", "fixed:1"], default_seeds("test", quick=True), folder / "runs"):
        execute(spec)  # here, and not in fresh processes, which import everything again


def _made_data(folder: Path) -> None:
    folder.mkdir()
    rows: list[dict[str, Any]] = [
        {
            "id": f"p{number}",
            "problem": f"What is {number} + {number + 1}?",
            "solution": f"First {number}.\nThen add {number + 1}.\nSo {2 * number + 1}.",
            "answer": str(2 * number + 1),
            "level": 1 + number % 3,
        }
        for number in range(20)
    ]
    said = [("user", "What is 2 times 3?"), ("assistant", "Twice 3.\nSo \\boxed{6}.")]
    chat = {"messages": [{"role": role, "content": content} for role, content in said]}
    others = [{"question": "What is 1?", "answer": "It is 1.\n#### 1"}, chat]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows + others))
    pa.parquet.write_table(pa.Table.from_pylist(rows), folder / "problems.parquet")
    asked = [{name: row[name] for name in ("problem", "answer")} for row in rows[:4]]
    (folder / "benchmark.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))


def _made_adapter(folder: Path) -> None:
    folder.mkdir()
    command(*COMMANDS["run, Tiny"], "--out", folder / "runs")
    shutil.copytree(folder / "runs" / "beta-seed0" / "adapter", folder / "adapter")
    shutil.rmtree(folder / "runs")


READS: dict[str, Use] = {
    "load_runs": Use(readers.loaded, files=("*/config.json", "*/trajectory.jsonl")),
    "list_runs": Use(readers.listed, files=("*/config.json", "*/trajectory.jsonl")),
    "watch": Use(readers.watched, files=("*/config.json", "*/trajectory.jsonl")),
    "report": Use(readers.reported, files=("*/config.json", "*/trajectory.jsonl", "*/samples.jsonl")),
    "export --to csv": Use(readers.exported("csv"), files=("*/config.json", "*/trajectory.jsonl")),
    "export --to parquet": Use(readers.exported("parquet"), files=("*/config.json", "*/trajectory.jsonl")),
    "export --to minari": Use(readers.exported("minari"), files=("*/config.json", "*/trajectory.jsonl")),
    "analysis.compare_agents": Use(readers.compared, files=("*/config.json", "*/trajectory.jsonl")),
}
_RUN = ("*/config.json", "*/trajectory.jsonl", "*/samples.jsonl", "*/checkpoints/*")
_SUBMISSION = ("runs/**/config.json", "runs/**/trajectory.jsonl", "runs/bench.json")
_MODEL = {"student": "@model", **TINY_FIELDS}

SUBJECTS = (
    Subject(
        "interrupted",
        lambda folder: _interrupted("run, closed form", folder, 0.75),
        _RUN,
        {"run --resume, closed form": Use(readers.resumed("run, closed form"), is_compared=True)},
    ),
    Subject(
        "shown",
        lambda folder: _interrupted("run, closed form, shown again", folder, 0.8),
        _RUN,
        {"run --resume, shown again": Use(readers.resumed("run, closed form, shown again"), is_compared=True)},
    ),
    Subject(
        "tiny",
        lambda folder: _interrupted("run, Tiny", folder, 0.6),
        _RUN,
        {"run --resume, Tiny": Use(readers.resumed("run, Tiny"), is_compared=True)},
    ),
    Subject(
        "runs", lambda folder: command(*COMMANDS["run, closed form"], "--out", folder, "--seeds", "0", "1"), _RUN, READS
    ),
    Subject(
        "training",
        lambda folder: command(*COMMANDS["train, ours"], "--out", folder, "--total-windows", "32"),
        ("*.json*", "*.safetensors"),
        {
            "train --resume": Use(
                readers.resumed("train, ours"), is_compared=True, files=("*.json*", "checkpoint.safetensors")
            ),
        },
    ),
    Subject(
        "training-sb3",
        lambda folder: command(*COMMANDS["train, Stable-Baselines3"], "--out", folder, "--total-windows", "32"),
        ("*.json*", "*.zip", "*.safetensors"),
        {
            "train --resume, Stable-Baselines3": Use(
                readers.resumed("train, Stable-Baselines3"),
                is_compared=True,
                files=("*.json*", "checkpoint.safetensors"),
            ),
            "saved agent, Stable-Baselines3": Use(
                readers.decided("best_agent.zip:trust=true"), files=("best_agent.zip",)
            ),
        },
    ),
    Subject(
        "evaluation",
        _made_evaluation,
        ("*.json*",),
        {"evaluate --resume": Use(readers.resumed("evaluate, Tiny"), files=("evaluation.json", "samples.jsonl"))},
    ),
    Subject(
        "states",
        _made_state,
        ("*",),
        {
            "state, closed form": Use(
                readers.environment("ATESD-Toy-v0", state="@ATESD-Toy-v0.safetensors"), True, ("ATESD-Toy*",)
            ),
            "state, Tiny": Use(
                readers.environment("ATESD-Tiny-v0", state="@ATESD-Tiny-v0.safetensors", **TINY_FIELDS),
                True,
                ("ATESD-Tiny*",),
            ),
        },
    ),
    Subject(
        "surrogate",
        _made_surrogate,
        ("*",),
        {
            "surrogate": Use(
                readers.environment("ATESD-Surrogate-v0", file="@surrogate.safetensors"), True, ("surrogate*",)
            ),
            "fit-surrogate": Use(readers.fitted, files=("runs/*/config.json", "runs/*/trajectory.jsonl")),
        },
    ),
    Subject(
        "bench",
        _made_bench,
        ("set.*", "runs/**/*.json*"),
        {
            "instance set": Use(readers.environment("ATESD-Bench-v0", instances="@set.json"), files=("set.json",)),
            "bench check": Use(lambda folder: command("bench", "check", folder / "set.json"), files=("set.json",)),
            "references": Use(readers.referenced, files=("set.parquet",)),
            "bench score": Use(readers.scored, files=("set.parquet", *_SUBMISSION)),
            "bench validate": Use(readers.validated, files=_SUBMISSION),
            "bench validate, rows": Use(readers.validated, is_compared=True, files=_SUBMISSION[1:2]),
        },
    ),
    Subject(
        "agents",
        _made_agents,
        ("*",),
        {
            "saved agents": Use(readers.decided(*(f"{name}.safetensors" for name in AGENTS)), is_compared=True),
            "saved agents, learning": Use(
                readers.decided(*(f"{name}.safetensors:learn=true" for name in AGENTS if name != "random")),
                is_compared=True,
            ),
        },
    ),
    Subject(
        "adapter",
        _made_adapter,
        ("adapter/*",),
        {
            "adapter": Use(readers.environment("ATESD-Tiny-v0", adapter="@adapter", **TINY_FIELDS)),
            "evaluate --adapter": Use(readers.evaluated("--adapter", "@adapter")),
        },
    ),
    Subject(
        "student",
        lambda folder: [None, shutil.copytree(TINY_DIRECTORY, folder / "model")][0],
        ("model/*",),
        {"model folder": Use(readers.environment("ATESD-Tiny-v0", **_MODEL))},
    ),
    Subject(
        "data",
        _made_data,
        ("*",),
        {
            "training data, JSONL": Use(
                lambda folder: readers.trained_on(folder / "problems.jsonl"), files=("problems.jsonl",)
            ),
            "training data, Parquet": Use(
                lambda folder: readers.trained_on(folder / "problems.parquet"), files=("*.parquet",)
            ),
            "data": Use(readers.measured, files=("problems.jsonl",)),
            "benchmark": Use(readers.evaluated("--benchmark", "@benchmark.jsonl"), files=("benchmark.jsonl",)),
        },
    ),
)
"""Everything that is damaged."""


def named_files(subject: Subject, name: str, folder: Path) -> list[Path]:
    """Returns the files that a reader reads and that hold something, of a subject that stands in a folder."""
    patterns = subject.uses[name].files or subject.files
    return sorted(
        path for pattern in patterns for path in folder.glob(pattern) if path.is_file() and path.stat().st_size
    )


def names_of(path: Path, folder: Path) -> tuple[str, ...]:
    """Returns what a message may call a file of a subject: by its name, by that of a folder that it is in, or by the subject's path."""
    return (path.stem, *path.relative_to(folder).parts[:-1], str(folder))


class Sound:
    """The sound subjects below a folder, each written when it is first asked for.

    They are written in this process: cases are its forks, and have what is imported and cached here.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, name: str) -> Path:
        """Returns a subject's folder."""
        path = self.root / name
        if not path.exists():
            (subject,) = (one for one in SUBJECTS if one.name == name)
            self.root.mkdir(exist_ok=True)
            with silent():
                subject.make(path)
                if name == "runs":
                    shutil.copytree(path, self.root / "warm")
                    for use in READS.values():
                        use.act(self.root / "warm")
        return path
