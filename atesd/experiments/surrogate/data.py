"""Logged runs as arrays of windows: what a surrogate is fitted to."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atesd_env.config import RunConfig, differing_fields, read_config
from atesd_env.envs.observation import FEATURE_NAMES, advance, initial_statistics
from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.files.run_folder import CONFIG_FILE, TRAJECTORY_FILE, read_rows
from atesd_env.simulated.surrogate_model import QUANTITIES, Array, model_inputs

FEWEST_RUNS = 10
"""A fit to fewer runs is refused."""
REWARD_PARTS = ("reward/progress", "reward/total")
"""Columns of the reward, read beside ``QUANTITIES``."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoggedWindows:
    """Windows of one or more runs as arrays, in the order of runs and windows.

    Attributes:
        run: Which run each window belongs to [N].
        window: Its number in the run, from 1 [N].
        statistics: Raw statistics before it [N, num_features], in the order of ``FEATURE_NAMES``.
        nll: Probe NLL before it [N].
        ratios: Reveal ratios [N, groups].
        quantities: What was measured in it, and the reward's parts, [N] each.
    """

    run: NDArray[np.int64]
    window: NDArray[np.int64]
    statistics: Array
    nll: Array
    ratios: Array
    quantities: dict[str, Array]

    def select(self, chosen: NDArray[Any]) -> LoggedWindows:
        """Returns some of the windows."""
        return LoggedWindows(
            self.run[chosen],
            self.window[chosen],
            self.statistics[chosen],
            self.nll[chosen],
            self.ratios[chosen],
            {name: values[chosen] for name, values in self.quantities.items()},
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
        found = {file.parent for file in Path(path).rglob(TRAJECTORY_FILE) if (file.parent / CONFIG_FILE).exists()}
        if not found:
            raise ConfigError(f"{path}: expected a folder of runs, found none; pass what was given to --out.")
        folders |= found
    return sorted(folders)


def read_windows(folders: Sequence[Path]) -> tuple[LoggedWindows, RunConfig, str]:
    """Returns the windows of runs of one environment, its configuration and its id.

    The statistics before each window are rebuilt as the environment made them (``statistics.advance``). A run is read up to
    its first window with a quantity that is not a number, as a broken student's last one. A run that does not tell the base
    model's probe NLL, and did not make progress in its first window either, is left out and logged as a warning.

    Raises:
        ConfigError: If the runs have different configurations or environments, or none can be used.
        RunFilesError: If a file cannot be read.
    """
    first: tuple[Path, str, RunConfig] | None = None
    runs: list[LoggedWindows] = []
    for folder in folders:
        description = _description(folder)
        env_id, config = description["env_id"], read_config(description["config"])
        first = first or (folder, env_id, config)
        different = [] if env_id == first[1] else [f"env_id ({first[1]!r} there, {env_id!r} here)"]
        different += differing_fields(first[2].keywords(), config.keywords(), "here")
        if different:
            raise ConfigError(
                f"runs: expected one environment and configuration, got others in {first[0]} and {folder} "
                f"(different: {', '.join(different)}); pass runs of one configuration."
            )
        rows = read_rows(folder / TRAJECTORY_FILE)
        run = _run_windows(rows, config, len(runs))
        if run is None:
            _logger.warning("%s: no window can be used; the run is left out.", folder)
        else:
            runs.append(run)
    if len(runs) < FEWEST_RUNS:
        raise ConfigError(
            f"runs: expected at least {FEWEST_RUNS} with windows to fit to, got {len(runs)}; make more, with different "
            "agents (random is the most telling) and seeds."
        )
    names = list(runs[0].quantities)
    joined = LoggedWindows(
        np.concatenate([run.run for run in runs]),
        np.concatenate([run.window for run in runs]),
        np.concatenate([run.statistics for run in runs]),
        np.concatenate([run.nll for run in runs]),
        np.concatenate([run.ratios for run in runs]),
        {name: np.concatenate([run.quantities[name] for run in runs]) for name in names},
    )
    return joined, config, env_id


def _description(folder: Path) -> dict[str, Any]:
    try:
        description: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_bytes())
        description["env_id"], description["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFilesError(
            f"{folder / CONFIG_FILE}: expected a run's description, got '{error}'; "
            "leave this folder out, or mend the file."
        ) from error
    return description


def _run_windows(rows: Sequence[Mapping[str, Any]], config: RunConfig, index: int) -> LoggedWindows | None:
    """Returns the windows of one run up to the first that cannot be used; None where there is none."""
    columns = [*QUANTITIES, *REWARD_PARTS]
    nll = _nll_before(rows[0], config) if rows else None
    if nll is None:
        return None
    statistics = initial_statistics(nll)
    lines = []
    for row in rows:
        if row.get("status") == "terminated" or any(row.get(name) is None for name in columns):
            break
        ratios = (
            [row["exposure/reveal_ratio"]]
            if config.groups == 1
            else [row[f"exposure/reveal_ratio_{group}"] for group in range(config.groups)]
        )
        lines.append((row["window"], [getattr(statistics, name) for name in FEATURE_NAMES], nll, ratios, row))
        statistics = advance(
            statistics,
            row,
            windows=config.windows,
            max_new_tokens=config.max_new_tokens,
            ema_coefficient=config.ema_coefficient,
        )
        nll = row["probe/nll"]
    if not lines:
        return None
    window, before, nlls, ratio_lines, used = zip(*lines, strict=True)
    return LoggedWindows(
        np.full(len(lines), index),
        np.asarray(window),
        np.asarray(before, dtype=np.float64),
        np.asarray(nlls, dtype=np.float64),
        np.asarray(ratio_lines, dtype=np.float64),
        {name: np.asarray([row[name] for row in used], dtype=np.float64) for name in columns},
    )


def _nll_before(row: Mapping[str, Any], config: RunConfig) -> float | None:
    """Returns the base model's probe NLL from a run's first row; runs of older versions tell it by the drop, if there is one."""
    if row.get("probe/nll_before") is not None:
        return float(row["probe/nll_before"])
    nll, progress = row.get("probe/nll"), row.get("reward/progress")
    if nll is None or progress is None or (config.progress == "positive" and progress <= 0.0):
        return None
    return float(nll + progress)
