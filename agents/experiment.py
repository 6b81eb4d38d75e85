"""Experiments: train agents x seeds on the same problems and rollout seeds, and write a folder for each run."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium

import atesd_env  # noqa: F401  (registers the ids)
from agents.registry import make as make_agent
from agents.registry import resolve
from atesd_env.config import EnvConfig
from atesd_env.errors import AtesdError, RunFilesError
from atesd_env.recording import RecordTrajectory
from atesd_env.trajectory import RunWriter

ReportRow = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class RunSpec:
    """One run: a student trained once under one agent.

    Attributes:
        env_id: Environment id.
        config: Its whole configuration.
        agent: Agent spec, as in ``agents.make``.
        seed: Seed of the run (problems, rollouts, adapter) and of the agent: runs with one seed are paired.
        folder: Where its files go.
    """

    env_id: str
    config: EnvConfig
    agent: str
    seed: int
    folder: Path


def plan_runs(env_id: str, config: EnvConfig, agents: Sequence[str], seeds: Sequence[int], out: Path) -> list[RunSpec]:
    """Returns a run for each seed and agent, seed by seed, each with a folder of its own below ``out``.

    Raises:
        ConfigError: If a spec names no agent.
        AtesdError: If an agent or a seed is named twice, which would write one folder twice.
    """
    for agent in agents:
        resolve(agent)  # a misspelt second agent must not be found out after the first one's run
    specs = [
        RunSpec(env_id, config, agent, seed, out / f"{_folder_name(agent)}-seed{seed}")
        for seed in seeds
        for agent in agents
    ]
    folders = [spec.folder for spec in specs]
    if len(set(folders)) != len(folders):
        raise AtesdError(
            f"agents and seeds: expected each agent and each seed once, got agents {list(agents)} and seeds {list(seeds)}; "
            f"leave out the repeated ones."
        )
    return specs


def refuse_existing(specs: Sequence[RunSpec]) -> None:
    """Raises RunFilesError if any of the runs' folders already holds a run, before the first one starts."""
    existing = [spec.folder for spec in specs if (spec.folder / "config.json").exists()]
    if existing:
        raise RunFilesError(
            f"{existing[0]}: expected a folder without a run, found {len(existing)} of the {len(specs)} runs there already; "
            f"choose another --out, or pass --overwrite to replace them."
        )


def execute(spec: RunSpec, *, overwrite: bool = False, report: ReportRow | None = None) -> None:
    """Trains one student under one agent and writes the run's files.

    Args:
        spec: The run.
        overwrite: Replace an existing run in the same folder.
        report: Called with each window's ``info`` after it.

    Raises:
        AtesdError: If anything about the run is wrong; rows written before stay readable.
    """
    env = gymnasium.make(spec.env_id, **_fields(spec.config), disable_env_checker=True)
    source = getattr(getattr(env.unwrapped, "population", None), "student", None)
    description = {
        "run": spec.folder.name,
        "env_id": spec.env_id,
        "agent": spec.agent,
        "seed": spec.seed,
        "config": dataclasses.asdict(spec.config),
        "student_source": getattr(source, "source", "closed form"),
    }
    diagnostics: dict[str, Callable[[], dict[str, float]]] = {}
    writer = RunWriter(spec.folder, description, overwrite=overwrite)
    with writer:
        recorded = RecordTrajectory(env, writer, extra=lambda: diagnostics["of"]() if diagnostics else {})
        watched = recorded if report is None else _ReportWindows(recorded, report)
        agent = make_agent(spec.agent, watched, seed=spec.seed)
        if hasattr(agent, "diagnostics"):
            diagnostics["of"] = agent.diagnostics
        _play_episode(agent, watched, spec, is_over=lambda: recorded.finished)
        _save_results(env.unwrapped, agent, spec.folder)
    env.close()


def _play_episode(agent: Any, env: gymnasium.Env[Any, Any], spec: RunSpec, is_over: Callable[[], bool]) -> None:
    """One episode: an agent that can learn does so; any other only predicts."""
    if hasattr(agent, "learn"):
        # The callback is Stable-Baselines3's: False stops. A student that broke would otherwise be followed by a new one.
        agent.learn(total_timesteps=spec.config.windows, callback=lambda *_: not is_over())
        return
    observation, _ = env.reset(seed=spec.seed)
    state = None
    while not is_over():
        action, state = agent.predict(observation, state=state, deterministic=False)
        observation, *_ = env.step(action)


def _save_results(env: Any, agent: Any, folder: Path) -> None:
    if hasattr(env, "save_adapter"):
        env.save_adapter(folder / "adapter")
    if hasattr(agent, "save"):
        agent.save(folder / "agent")


class _ReportWindows(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Tells a callback of every window."""

    def __init__(self, env: gymnasium.Env[Any, Any], report: ReportRow) -> None:
        super().__init__(env)
        self._report = report

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        self._report(info)
        return observation, reward, terminated, truncated, info


def _fields(config: EnvConfig) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def _folder_name(agent: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", agent).strip("-")
