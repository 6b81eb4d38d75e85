"""A run: one student trained once under one agent, from its first window, or its last checkpoint, to its files."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import gymnasium

from agents.base import Agent
from agents.checking import CheckedEnv, agent_failures
from agents.specs.registry import is_agent
from atesd.experiments.baselines.registry import is_baseline
from atesd.experiments.baselines.registry import make as make_agent
from atesd.experiments.interrupt import Interruption, deferred_interrupt
from atesd.experiments.played import Diagnostics, PlayedEnv, ReportRow
from atesd.experiments.resuming import (
    BESIDE_ROWS,
    RunCheckpoints,
    is_finished,
    is_replayed,
    resumed_agent,
    vouched_files,
)
from atesd.experiments.specs import RunSpec
from atesd.experiments.tracking import MakeTracker, TrackedRunWriter
from atesd_env.envs.columns import check_rows
from atesd_env.errors import AgentError, ConfigError
from atesd_env.files.atomic import locked_folder
from atesd_env.files.checkpoint import Checkpoint
from atesd_env.files.reading import reading
from atesd_env.files.run_folder import CONFIG_FILE, RUN, TRAJECTORY_FILE, check_same_run, read_rows


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
    run = Run(spec, checkpoint_every=checkpoint_every, report=report, track=track)
    if resume and run.is_finished():
        run.checkpoints.clean()
        run.report_written()
        return
    with run:
        # Asked again: the process that held the lock may have come to the end.
        if resume and run.is_finished():
            return
        found = run.checkpoints.latest() if resume else None
        if found is None:
            run.begin(replace=overwrite or resume)
        else:
            run.resume(*found)
        run.play()
        run.finish()


class Run:
    """One run of this process: entered (student loaded, folder locked), begun or resumed, played, finished.

    Arguments are those of ``execute``.

    Attributes:
        spec: The run.
        checkpoints: Its checkpoints.
        agent: Who decides.
        writer: Its files.

    Raises:
        ConfigError: If ``checkpoint_every`` is negative.
    """

    agent: Any
    writer: TrackedRunWriter
    _interruption: Interruption | None = None
    _goes_on_in_its_state = False

    def __init__(
        self,
        spec: RunSpec,
        *,
        checkpoint_every: int = 0,
        report: ReportRow | None = None,
        track: Sequence[MakeTracker] = (),
    ) -> None:
        self.spec = spec
        self.checkpoints = RunCheckpoints(spec.folder, checkpoint_every)
        self._report = report
        self._track = track

    def is_finished(self) -> bool:
        """Returns whether the folder holds this run, with all its files.

        Raises:
            ConfigError: If it holds another run.
        """
        if not (self.spec.folder / CONFIG_FILE).exists():
            return False
        check_same_run(self.spec.folder, self.spec.identity())
        return is_finished(self.spec.folder)

    def report_written(self) -> None:
        """Reports the rows that are in the folder already."""
        if self._report is not None:
            path = self.spec.folder / TRAJECTORY_FILE
            rows = read_rows(path)
            with reading(path, "the rows of a run"):
                check_rows(rows)
            for row in rows:
                self._report(row)

    def __enter__(self) -> Self:
        with ExitStack() as resources:
            self._env = resources.enter_context(closing(_make_env(self.spec)))
            self._played = PlayedEnv(self._env, self.spec.agent_name, self._report)
            self._checked = CheckedEnv(self._played, self.spec.agent_name)
            resources.enter_context(locked_folder(self.spec.folder))
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._resources.close()
        if error is None and self._interruption is not None and self._interruption.is_requested:
            raise KeyboardInterrupt(  # it came in or after the last window
                f"interrupted; {self.spec.folder}: this run is complete. The same arguments and --resume make those that are not."
            )

    def begin(self, *, replace: bool) -> None:
        """Makes the agent, then the files of a new run.

        Args:
            replace: Delete what an earlier run left in the folder.

        Raises:
            ConfigError: If the agent cannot be made; an earlier run stays as it is.
            RunFilesError: If the folder holds a run that is not to be replaced, or files that no run of ours wrote, or cannot
                be written.
        """
        self.agent = self._made_agent()
        for kind in (RUN, BESIDE_ROWS):
            kind.check(self.spec.folder)
        if replace:
            self.checkpoints.begin()  # first: a kill must not leave an old run's checkpoints beside the new one's files
            # If the new run dies, the old one's adapter must not pass for its own.
            BESIDE_ROWS.delete(self.spec.folder)
        self._open_files(overwrite=replace)
        self.checkpoints.begin()

    def resume(self, window: int, checkpoint: Checkpoint) -> None:
        """Goes on behind a window, with the student and the agent as they were, or the agent shown again what it saw.

        Args:
            window: The window.
            checkpoint: What was saved after it.

        Raises:
            ConfigError: If the agent is another one than the checkpoint's.
            RunFilesError: If the files lack rows or samples of earlier windows, or have others; nothing is changed then.
        """
        for kind in (RUN, BESIDE_ROWS):
            kind.present(self.spec.folder)  # no link is followed
        self.agent = self._made_agent()
        self._goes_on_in_its_state = not is_replayed(checkpoint)
        with reading(self.checkpoints.folder, "this run's checkpoints", remedy="begin anew (--overwrite)"):
            self._env.reset(options={"state": checkpoint})
            if self._goes_on_in_its_state:
                self.agent = resumed_agent(self.agent, checkpoint, self._checked)
                self._checked.num_windows = window
        self._open_files(keep_windows=window, vouched=vouched_files(checkpoint, self.spec.folder))
        self.checkpoints.go_on(window)
        self.report_written()
        if not self._goes_on_in_its_state:
            rows = read_rows(self.spec.folder / TRAJECTORY_FILE)
            self._played.shown.replay(checkpoint.arrays, rows, self.checkpoints.folder)

    def play(self) -> None:
        """Lets the agent make the windows that are missing.

        Raises:
            AgentError: If the agent's code fails, or comes back too early.
            KeyboardInterrupt: After the window that Ctrl-C came in; its message says what was saved.
        """
        with agent_failures(self._checked, folder=self.spec.folder):
            if not self._goes_on_in_its_state:
                self._play_episode()
                self._check_finished()
            elif self.agent.last_observation is not None:
                missing = self.spec.config.windows - self.writer.num_rows
                self.agent.learn(missing, callback=lambda *_: self._after_window(), reset_num_timesteps=False)
                self._check_finished()

    def finish(self) -> None:
        """Writes the student's adapter and what the agent has learned; the run is then complete."""
        with agent_failures(self._checked, folder=self.spec.folder):
            _save_results(self._env.unwrapped, self.agent, self.spec.folder)
        self.writer.sync()
        self.checkpoints.finish()

    def _made_agent(self) -> Any:
        with agent_failures(self._checked):
            return _bound(make_agent(self.spec.agent, self._checked, seed=self.spec.seed), self._checked, self.spec)

    def _open_files(self, **how: Any) -> None:
        """Opens the files as ``RunWriter`` is told to."""
        student = getattr(getattr(self._env.unwrapped, "population", None), "student", None)
        source = getattr(student, "source", self.spec.config.student_kind)
        description = {**self.spec.identity(), "student_source": source}
        writer = TrackedRunWriter(self.spec.folder, description, track=self._track, **how)
        self.writer = self._resources.enter_context(writer)
        self._interruption = self._resources.enter_context(deferred_interrupt())
        self._diagnostics = Diagnostics(self.agent)
        self._played.record(writer, self._diagnostics)

    def _play_episode(self) -> None:
        """One episode: an agent that can learn does so; any other, and one whose ``learn`` makes no window, only predicts."""
        if hasattr(self.agent, "learn"):
            # The callback is Stable-Baselines3's: False stops. A student that broke would otherwise be followed by a new one.
            self.agent.learn(total_timesteps=self.spec.config.windows, callback=lambda *_: self._after_window())
            if self._checked.num_windows:
                return
        observation, _ = self._checked.reset(seed=self.spec.seed)
        state, goes_on = None, True
        while goes_on:
            action, state = self.agent.predict(observation, state=state, deterministic=False)
            observation, *_ = self._checked.step(action)
            goes_on = self._after_window()

    def _after_window(self) -> bool:
        """Saves a checkpoint where one is due; returns whether another window follows.

        Raises:
            KeyboardInterrupt: If Ctrl-C came in the window.
        """
        if self._played.is_replaying:
            return True
        self._diagnostics.raise_failure()
        if self._played.is_finished:
            return False
        state = (self.writer.num_rows, self._env.unwrapped, self.agent, self._played.shown, self.writer)
        if self.checkpoints.is_due(self.writer.num_rows):
            with self._played.outside_controller():
                self.checkpoints.write(*state)
        if self._interruption is not None and self._interruption.is_requested:
            raise self._interrupted(is_resumable=self.checkpoints.write(*state))
        return True

    def _interrupted(self, *, is_resumable: bool) -> KeyboardInterrupt:
        """Saves the agent after a window that Ctrl-C came in; returns what to raise."""
        saved = []
        if hasattr(self.agent, "save"):
            self.agent.save(self.spec.folder / "agent")
            saved.append("its agent")
        if is_resumable:
            saved.append("its checkpoint, to go on from")
        what = f"saved {' and '.join(saved)}" if saved else "wrote its rows"
        return KeyboardInterrupt(
            f"interrupted; the windows written so far can be read. {self.spec.folder}: {what}, after window "
            f"{self.writer.num_rows} of {self.spec.config.windows}. The same arguments and --resume (in Python: resume=True) go on."
        )

    def _check_finished(self) -> None:
        """Raises AgentError if an agent's ``learn`` came back before the run was over."""
        if self._played.is_finished:
            return
        num_windows, windows = self.writer.num_rows, self.spec.config.windows
        raise AgentError(
            f"agent {self.spec.agent_name!r}: expected learn({windows}) to make {windows} windows, but it came back after "
            f"{num_windows}; step the environment until the callback returns False."
        )


def _make_env(spec: RunSpec) -> gymnasium.Env[Any, Any]:
    """Returns what the run is played in; a baseline trains the same student by itself."""
    env = gymnasium.make(spec.env_id, **spec.config.keywords(), disable_env_checker=True)
    if not is_baseline(spec.agent):
        return env
    from atesd.experiments.baselines.environment import BaselineEnv  # torch, which a closed form does without

    return BaselineEnv(env)


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


def _save_results(env: Any, agent: Any, folder: Path) -> None:
    if hasattr(env, "save_adapter"):
        env.save_adapter(folder / "adapter")
    if hasattr(agent, "save"):
        agent.save(folder / "agent")
