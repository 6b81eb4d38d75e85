"""Checkpoints of a run: the student's state and the agent's in one file, so that a killed run goes on where it was."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from agents.base import Agent
from atesd.experiments.replay import ReplayedEnv
from atesd.experiments.tracking import TENSORBOARD_FOLDER
from atesd_env.errors import ConfigError
from atesd_env.files.atomic import TEMPORARY, failing, make_own_folder
from atesd_env.files.checkpoint import Checkpoint, delete_numbered, latest_whole, write_numbered
from atesd_env.files.reading import reading
from atesd_env.files.run_folder import RUN, TRAJECTORY_FILE, RunWriter, read_rows

CHECKPOINT_FOLDER = "checkpoints"
"""Folder in a run's folder; it is there exactly as long as the run is not finished."""
_DISCARDED_FOLDER = f".{CHECKPOINT_FOLDER}.old"
# A version before wrote what it had not finished under a name that can be guessed.
_CHECKPOINT_FILES = (r"window-\d{6,}\.safetensors", r"\.window-\d{6,}\.safetensors\.tmp", TEMPORARY)
_DISCARDED = replace(RUN, files=tuple(f"{_DISCARDED_FOLDER}/{name}" for name in _CHECKPOINT_FILES))

BESIDE_ROWS = replace(
    RUN,
    files=(
        *(f"{CHECKPOINT_FOLDER}/{name}" for name in _CHECKPOINT_FILES),
        *_DISCARDED.files,
        r"adapter/adapter_config\.json",
        r"adapter/adapter_model\.safetensors",
        r"agent\.safetensors",
        r"agent\.zip",
        r"(wandb|trackio)\.json",
        rf"{TENSORBOARD_FOLDER}/events\.out\.tfevents\..+",
    ),
    whole=(CHECKPOINT_FOLDER, _DISCARDED_FOLDER),
)
"""What a run has in its folder beside its RunWriter's files; ``config.json`` says whose they are."""

TIME_SHARE = 1 / 20
"""Most of a run's time that checkpoints take where no number of windows is asked for."""

_logger = logging.getLogger(__name__)
_AGENT = "agent/"
_FILES = "files/"
_IS_REPLAYED = "is_replayed"


class RunCheckpoints:
    """The checkpoints of one run.

    Agents that derive from ``agents.base.Agent`` tell their state; for others, the checkpoint holds what they were shown
    (atesd/experiments/replay.py).

    Args:
        folder: Folder of the run.
        every: Windows between checkpoints; 0 writes as often as takes at most ``TIME_SHARE`` of the time.

    Raises:
        ConfigError: If ``every`` is negative.
    """

    def __init__(self, folder: Path, every: int = 0) -> None:
        if every < 0:
            raise ConfigError(
                f"checkpoint_every: expected a number of windows, or 0 for automatic, got {every}; pass 0 or more."
            )
        self._run = folder
        self.folder = folder / CHECKPOINT_FOLDER
        self._discarded = folder / _DISCARDED_FOLDER
        self.every = every
        self._last_cost_sec = 0.0
        self._last_end_sec = time.perf_counter()

    def latest(self) -> tuple[int, Checkpoint] | None:
        """Returns the newest whole checkpoint and its window; None where there is none."""
        return latest_whole(self.folder)

    def begin(self) -> None:
        """Marks the run as begun.

        Raises:
            RunFilesError: If it cannot be marked, or a link or another file is where checkpoints go.
        """
        make_own_folder(self.folder)

    def go_on(self, window: int) -> None:
        """Deletes broken checkpoints after the one that the run goes on from."""
        delete_numbered(self.folder, after=window)

    def is_due(self, window: int) -> bool:
        """Returns whether a checkpoint is to be written after this window."""
        if self.every > 0:
            return window % self.every == 0
        since = time.perf_counter() - self._last_end_sec
        return self._last_cost_sec <= TIME_SHARE * (since + self._last_cost_sec)

    def write(self, window: int, env: Any, agent: Any, shown: ReplayedEnv, writer: RunWriter) -> bool:
        """Writes a checkpoint now.

        Args:
            window: The window that was just made, and that the agent has learned from.
            env: The environment, unwrapped.
            agent: The agent.
            shown: What the agent was shown.
            writer: The run's files: what they hold must survive wherever the checkpoint does.

        Returns:
            Whether there is one now: a student that another library trains (a baseline's) has no state of ours, and an
            agent that was resumable once and is no longer can't be shown what it saw before its resumption.

        Raises:
            RunFilesError: If it cannot be written; the one before is then intact.
        """
        has_state = isinstance(agent, Agent) and agent.is_resumable
        if not hasattr(env, "checkpoint") or not (has_state or shown.is_whole):
            return False
        started = time.perf_counter()
        writer.sync()
        checkpoint = env.checkpoint()
        if has_state:
            arrays, description = agent_arrays(agent)
        else:
            arrays, description = shown.arrays(), {_IS_REPLAYED: True}
        files = {f"{_FILES}{name}": digests for name, digests in writer.vouched().items()}
        content = Checkpoint({**checkpoint.arrays, **arrays, **files}, {**checkpoint.description, "agent": description})
        write_numbered(self.folder, window, content)
        self._last_end_sec = time.perf_counter()
        self._last_cost_sec = self._last_end_sec - started
        return True

    def finish(self) -> None:
        """Marks the run as finished: everything is in its final files, and the checkpoints are deleted."""
        # Renamed first: a kill between two deletions must not leave an unfinished run without checkpoints.
        self.clean()
        with failing(self.folder, "to delete the checkpoints"):
            self.folder.rename(self._discarded)
        self.clean()

    def clean(self) -> None:
        """Deletes what a kill during ``finish`` may have left; what is not ours stays, and a warning says where."""
        for name in _DISCARDED.present(self._run):
            with suppress(OSError):
                (self._run / name).unlink()
        with suppress(OSError):
            self._discarded.rmdir()
        if self._discarded.exists():
            _logger.warning("%s: kept, because not all that is in it is ours.", self._discarded)


def is_finished(folder: Path) -> bool:
    """Returns whether a folder holds a run that came to its end, with all its files."""
    trajectory = folder / TRAJECTORY_FILE
    if (folder / CHECKPOINT_FOLDER).exists() or not trajectory.exists():
        return False
    rows = read_rows(trajectory)
    return bool(rows) and rows[-1].get("status", "running") != "running"


def vouched_files(checkpoint: Checkpoint, folder: Path) -> dict[str, NDArray[Any]]:
    """Returns what a checkpoint knows of the run's files (``RunWriter.vouched``); nothing, with a warning, if it is too old."""
    found = {name.removeprefix(_FILES): array for name, array in checkpoint.arrays.items() if name.startswith(_FILES)}
    if not found:
        _logger.warning(
            "%s: its checkpoint is of a version that did not vouch for rows and samples; only the number of rows is compared.",
            folder,
        )
    return found


def is_replayed(checkpoint: Checkpoint) -> bool:
    """Returns whether a checkpoint holds what its agent was shown, and not the agent's state."""
    agent = checkpoint.description.get("agent")
    return isinstance(agent, dict) and agent.get(_IS_REPLAYED) is True


def agent_arrays(agent: Agent) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Returns an agent's state for a checkpoint: its arrays, under names that nothing else there has, and the rest."""
    arrays, description = agent.state()
    return {f"{_AGENT}{name}": array for name, array in arrays.items()}, description


def resumed_agent(agent: Agent, checkpoint: Checkpoint, env: Any) -> Agent:
    """Returns the agent of a checkpoint, of the same class as ``agent``.

    Raises:
        ConfigError: If the checkpoint is that of another class.
        RunFilesError: If it holds no agent's state.
    """
    arrays = {name.removeprefix(_AGENT): array for name, array in checkpoint.arrays.items() if name.startswith(_AGENT)}
    with reading("checkpoint", "an agent's state", remedy="begin anew (--overwrite)"):
        return type(agent).from_state(arrays, dict(checkpoint.description["agent"]), env, source="checkpoint")
