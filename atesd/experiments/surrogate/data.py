"""Logged runs as arrays of windows: what a surrogate is fitted to."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.load import run_folders
from analysis.run_files import read_run
from atesd.experiments.logged_runs import base_nll, common_environment, ratio_columns, rebuilt_statistics
from atesd_env.config import RunConfig
from atesd_env.envs.observation import FEATURE_NAMES
from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.files.reading import reading
from atesd_env.files.run_folder import TRAJECTORY_FILE, read_rows
from atesd_env.simulated.surrogate_model import QUANTITIES, Array, model_inputs

FEWEST_RUNS = 10
"""A fit to fewer runs is refused."""
REWARD_PARTS = ("reward/progress", "reward/total")
"""Columns of the reward, read beside ``QUANTITIES``."""

_ARRAYS = ("run", "group", "window", "statistics", "nll", "ratios")  # of LoggedWindows

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoggedWindows:
    """Windows of one or more runs as arrays, in the order of runs and windows.

    Attributes:
        run: Which run each window belongs to [N].
        group: What is held out together with it [N]: the run, or all runs of its seed, where these may share windows.
        window: Its number in the run, from 1 [N].
        statistics: Raw statistics before it [N, num_features], in the order of ``FEATURE_NAMES``.
        nll: Probe NLL before it [N].
        ratios: Reveal ratios [N, groups].
        quantities: What was measured in it, and the reward's parts, [N] each.
    """

    run: NDArray[np.int64]
    group: NDArray[np.int64]
    window: NDArray[np.int64]
    statistics: Array
    nll: Array
    ratios: Array
    quantities: dict[str, Array]

    def select(self, chosen: NDArray[Any]) -> LoggedWindows:
        """Returns some of the windows."""
        return LoggedWindows(
            **{name: getattr(self, name)[chosen] for name in _ARRAYS},
            quantities={name: values[chosen] for name, values in self.quantities.items()},
        )

    def phase(self, phase: str) -> LoggedWindows:
        """Returns the windows of a phase (``PHASES``)."""
        return self.select((self.window == 1) == (phase == "first"))

    def inputs(self, phase: str) -> Array:
        """Returns what a phase's model sees of these windows [N, D]."""
        return model_inputs(phase, self.statistics, self.nll, self.ratios)


def find_runs(paths: Sequence[str | Path]) -> list[Path]:
    """Returns the run folders at or below some paths, sorted, each once.

    Raises:
        ConfigError: If a path holds none.
    """
    folders: set[Path] = set()
    for path in paths:
        found = run_folders(Path(path))
        if not found:
            raise ConfigError(f"{path}: expected a folder of runs, found none; pass what was given to --out.")
        folders.update(found)
    return sorted(folders)


def read_windows(folders: Sequence[Path]) -> tuple[LoggedWindows, RunConfig, str]:
    """Returns the windows of runs of one environment, its configuration and its id.

    A run is read up to its first window with a quantity that is not a number, as a broken student's last one. A run that
    does not tell the base model's probe NLL, and did not make progress in its first window either, is left out and logged
    as a warning.

    Raises:
        ConfigError: If the runs have different configurations or environments, or none can be used.
        RunFilesError: If a file cannot be read, or its rows are not those of windows 1, 2, 3, ...
    """
    for folder in folders:
        if (problem := read_run(folder, folder.name).problem) is not None:
            raise RunFilesError(str(problem)) from problem
    env_id, config = common_environment(folders)
    runs: list[LoggedWindows] = []
    for folder in folders:
        path = folder / TRAJECTORY_FILE
        with reading(path, "rows of a run's windows", remedy="leave this folder out, or mend the file"):
            run = _run_windows(read_rows(path) if path.exists() else [], config, len(runs))
        if run is None:
            _logger.warning("%s: no window can be used; the run is left out.", folder)
        else:
            runs.append(run)
    if len(runs) < FEWEST_RUNS:
        raise ConfigError(
            f"runs: expected at least {FEWEST_RUNS} with windows to fit to, got {len(runs)}; make more, with different "
            "agents (random is the most telling) and seeds."
        )

    return _joined(runs), config, env_id


def windows_of(frame: pd.DataFrame, config: RunConfig) -> LoggedWindows:
    """Returns the windows of runs of one environment whose seeds are held out whole: agents that decide alike share windows.

    Runs that are the same throughout count once.

    Args:
        frame: Their rows, as ``load_runs`` returns them.
        config: Their configuration.
    """
    runs: dict[tuple[float, ...], LoggedWindows] = {}
    for _, rows in frame.sort_values("window").groupby("run", observed=True):
        told = rows.astype(object).where(rows.notna(), None).to_dict("records")
        run = _run_windows([{str(name): value for name, value in row.items()} for row in told], config, len(runs))
        if run is not None:
            seed, path = int(rows["seed"].iloc[0]), (*rows["probe/nll"], *rows["probe/grounded"])
            runs.setdefault((seed, *path), dataclasses.replace(run, group=np.full(len(run.run), seed)))
    return _joined(list(runs.values()))


def _joined(runs: Sequence[LoggedWindows]) -> LoggedWindows:
    """Returns the windows of several runs."""

    def joined(arrays: Iterable[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate(list(arrays))

    return LoggedWindows(
        **{name: joined(getattr(run, name) for run in runs) for name in _ARRAYS},
        quantities={name: joined(run.quantities[name] for run in runs) for name in runs[0].quantities},
    )


def _run_windows(rows: Sequence[Mapping[str, Any]], config: RunConfig, index: int) -> LoggedWindows | None:
    """Returns the windows of one run up to the first that cannot be used; None where there is none."""
    columns = [*QUANTITIES, *REWARD_PARTS]

    def is_usable(row: Mapping[str, Any]) -> bool:
        return row.get("status") != "terminated" and all(row.get(name) is not None for name in columns)

    used = list(takewhile(is_usable, rows))
    nll = base_nll(used[0], config) if used else None
    if nll is None:
        return None
    before = rebuilt_statistics(used[:-1], config, nll)
    of_run = np.full(len(used), index)
    return LoggedWindows(
        of_run,
        of_run,
        np.asarray([row["window"] for row in used]),
        np.asarray([[getattr(statistics, name) for name in FEATURE_NAMES] for statistics in before], dtype=np.float64),
        np.asarray([nll, *(row["probe/nll"] for row in used[:-1])], dtype=np.float64),
        np.asarray([[row[name] for name in ratio_columns(config)] for row in used], dtype=np.float64),
        {name: np.asarray([row[name] for row in used], dtype=np.float64) for name in columns},
    )
