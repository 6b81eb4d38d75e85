"""Training of an agent over many runs, with evaluations on held-out seeds, the best agent kept, and a way to go on.

Files of a training's folder:

- ``training.json``: what was asked for, with versions.
- ``evaluations.jsonl``: a line for each evaluation; its columns are ``EVALUATION_COLUMNS``.
- ``best_agent`` and ``last_agent``, ``.zip`` (Stable-Baselines3) or ``.safetensors`` (ours): the agent with the highest mean
  return in an evaluation, and that of the last one. After an interruption ``last_agent`` is the agent as it was then.
- ``checkpoint.safetensors``: everything that a training depends on to go on at its last evaluation.

Going on is exact: on one machine, with one number of threads, a training that was interrupted (or killed) makes the same
evaluations and the same agent, bit for bit, as one that was not. What is lost are the windows since the last evaluation,
which are made again. Not exact are only ``time/sec``, generators of a GPU, and a language model's rounding if the machine or
its threads change. A training that is made longer has other schedules than one that was planned as long (DQN's exploration).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import atesd_env  # noqa: F401  (registers the ids)
from agents.specs.registry import label
from atesd.experiments.interrupt import deferred_interrupt
from atesd.experiments.training.evaluation import EvaluatedRun, evaluate
from atesd.experiments.training.legs import Trainer
from atesd.experiments.training.trainers import make_trainer
from atesd_env.config import RunConfig
from atesd_env.config.checks import checked_seed
from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.files.atomic import is_own_file, locked_folder, write_atomically
from atesd_env.files.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from atesd_env.files.description import check_same, read_description
from atesd_env.files.line_file import plain, read_own, whole_lines
from atesd_env.files.ownership import FolderKind
from atesd_env.files.reading import reading
from atesd_env.files.run_folder import package_versions, read_rows

TRAINING_FILE = "training.json"
"""What was asked for, in a training's folder."""
EVALUATIONS_FILE = "evaluations.jsonl"
"""A line for each evaluation."""
CHECKPOINT_FILE = "checkpoint.safetensors"
"""What a training needs to go on."""

EVALUATION_COLUMNS = {
    "windows": "Windows that the agent had made when it was evaluated, over all students.",
    "evaluation/return_mean": "Mean over the held-out seeds of a run's return: the undiscounted sum of its rewards.",
    "evaluation/return_std": "Standard deviation of the returns over the seeds (of the sample; 0 with one seed).",
    "evaluation/returns": "The returns, in the order of the seeds.",
    "evaluation/probe_nll": "Mean of the last probe NLL of each run, nats a token.",
    "evaluation/reveal_ratio": "Mean reveal ratio over seeds, windows and groups.",
    "evaluation/broken_rate": "Share of the runs whose student broke.",
    "is_best": "Whether no evaluation before had so high a mean return.",
    "time/sec": "Seconds since this process began to train, evaluations included.",
}
"""Columns of ``evaluations.jsonl``: name -> meaning."""

Report = Callable[[int, dict[str, Any] | None], None]
"""Called with the windows made so far, and the newest evaluation or None."""

TRAINING = FolderKind(
    "training",
    TRAINING_FILE,
    # The checkpoint goes first: with it, an older training could pass for a new one.
    (r"checkpoint\.safetensors", r"evaluations\.jsonl", r"(best|last)_agent\.(zip|safetensors)", r"training\.json"),
    ("env_id", "agent", "total_windows", "seed", "eval_seeds", "versions", "config"),
)
"""What a folder of a training is."""

_NUM_DEFAULT_EVALUATIONS = 10


@dataclass(frozen=True)
class TrainSpec:
    """What is to be trained, and how it is watched.

    Attributes:
        env_id: Environment id.
        config: Its whole configuration.
        agent: Agent spec, as in ``agents.make``.
        num_envs: Students side by side; None is automatic (``make_trainer``).
        total_windows: Windows to make, over all students; rounded up to whole stretches between updates.
        seed: Seed of the agent and of the runs that it learns from.
        eval_every: Windows between evaluations, rounded up likewise; None is a tenth of ``total_windows``.
        eval_seeds: Seeds of the evaluation's runs; training draws its seeds from 2^31, so it will hardly meet them.
        folder: Where the files go.

    Raises:
        ConfigError: If a number is out of range, or a seed is named twice.
    """

    env_id: str
    config: RunConfig
    agent: str
    num_envs: int | None
    total_windows: int
    seed: int
    eval_every: int | None
    eval_seeds: tuple[int, ...]
    folder: Path

    def __post_init__(self) -> None:
        for name in ("num_envs", "total_windows", "eval_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}: expected a whole number from 1, got {value}; raise it.")
        checked_seed(self.seed)
        seeds = [checked_seed(seed, "eval_seeds") for seed in self.eval_seeds]
        if not seeds or len(set(seeds)) != len(seeds):
            raise ConfigError(
                f"eval_seeds: expected at least one, each named once, got {list(self.eval_seeds)}; correct --eval-seeds."
            )

    @property
    def leg(self) -> int:
        """Windows between two evaluations, before they are rounded."""
        return self.eval_every or max(1, self.total_windows // _NUM_DEFAULT_EVALUATIONS)


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    Attributes:
        rows: Its evaluations, the first of the untrained agent.
        best_agent: File of the best agent.
        last_agent: File of the last agent.
    """

    rows: list[dict[str, Any]]
    best_agent: Path
    last_agent: Path


def train(
    spec: TrainSpec,
    *,
    resume: bool = False,
    overwrite: bool = False,
    report: Report = lambda _windows, _row: None,
) -> Trained:
    """Trains an agent and writes the folder's files.

    Args:
        spec: The training.
        resume: Go on with the training in the folder, at its last evaluation; one that has ended goes on only if
            ``total_windows`` is higher now. Without a training there, it begins.
        overwrite: Replace the training in the folder.
        report: Called after each step of all students.

    Raises:
        RunFilesError: If the folder holds a training already (and neither ``resume`` nor ``overwrite``), or a file cannot be
            read or written.
        ConfigError: If the agent cannot be trained so, or ``resume`` meets a training of something else.
        KeyboardInterrupt: If the user interrupts; its message says what was saved and how to go on.
    """
    if resume and overwrite:
        raise ConfigError("resume: expected either resume or overwrite, got both; leave one out.")
    with locked_folder(spec.folder):
        path = spec.folder / TRAINING_FILE
        TRAINING.present(spec.folder)  # no link is followed
        if not (resume and path.exists()) and TRAINING.check(spec.folder) and not overwrite:
            raise RunFilesError(
                f"{spec.folder}: expected a folder without a training, found {TRAINING_FILE}; choose another --out, pass "
                "--resume to go on with it, or --overwrite to replace it."
            )
        checkpoint = _checkpoint_to_resume(spec) if resume else None
        source = str(spec.folder / CHECKPOINT_FILE)
        trainer = make_trainer(spec.env_id, spec.config, spec.agent, spec.num_envs, spec.seed, checkpoint, source)
        if checkpoint is None:
            TRAINING.delete(spec.folder)
        write_atomically(path, json.dumps(TRAINING.marked(_identity(spec)), indent=2).encode())
        try:
            rows = [] if checkpoint is None else _rows_of(checkpoint, source)
            return _Training(spec, trainer, report, goes_on=checkpoint is not None, rows=rows).run()
        finally:
            trainer.env.close()


@dataclass
class _Training:
    """One process's part of a training; ``rows`` are the evaluations of the processes before it."""

    spec: TrainSpec
    trainer: Trainer
    report: Report
    goes_on: bool
    rows: list[dict[str, Any]]
    started_sec: float = field(default_factory=time.perf_counter)

    def run(self) -> Trained:
        if self.goes_on:
            self._write_rows()  # a kill may have left one more than the checkpoint knows of
        try:
            self.trainer.learn(
                self.spec.total_windows,
                self.spec.leg,
                self._between,
                lambda windows: self.report(windows, self.rows[-1] if self.rows else None),
                goes_on=self.goes_on,
            )
        except KeyboardInterrupt as interrupt:
            with suppress(RunFilesError):
                self.trainer.agent.save(self._path("last"))
            saved = f"evaluation after {self.rows[-1]['windows']} windows" if self.rows else "beginning"
            interrupt.args = (
                f"interrupted after {self.trainer.num_windows} windows; {self._path('last')} is the agent as it is now. The same "
                f"arguments and --resume (instead of --overwrite) go on from the {saved}.",
            )
            raise
        return Trained(self.rows, self._path("best"), self._path("last"))

    def _between(self) -> None:
        """Evaluates and saves; the checkpoint comes last, because it says that everything before it is there."""
        runs = evaluate(self.trainer.agent, self.trainer.env, self.spec.eval_seeds)
        row = evaluation_row(
            self.trainer.num_windows, runs, self.rows, elapsed_sec=time.perf_counter() - self.started_sec
        )
        # Ctrl-C waits for the files: in the middle of a zip it would be whatever Stable-Baselines3 and torch make of it.
        with deferred_interrupt() as interruption:
            self.rows.append(row)
            self._write_rows()
            self.trainer.agent.save(self._path("last"))
            if row["is_best"]:
                self.trainer.agent.save(self._path("best"))
            checkpoint = self.trainer.checkpoint()
            write_checkpoint(
                self.spec.folder / CHECKPOINT_FILE,
                Checkpoint(checkpoint.arrays, {**checkpoint.description, "rows": self.rows}),
            )
        if interruption.is_requested:
            raise KeyboardInterrupt
        self.report(self.trainer.num_windows, row)

    def _write_rows(self) -> None:
        lines = "".join(f"{_line(row)}\n" for row in self.rows)
        write_atomically(self.spec.folder / EVALUATIONS_FILE, lines.encode())

    def _path(self, which: str) -> Path:
        return self.spec.folder / f"{which}_agent{self.trainer.suffix}"


def evaluation_row(
    windows: int, runs: Sequence[EvaluatedRun], rows: Sequence[dict[str, Any]], *, elapsed_sec: float
) -> dict[str, Any]:
    """Returns the row (``EVALUATION_COLUMNS``) of an evaluation after some windows, with the rows of those before."""
    returns = np.asarray([run.total_reward for run in runs])
    mean = float(returns.mean())
    means = [row["evaluation/return_mean"] for row in rows]
    return {
        "windows": windows,
        "evaluation/return_mean": mean,
        "evaluation/return_std": float(returns.std(ddof=1)) if len(returns) > 1 else 0.0,
        "evaluation/returns": returns.tolist(),
        "evaluation/probe_nll": float(np.mean([run.probe_nll for run in runs])),
        "evaluation/reveal_ratio": float(np.mean([run.reveal_ratio for run in runs])),
        "evaluation/broken_rate": float(np.mean([run.is_broken for run in runs])),
        # A mean that is no number (a student that broke without a measurement) is beaten by any.
        "is_best": bool(not rows or all(mean > before or np.isnan(before) > np.isnan(mean) for before in means)),
        "time/sec": elapsed_sec,
    }


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows of a training's ``evaluations.jsonl``.

    Raises:
        RunFilesError: If it cannot be read.
    """
    return read_rows(folder / EVALUATIONS_FILE)


def _checkpoint_to_resume(spec: TrainSpec) -> Checkpoint | None:
    path = spec.folder / TRAINING_FILE
    if path.exists():
        asked = json.loads(json.dumps(_identity(spec)))
        for name in ("total_windows", "versions"):  # a training may be made longer
            del asked[name]
        there = read_description(path, "training", ["config"])
        if there.get("env_file"):  # where the file of a surrogate stood before it was part of the configuration
            there["config"]["file"] = there["env_file"]
        check_same(spec.folder, "training", there, asked)
    found = spec.folder / CHECKPOINT_FILE
    if not is_own_file(found):
        # A kill may come between the first evaluation and the first checkpoint, not later.
        evaluations = spec.folder / EVALUATIONS_FILE
        if is_own_file(evaluations) and len(read_rows(evaluations)) > 1:
            raise RunFilesError(
                f"{found}: expected the checkpoint that the evaluations beside it were written with, found none; restore the file, "
                "or begin anew (--overwrite)."
            )
        return None
    checkpoint = read_checkpoint(found)
    _check_evaluations(spec.folder, _rows_of(checkpoint, str(found)))
    return checkpoint


def _check_evaluations(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Refuses a file of evaluations that does not begin with those of the checkpoint; a kill may have left one more."""
    path = folder / EVALUATIONS_FILE
    lines = whole_lines(read_own(path, "the evaluations of a training"))
    for number, row in enumerate(rows, start=1):
        found = lines[number - 1] if number <= len(lines) else b"no line"
        if found != _line(row).encode():
            raise RunFilesError(
                f"{path}, line {number}: expected the evaluation after {row['windows']} windows, which the checkpoint vouches for, "
                f"got {found[:60]!r}; restore the file, or begin anew (--overwrite)."
            )


def _rows_of(checkpoint: Checkpoint, source: str) -> list[dict[str, Any]]:
    """Returns the evaluations that a checkpoint tells of."""
    with reading(source, "the evaluations of a training", remedy="begin anew (--overwrite)"):
        rows = [dict(row) for row in checkpoint.description["rows"]]
        if any(set(row) != set(EVALUATION_COLUMNS) for row in rows):
            raise ValueError("rows with other columns")
        return rows


def _identity(spec: TrainSpec) -> dict[str, Any]:
    return {
        "env_id": spec.env_id,
        "agent": label(spec.agent),
        "num_envs": spec.num_envs,
        "total_windows": spec.total_windows,
        "seed": spec.seed,
        "eval_every": spec.leg if spec.eval_every else None,
        "eval_seeds": list(spec.eval_seeds),
        "versions": {name: version for name, version in package_versions().items() if version},
        "config": spec.config.keywords(),
    }


def _line(row: dict[str, Any]) -> str:
    """Returns the row as JSON, with null for numbers that JSON lacks."""
    return json.dumps(plain(row), allow_nan=False)
