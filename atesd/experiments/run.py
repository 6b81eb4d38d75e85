"""Experiments: train agents x seeds on the same problems and rollout seeds, and write a folder for each run."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium

import atesd_env  # noqa: F401  (registers the ids)
from agents.base import Agent
from agents.checking import CheckedEnv, agent_failures
from agents.specs.registry import Spec, is_agent, is_baseline, label, resolve
from agents.specs.registry import make as make_agent
from atesd.experiments.interrupt import Interruption, deferred_interrupt
from atesd.experiments.replay import ReplayedEnv
from atesd.experiments.resuming import RunCheckpoints, is_finished, is_replayed, resumed_agent
from atesd.experiments.tracking import MakeTracker, TrackedRunWriter
from atesd_env.config import EnvConfig, RunConfig
from atesd_env.envs.recording import RecordTrajectory
from atesd_env.errors import AgentError, AtesdError, ConfigError, RunFilesError
from atesd_env.files.atomic import locked_folder
from atesd_env.files.run_folder import CONFIG_FILE, TRAJECTORY_FILE, check_same_run, read_rows

ReportRow = Callable[[dict[str, Any]], None]
"""Called with the row of a window."""


@dataclass(frozen=True)
class RunSpec:
    """One run: a student trained once under one agent.

    Attributes:
        env_id: Environment id.
        config: Its whole configuration.
        agent: Agent spec, class or object, as in ``agents.make``.
        seed: Seed of the run (problems, rollouts, adapter) and of the agent: runs with one seed are paired.
        folder: Where its files go.
    """

    env_id: str
    config: RunConfig
    agent: Spec
    seed: int
    folder: Path


def plan_runs(env_id: str, config: RunConfig, agents: Sequence[Spec], seeds: Sequence[int], out: Path) -> list[RunSpec]:
    """Returns a run for each seed and agent, seed by seed, each with a folder of its own below ``out``.

    Args:
        env_id: Environment id.
        config: Its whole configuration.
        agents: Specs, classes or objects, as in ``agents.make``; what is not a spec is named after its class.
        seeds: Seeds of the runs.
        out: Folder of the runs' folders.

    Raises:
        ConfigError: If a spec names no agent, or an object that learns is to be used for several runs.
        AtesdError: If an agent or a seed is named twice, which would write one folder twice.
    """
    for agent in agents:
        resolve(agent)  # a misspelt second agent must not be found out after the first one's run
        if is_baseline(agent):
            _check_baseline(label(agent), env_id, config)
        if is_agent(agent) and hasattr(agent, "learn") and len(seeds) > 1:
            raise ConfigError(
                f"agent {label(agent)}: expected one seed with an object that learns, got {list(seeds)}: its second run would "
                "begin with what it learned in the first; pass its class, or a function of (env, seed) that makes one."
            )
    specs = [
        RunSpec(env_id, config, agent, seed, out / f"{_folder_name(label(agent))}-seed{seed}")
        for seed in seeds
        for agent in agents
    ]
    folders = [spec.folder for spec in specs]
    if len(set(folders)) != len(folders):
        raise AtesdError(
            "agents and seeds: expected each agent and each seed once, got agents "
            f"{[label(agent) for agent in agents]} and seeds {list(seeds)}; leave out the repeated ones."
        )
    return specs


def _check_baseline(name: str, env_id: str, config: RunConfig) -> None:
    if not isinstance(config, EnvConfig):
        raise ConfigError(
            f"agent {name}: expected an environment whose student is a language model, got {env_id}, which has none to train; "
            "choose another --env, such as ATESD-Tiny-v0."
        )
    from atesd_env.population.distributed import is_launched

    if is_launched():
        # Its trainer makes passes that the other processes are not told of: they would wait for ever.
        raise ConfigError(
            f"agent {name}: expected one process for a baseline, got a launcher's several (WORLD_SIZE="
            f"{os.environ['WORLD_SIZE']}); start it without torchrun or accelerate."
        )


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
    track: Sequence[MakeTracker] = (),
) -> None:
    """Trains one student under one agent and writes the run's files.

    Args:
        spec: The run.
        overwrite: Replace an existing run in the same folder.
        resume: Go on at the last whole checkpoint of a run in the same folder; a finished run is left as it is, and one
            without a checkpoint begins anew. What comes out is what would have come out without the interruption.
        checkpoint_every: Windows between checkpoints; 0 is automatic (``RunCheckpoints``).
        report: Called with each window's ``info`` after it; of windows that were made before, with their rows.
        track: Makes what else hears of the rows, such as ``tracker("tensorboard")``.

    Raises:
        AtesdError: If anything about the run is wrong; rows written before stay readable.
    """
    checkpoints = RunCheckpoints(spec.folder, checkpoint_every)
    if resume and _is_finished(spec):
        checkpoints.clean()
        _report_written(spec, report)
        return
    env = _make_env(spec)
    source = getattr(getattr(env.unwrapped, "population", None), "student", None)
    description = {**_identity(spec), "student_source": getattr(source, "source", spec.config.student_kind)}
    with locked_folder(spec.folder):
        # Asked again: the process that held the lock may have come to the end.
        if not (resume and _is_finished(spec)):
            _execute_locked(
                spec, env, description, checkpoints, overwrite=overwrite, resume=resume, report=report, track=track
            )
    env.close()


def _make_env(spec: RunSpec) -> gymnasium.Env[Any, Any]:
    """Returns what the run is played in; a baseline trains the same student by itself."""
    env = gymnasium.make(spec.env_id, **spec.config.keywords(), disable_env_checker=True)
    if not is_baseline(spec.agent):
        return env
    from atesd.experiments.baselines.environment import BaselineEnv

    return BaselineEnv(env)


def _execute_locked(
    spec: RunSpec,
    env: gymnasium.Env[Any, Any],
    description: dict[str, Any],
    checkpoints: RunCheckpoints,
    *,
    overwrite: bool,
    resume: bool,
    report: ReportRow | None,
    track: Sequence[MakeTracker],
) -> None:
    found = checkpoints.latest() if resume else None
    has_its_state = found is not None and not is_replayed(found[1])
    # The agent is made before the run's files are touched: one that cannot be made leaves them as they are. What records
    # is put inside of the environment that it holds as soon as there are files.
    checked = CheckedEnv(env, label(spec.agent))
    with agent_failures(checked):
        agent = _bound(make_agent(spec.agent, checked, seed=spec.seed), checked, spec)
    if found is None:
        if overwrite or resume:
            checkpoints.begin()  # first: a kill must not leave an old run's checkpoints beside the new one's files
            _remove_results(spec.folder)
        writer = TrackedRunWriter(spec.folder, description, track=track, overwrite=overwrite or resume)
    else:
        env.reset(options={"state": found[1]})
        writer = TrackedRunWriter(spec.folder, description, track=track, keep_windows=found[0])
    with writer, deferred_interrupt() as interruption:
        if found is None:
            checkpoints.begin()
        elif has_its_state:
            agent = resumed_agent(agent, found[1], checked)
            checked.num_windows = found[0]
        diagnostics = _Diagnostics(agent)
        recorded = RecordTrajectory(env, writer, extra=diagnostics)
        shown = ReplayedEnv(recorded if report is None else _ReportWindows(recorded, report), label(spec.agent))
        checked.env = shown
        if found is not None:
            _report_written(spec, report)
            if not has_its_state:
                shown.replay(found[1].arrays, read_rows(spec.folder / TRAJECTORY_FILE))

        def goes_on() -> bool:
            if shown.is_replaying:
                return True
            diagnostics.raise_failure()
            if recorded.finished:
                return False
            with recorded.outside_controller():
                checkpoints.after_window(writer.num_rows, env.unwrapped, agent, shown, writer)
            if interruption.is_requested:
                raise _interrupted(spec, env.unwrapped, agent, shown, checkpoints, writer)
            return True

        with agent_failures(checked, folder=spec.folder):
            if not has_its_state:
                _play_episode(agent, checked, spec, goes_on)
                _check_finished(spec, writer.num_rows, is_finished=recorded.finished)
            elif agent.last_observation is not None:
                agent.learn(
                    spec.config.windows - writer.num_rows, callback=lambda *_: goes_on(), reset_num_timesteps=False
                )
                _check_finished(spec, writer.num_rows, is_finished=recorded.finished)
            _save_results(env.unwrapped, agent, spec.folder)
        writer.sync()
        checkpoints.finish()
    _raise_if_requested(interruption, spec)


def _bound(agent: Any, env: CheckedEnv, spec: RunSpec) -> Any:
    """Gives an agent that was made elsewhere the run's environment and seed."""
    if not is_agent(spec.agent):
        return agent
    if isinstance(agent, Agent):
        if agent.groups != env.action_space.shape[0]:  # type: ignore[index]
            raise ConfigError(
                f"agent {env.agent_name}: expected one for {env.action_space.shape[0]} group(s), as the environment has, "  # type: ignore[index]
                f"got one for {agent.groups}; make it in such an environment."
            )
        agent.env = env
        agent.reseed(spec.seed)
    elif hasattr(agent, "set_env"):
        agent.set_env(env)
    return agent


def _check_finished(spec: RunSpec, num_windows: int, *, is_finished: bool) -> None:
    """Raises AgentError if an agent's ``learn`` came back before the run was over."""
    if is_finished:
        return
    what = f"came back after {num_windows}" if num_windows else "made none in the environment that it was given"
    raise AgentError(
        f"agent {label(spec.agent)!r}: expected learn({spec.config.windows}) to make {spec.config.windows} windows, but it "
        f"{what}; step that environment until the callback returns False."
    )


def _interrupted(
    spec: RunSpec, env: Any, agent: Any, shown: ReplayedEnv, checkpoints: RunCheckpoints, writer: TrackedRunWriter
) -> KeyboardInterrupt:
    """Saves agent and run after a window that Ctrl-C came in; returns what to raise."""
    saved = []
    if hasattr(agent, "save"):
        agent.save(spec.folder / "agent")
        saved.append("its agent")
    if checkpoints.write(writer.num_rows, env, agent, shown, writer):
        saved.append("its checkpoint, to go on from")
    what = f"saved {' and '.join(saved)}" if saved else "wrote its rows"
    return KeyboardInterrupt(
        f"interrupted; the windows written so far can be read. {spec.folder}: {what}, after window "
        f"{writer.num_rows} of {spec.config.windows}. The same arguments and --resume (in Python: resume=True) go on."
    )


def _raise_if_requested(interruption: Interruption, spec: RunSpec) -> None:
    if interruption.is_requested:  # in or after the last window
        raise KeyboardInterrupt(
            f"interrupted; {spec.folder}: this run is complete. The same arguments and --resume make those that are not."
        )


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


class _Diagnostics:
    """An agent's ``diagnostics``, if it has some; where they fail, the window's row is written without them first."""

    def __init__(self, agent: Any) -> None:
        self._agent = agent
        self._failure: Exception | None = None

    def __call__(self) -> dict[str, float]:
        if not hasattr(self._agent, "diagnostics"):
            return {}
        try:
            return dict(self._agent.diagnostics())
        except Exception as error:
            self._failure = error
            return {}

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


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
        "agent": label(spec.agent),
        "seed": spec.seed,
        "config": spec.config.keywords(),
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


def _folder_name(agent: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", agent).strip("-")
