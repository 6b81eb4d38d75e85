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
from agents.resuming import RunCheckpoints, is_finished, resumed_agent
from atesd_env.config import EnvConfig
from atesd_env.errors import AtesdError, RunFilesError
from atesd_env.files import locked_folder
from atesd_env.recording import RecordTrajectory
from atesd_env.trajectory import CONFIG_FILE, TRAJECTORY_FILE, RunWriter, check_same_run, read_rows

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
    existing = [spec.folder for spec in specs if (spec.folder / CONFIG_FILE).exists()]
    if existing:
        raise RunFilesError(
            f"{existing[0]}: expected a folder without a run, found {len(existing)} of the {len(specs)} runs there already; "
            f"choose another --out, pass --resume to go on with them, or --overwrite to replace them."
        )


def refuse_changed(specs: Sequence[RunSpec]) -> None:
    """Raises ConfigError if any of the runs was begun with other arguments, before the first one goes on."""
    for spec in specs:
        if (spec.folder / CONFIG_FILE).exists():
            check_same_run(spec.folder, _identity(spec))


def execute(
    spec: RunSpec,
    *,
    overwrite: bool = False,
    resume: bool = False,
    checkpoint_every: int = 0,
    report: ReportRow | None = None,
) -> None:
    """Trains one student under one agent and writes the run's files.

    Args:
        spec: The run.
        overwrite: Replace an existing run in the same folder.
        resume: Go on at the last whole checkpoint of a run in the same folder; a finished run is left as it is, and one
            without a checkpoint begins anew. What comes out is what would have come out without the interruption.
        checkpoint_every: Windows between checkpoints; 0 is automatic (``RunCheckpoints``).
        report: Called with each window's ``info`` after it; of windows that were made before, with their rows.

    Raises:
        AtesdError: If anything about the run is wrong; rows written before stay readable.
    """
    checkpoints = RunCheckpoints(spec.folder, checkpoint_every)
    if resume and _is_finished(spec):
        checkpoints.clean()
        _report_written(spec, report)
        return
    env = gymnasium.make(spec.env_id, **_fields(spec.config), disable_env_checker=True)
    source = getattr(getattr(env.unwrapped, "population", None), "student", None)
    description = {**_identity(spec), "student_source": getattr(source, "source", "closed form")}
    with locked_folder(spec.folder):
        # Asked again: the process that held the lock may have come to the end.
        if not (resume and _is_finished(spec)):
            _execute_locked(spec, env, description, checkpoints, overwrite=overwrite, resume=resume, report=report)
    env.close()


def _execute_locked(
    spec: RunSpec,
    env: gymnasium.Env[Any, Any],
    description: dict[str, Any],
    checkpoints: RunCheckpoints,
    *,
    overwrite: bool,
    resume: bool,
    report: ReportRow | None,
) -> None:
    found = checkpoints.latest() if resume else None
    if found is None:
        if overwrite or resume:
            checkpoints.begin()  # first: a kill must not leave an old run's checkpoints beside the new one's files
            _remove_results(spec.folder)
        writer = RunWriter(spec.folder, description, overwrite=overwrite or resume)
    else:
        env.reset(options={"state": found[1]})
        writer = RunWriter(spec.folder, description, keep_windows=found[0])
    with writer:
        if found is None:
            checkpoints.begin()
        diagnostics: dict[str, Callable[[], dict[str, float]]] = {}
        recorded = RecordTrajectory(env, writer, extra=lambda: diagnostics["of"]() if diagnostics else {})
        watched = recorded if report is None else _ReportWindows(recorded, report)
        agent = make_agent(spec.agent, watched, seed=spec.seed)
        if found is not None:
            agent = resumed_agent(agent, found[1], watched)
            _report_written(spec, report)
        if hasattr(agent, "diagnostics"):
            diagnostics["of"] = agent.diagnostics

        def goes_on() -> bool:
            with recorded.outside_controller():
                checkpoints.after_window(writer.num_rows, env.unwrapped, agent, writer)
            return not recorded.finished

        if found is None:
            _play_episode(agent, watched, spec, goes_on)
        elif agent.last_observation is not None:
            agent.learn(spec.config.windows - found[0], callback=lambda *_: goes_on(), reset_num_timesteps=False)
        _save_results(env.unwrapped, agent, spec.folder)
        writer.sync()
    checkpoints.finish()


def _play_episode(agent: Any, env: gymnasium.Env[Any, Any], spec: RunSpec, goes_on: Callable[[], bool]) -> None:
    """One episode: an agent that can learn does so; any other only predicts."""
    if hasattr(agent, "learn"):
        # The callback is Stable-Baselines3's: False stops. A student that broke would otherwise be followed by a new one.
        agent.learn(total_timesteps=spec.config.windows, callback=lambda *_: goes_on())
        return
    observation, _ = env.reset(seed=spec.seed)
    state = None
    is_over = False
    while not is_over:
        action, state = agent.predict(observation, state=state, deterministic=False)
        observation, *_ = env.step(action)
        is_over = not goes_on()


def _save_results(env: Any, agent: Any, folder: Path) -> None:
    if hasattr(env, "save_adapter"):
        env.save_adapter(folder / "adapter")
    if hasattr(agent, "save"):
        agent.save(folder / "agent")


def _remove_results(folder: Path) -> None:
    """Deletes what ``_save_results`` wrote: if the new run dies, the old one's adapter must not pass for its own."""
    for name in ("adapter/adapter_config.json", "adapter/adapter_model.safetensors", "agent.safetensors", "agent.zip"):
        (folder / name).unlink(missing_ok=True)


class _ReportWindows(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Tells a callback of every window."""

    def __init__(self, env: RecordTrajectory, report: ReportRow) -> None:
        super().__init__(env)
        self._outside_controller = env.outside_controller
        self._report = report

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        with self._outside_controller():
            self._report(info)
        return observation, reward, terminated, truncated, info


def _identity(spec: RunSpec) -> dict[str, Any]:
    """Returns what makes a run this run, for ``config.json``."""
    return {
        "run": spec.folder.name,
        "env_id": spec.env_id,
        "agent": spec.agent,
        "seed": spec.seed,
        "config": dataclasses.asdict(spec.config),
    }


def _report_written(spec: RunSpec, report: ReportRow | None) -> None:
    if report is not None:
        for row in read_rows(spec.folder / TRAJECTORY_FILE):
            report(row)


def _is_finished(spec: RunSpec) -> bool:
    if not (spec.folder / CONFIG_FILE).exists():
        return False
    check_same_run(spec.folder, _identity(spec))
    return is_finished(spec.folder)


def _fields(config: EnvConfig) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def _folder_name(agent: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", agent).strip("-")
