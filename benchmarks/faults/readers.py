"""Readers: what reads the files of a subject, each as a function of the subject's folder that returns what came of it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pandas as pd

import agents
import atesd_env  # noqa: F401  (registers the ids)
from analysis import compare_agents, final_outcomes, list_runs, load_runs
from analysis.report.page import write_report
from atesd.commands.watch import run_statuses
from atesd_env.bench import InstanceSet, reference_card, references
from atesd_env.config import EnvConfig
from atesd_env.tasks.registry import make_task
from benchmarks.faults.kills import COMMANDS, contents, timeless
from benchmarks.faults.oracle import Refused, command

TINY_FIELDS = {
    "hold_window": 1,
    "num_rollouts": 2,
    "max_new_tokens": 8,
    "probe_size": 2,
    "probe_accuracy_every": 0,
    "windows": 3,
}


AGENTS = ("beta", "linucb", "ucb", "thompson", "exp3s", "feedback", "random")


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


def _digest(value: Any) -> str:
    content = value if isinstance(value, bytes) else str(value).encode()
    return hashlib.sha256(content).hexdigest()[:12]


def _frame(frame: pd.DataFrame) -> dict[str, str]:
    kept = frame.drop(columns=[name for name in frame if name.startswith("time/")])
    return {str(name): _digest(kept[name].astype(str).tolist()) for name in kept}


def loaded(folder: Path) -> dict[str, str]:
    return _frame(load_runs(folder))


def listed(folder: Path) -> list[str]:
    lines = list_runs(folder)
    problems = " ".join(
        str(problem) for problem in lines.get("problem", []) if problem is not None and not pd.isna(problem)
    )
    empty = ", ".join(lines["run"][lines["run_status"] == "empty"])
    if problems or empty:
        raise Refused(f"{problems} {empty}")
    return [str(line) for line in lines.drop(columns=[n for n in lines if "sec" in n]).to_dict("records")]


def watched(folder: Path) -> list[str]:
    command("watch", folder, "--once")
    statuses = run_statuses(folder)
    problems = [f"{status.name}: {status.problem}" for status in statuses if status.problem]
    if problems:
        raise Refused(" ".join(problems))
    # Whether an unfinished run is silent is a matter of time.
    timeless = [dataclasses.replace(status, age_sec=None, window_sec=None) for status in statuses]
    return [str(status).replace("'silent'", "'running'") for status in timeless]


def reported(folder: Path) -> str:
    page = write_report(folder, folder / "new.html").read_text()
    page = re.sub(r"data:image/[^\"]*", "", page)
    return _digest(re.sub(r"\d+(\.\d+)? (s|min|h)\b|<td>[^<]*sec[^<]*</td>|\d{4}-\d\d-\d\d[^<]*", "", page))


def exported(to: str) -> Callable[[Path], Any]:
    def act(folder: Path) -> Any:
        out = folder / ("data" if to == "minari" else f"runs.{to}")
        command("export", folder, "--to", to, "--out", out)
        if to == "minari":
            with h5py.File(next(out.rglob("main_data.hdf5"))) as file:
                found: dict[str, str] = {}
                file.visititems(
                    lambda name, part: found.update(
                        {name: _digest(part[()].tobytes())} if hasattr(part, "dtype") else {}
                    )
                )
                return found
        return _frame(pd.read_csv(out) if to == "csv" else pd.read_parquet(out))

    return act


def compared(folder: Path) -> Any:
    outcomes = final_outcomes(load_runs(folder), ["probe/nll"])
    return _frame(compare_agents(outcomes, ["probe/nll"]))


def fitted(folder: Path) -> str:
    command("fit-surrogate", folder / "runs", "--out", folder / "fitted.safetensors", "--families", "linear")
    return _digest((folder / "fitted.safetensors").read_bytes())


def resumed(name: str) -> Callable[[Path], Any]:
    def act(folder: Path) -> Any:
        command(*COMMANDS[name], "--out", folder, "--resume")
        return contents(folder)

    return act


def stepped(env_id: str, fields: dict[str, Any], action: Any = None, **reset: Any) -> str:
    """Makes an environment, resets it, steps once; returns "sound", or what came that is no observation or no reward."""
    with contextlib.closing(gymnasium.make(env_id, disable_env_checker=True, **fields)) as env:
        env.reset(**{"seed": 0, **reset})
        observation, reward, *_ = env.step([0.5] if action is None else action)
        is_sound = env.observation_space.contains(observation) and math.isfinite(reward)
        return "sound" if is_sound else f"observation {observation}, reward {reward}"


def environment(env_id: str, **fields: Any) -> Callable[[Path], Any]:
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


def decided(*specs: str) -> Callable[[Path], Any]:
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


def evaluated(*more: str) -> Callable[[Path], Any]:
    def act(folder: Path) -> Any:
        given = [str(folder / one[1:]) if one.startswith("@") else one for one in more]
        command(*COMMANDS["evaluate, Tiny"], *given, "--out", folder / "evaluated")
        return contents(folder / "evaluated")

    return act


def scored(folder: Path) -> Any:
    command("bench", "score", folder / "runs", "--out", folder / "score")
    told = json.loads((folder / "score" / "score.json").read_bytes())
    return {name: _digest(timeless(part)) for name, part in told.items()}


def validated(folder: Path) -> str:
    return command("bench", "validate", folder / "runs", "--processes", "1", "--quiet").replace(str(folder), "")


def referenced(folder: Path) -> Any:
    instances = InstanceSet.load(folder / "set.json")
    return [reference_card(instances), _frame(references(instances))]


def trained_on(path: Path) -> str:
    """Returns a digest of the problems that a task makes of a file."""
    task = make_task(EnvConfig(task="math", data_path=str(path), probe_size=4))
    return _digest(
        [task.training_problem(0, index) for index in range(task.num_training_problems)] + task.probe_problems(4)
    )


def measured(folder: Path) -> Any:
    command("data", folder / "problems.jsonl", "--out", folder / "out.jsonl")
    return _digest((folder / "out.jsonl").read_bytes())
