"""What is damaged: folders as our commands write them, and everything that reads them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

import agents
import atesd_env  # noqa: F401  (registers the ids)
from analysis import compare_agents, final_outcomes, list_runs, load_runs
from analysis.report.page import write_report
from atesd.commands.watch import run_statuses
from atesd_env.config import EnvConfig
from atesd_env.student.loading import TINY_DIRECTORY
from atesd_env.tasks.registry import make_task
from benchmarks.faults.kills import COMMANDS, TOY, contents, life, undisturbed
from benchmarks.faults.oracle import Refused, command, silent

TINY_FIELDS = {
    "hold_window": 1,
    "num_rollouts": 2,
    "max_new_tokens": 8,
    "probe_size": 2,
    "probe_accuracy_every": 0,
    "windows": 3,
}


@dataclass(frozen=True)
class Use:
    """One reader.

    Attributes:
        act: Reads the folder and returns what came of it.
        is_compared: Whether it has something to compare the files with, so that it believes none.
        files: Patterns of the files that it reads; () for all of the subject's.
    """

    act: Callable[[Path], Any]
    is_compared: bool = False
    files: tuple[str, ...] = ()


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


def _digest(value: Any) -> str:
    content = value if isinstance(value, bytes) else str(value).encode()
    return hashlib.sha256(content).hexdigest()[:12]


def _frame(frame: pd.DataFrame) -> dict[str, str]:
    kept = frame.drop(columns=[name for name in frame if name.startswith("time/")])
    return {str(name): _digest(kept[name].astype(str).tolist()) for name in kept}


def _loaded(folder: Path) -> dict[str, str]:
    return _frame(load_runs(folder))


def _listed(folder: Path) -> list[str]:
    lines = list_runs(folder)
    problems = " ".join(
        str(problem) for problem in lines.get("problem", []) if problem is not None and not pd.isna(problem)
    )
    if problems:
        raise Refused(problems)
    return [str(line) for line in lines.drop(columns=[n for n in lines if "sec" in n]).to_dict("records")]


def _watched(folder: Path) -> list[str]:
    command("watch", folder, "--once")
    statuses = run_statuses(folder)
    problems = [status.problem for status in statuses if status.problem]
    if problems:
        raise Refused(" ".join(problems))
    return [str(dataclasses.replace(status, age_sec=None, window_sec=None, state="running")) for status in statuses]


def _reported(folder: Path) -> str:
    page = write_report(folder, folder / "new.html").read_text()
    page = re.sub(r"data:image/[^\"]*", "", page)
    return _digest(re.sub(r"\d+(\.\d+)? (s|min|h)\b|<td>[^<]*sec[^<]*</td>|\d{4}-\d\d-\d\d[^<]*", "", page))


def _exported(to: str) -> Callable[[Path], Any]:
    def act(folder: Path) -> Any:
        out = folder / ("data" if to == "minari" else f"runs.{to}")
        command("export", folder, "--to", to, "--out", out)
        if to == "minari":
            return sorted(path.relative_to(out).as_posix() for path in out.rglob("*"))
        return _frame(pd.read_csv(out) if to == "csv" else pd.read_parquet(out))

    return act


def _compared(folder: Path) -> Any:
    outcomes = final_outcomes(load_runs(folder), ["probe/nll"])
    return _frame(compare_agents(outcomes, ["probe/nll"]))


def _fitted(folder: Path) -> str:
    command("fit-surrogate", folder / "runs", "--out", folder / "fitted.safetensors", "--families", "linear")
    return _digest((folder / "fitted.safetensors").read_bytes())


def _resumed(name: str, *, is_finished: bool = False) -> Callable[[Path], Any]:
    def act(folder: Path) -> Any:
        command(*COMMANDS[name], "--out", folder, "--resume")
        return "finished" if is_finished else contents(folder)

    return act


def stepped(env_id: str, fields: dict[str, Any], action: Any = None, **reset: Any) -> str:
    """Makes an environment, resets it, steps once; returns "sound", or what came that is no observation or no reward."""
    with contextlib.closing(gymnasium.make(env_id, disable_env_checker=True, **fields)) as env:
        env.reset(**{"seed": 0, **reset})
        observation, reward, *_ = env.step([0.5] if action is None else action)
        is_sound = env.observation_space.contains(observation) and math.isfinite(reward)
        return "sound" if is_sound else f"observation {observation}, reward {reward}"


def _environment(env_id: str, **fields: Any) -> Callable[[Path], Any]:
    """Returns a reader that makes an environment of paths below the folder, and a step in it."""

    def act(folder: Path) -> Any:
        paths = {
            name: str(folder / value[1:]) if str(value).startswith("@") else value for name, value in fields.items()
        }
        state = paths.pop("state", None)
        with contextlib.closing(gymnasium.make(env_id, disable_env_checker=True, **paths)) as env:
            observation, _ = env.reset(seed=0, options=None if state is None else {"state": state})
            return [_digest(np.asarray(observation).tobytes()), str(env.step([0.5])[1])]

    return act


_AGENTS = ("beta", "linucb", "ucb", "thompson", "exp3s", "feedback", "random")


def _decided(*specs: str) -> Callable[[Path], Any]:
    """Returns a reader that makes saved agents of a folder, lets those learn on that shall, and has them decide."""

    def act(folder: Path) -> Any:
        ratios = []
        for spec in specs:
            with contextlib.closing(gymnasium.make("ATESD-Toy-v0", windows=4, disable_env_checker=True)) as env:
                agent = agents.make(f"{folder}/{spec}", env)
                if spec.endswith("learn=true"):
                    agent.learn(6)
                ratios += agent.predict(env.reset(seed=0)[0], deterministic=True)[0].tolist()
        if not all(0.0 <= ratio <= 1.0 for ratio in ratios):
            raise ValueError(f"ratios {ratios}")
        return ratios

    return act


def _evaluated(*more: str) -> Callable[[Path], Any]:
    def act(folder: Path) -> Any:
        given = [str(folder / one[1:]) if one.startswith("@") else one for one in more]
        command(*COMMANDS["evaluate, Tiny"], *given, "--out", folder / "evaluated")
        return contents(folder / "evaluated")

    return act


def trained_on(path: Path) -> str:
    """Returns a digest of the problems that a task makes of a file."""
    task = make_task(EnvConfig(task="math", data_path=str(path), probe_size=4))
    return _digest(
        [task.training_problem(0, index) for index in range(task.num_training_problems)] + task.probe_problems(4)
    )


def _measured(folder: Path) -> Any:
    command("data", folder / "problems.jsonl", "--out", folder / "out.jsonl")
    return _digest((folder / "out.jsonl").read_bytes())


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
    for spec in _AGENTS:
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
    "load_runs": Use(_loaded, files=("*/config.json", "*/trajectory.jsonl")),
    "list_runs": Use(_listed, files=("*/config.json", "*/trajectory.jsonl")),
    "watch": Use(_watched, files=("*/config.json", "*/trajectory.jsonl")),
    "report": Use(_reported, files=("*/config.json", "*/trajectory.jsonl", "*/samples.jsonl")),
    "export --to csv": Use(_exported("csv"), files=("*/config.json", "*/trajectory.jsonl")),
    "export --to parquet": Use(_exported("parquet"), files=("*/config.json", "*/trajectory.jsonl")),
    "export --to minari": Use(_exported("minari"), files=("*/config.json", "*/trajectory.jsonl")),
    "analysis.compare_agents": Use(_compared, files=("*/config.json", "*/trajectory.jsonl")),
}
_RUN = ("*/config.json", "*/trajectory.jsonl", "*/samples.jsonl", "*/checkpoints/*")
_MODEL = {"student": "@model", **TINY_FIELDS}

SUBJECTS = (
    Subject(
        "interrupted",
        lambda folder: _interrupted("run, closed form", folder, 0.75),
        _RUN,
        {"run --resume, closed form": Use(_resumed("run, closed form"), is_compared=True)},
    ),
    Subject(
        "shown",
        lambda folder: _interrupted("run, closed form, shown again", folder, 0.8),
        _RUN,
        {"run --resume, shown again": Use(_resumed("run, closed form, shown again"), is_compared=True)},
    ),
    Subject(
        "tiny",
        lambda folder: _interrupted("run, Tiny", folder, 0.6),
        _RUN,
        {"run --resume, Tiny": Use(_resumed("run, Tiny"), is_compared=True)},
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
                _resumed("train, ours"), is_compared=True, files=("*.json*", "checkpoint.safetensors")
            ),
        },
    ),
    Subject(
        "training-sb3",
        lambda folder: command(*COMMANDS["train, Stable-Baselines3"], "--out", folder, "--total-windows", "32"),
        ("*.json*", "*.zip", "*.safetensors"),
        {
            "train --resume, Stable-Baselines3": Use(
                _resumed("train, Stable-Baselines3"), is_compared=True, files=("*.json*", "checkpoint.safetensors")
            ),
            "saved agent, Stable-Baselines3": Use(_decided("best_agent.zip:trust=true"), files=("best_agent.zip",)),
        },
    ),
    Subject(
        "evaluation",
        _made_evaluation,
        ("*.json*",),
        {"evaluate --resume": Use(_resumed("evaluate, Tiny"), files=("evaluation.json", "samples.jsonl"))},
    ),
    Subject(
        "states",
        _made_state,
        ("*",),
        {
            "state, closed form": Use(
                _environment("ATESD-Toy-v0", state="@ATESD-Toy-v0.safetensors"), True, ("ATESD-Toy*",)
            ),
            "state, Tiny": Use(
                _environment("ATESD-Tiny-v0", state="@ATESD-Tiny-v0.safetensors", **TINY_FIELDS), True, ("ATESD-Tiny*",)
            ),
        },
    ),
    Subject(
        "surrogate",
        _made_surrogate,
        ("*",),
        {
            "surrogate": Use(_environment("ATESD-Surrogate-v0", file="@surrogate.safetensors"), True, ("surrogate*",)),
            "fit-surrogate": Use(_fitted, files=("runs/*/config.json", "runs/*/trajectory.jsonl")),
        },
    ),
    Subject(
        "agents",
        _made_agents,
        ("*",),
        {
            "saved agents": Use(_decided(*(f"{name}.safetensors" for name in _AGENTS)), is_compared=True),
            "saved agents, learning": Use(
                _decided(*(f"{name}.safetensors:learn=true" for name in _AGENTS if name != "random")), is_compared=True
            ),
        },
    ),
    Subject(
        "adapter",
        _made_adapter,
        ("adapter/*",),
        {
            "adapter": Use(_environment("ATESD-Tiny-v0", adapter="@adapter", **TINY_FIELDS)),
            "evaluate --adapter": Use(_evaluated("--adapter", "@adapter")),
        },
    ),
    Subject(
        "student",
        lambda folder: [None, shutil.copytree(TINY_DIRECTORY, folder / "model")][0],
        ("model/*",),
        {"model folder": Use(_environment("ATESD-Tiny-v0", **_MODEL))},
    ),
    Subject(
        "data",
        _made_data,
        ("*",),
        {
            "training data, JSONL": Use(
                lambda folder: trained_on(folder / "problems.jsonl"), files=("problems.jsonl",)
            ),
            "training data, Parquet": Use(lambda folder: trained_on(folder / "problems.parquet"), files=("*.parquet",)),
            "data": Use(_measured, files=("problems.jsonl",)),
            "benchmark": Use(_evaluated("--benchmark", "@benchmark.jsonl"), files=("benchmark.jsonl",)),
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
