"""Logged runs read back: what they have in common, and a run's statistics before each of its windows.

A run's files hold a row for each window but no observations. These are a pure function of the rows (``advance``) and are
computed anew, to the bits that the agent saw.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from atesd_env.config import RunConfig, differing_fields, read_config
from atesd_env.envs.columns import group_columns, problem_columns
from atesd_env.envs.observation import RunningStatistics, advance, initial_statistics
from atesd_env.errors import ConfigError
from atesd_env.files.reading import read_json, reading
from atesd_env.files.run_folder import CONFIG_FILE


def common_environment(folders: Iterable[Path]) -> tuple[str, RunConfig]:
    """Returns the environment id and the configuration of runs that have both in common.

    Args:
        folders: Their folders, at least one.

    Raises:
        ConfigError: If they differ; the message names the fields.
        RunFilesError: If a ``config.json`` cannot be read.
    """
    runs = [(folder, *_environment(folder)) for folder in folders]
    first, env_id, config = runs[0]
    for folder, other_id, other in runs[1:]:
        different = [] if other_id == env_id else [f"env_id ({env_id!r} there, {other_id!r} here)"]
        different += differing_fields(config.keywords(), other.keywords(), "here")
        if different:
            raise ConfigError(
                f"runs: expected one environment and configuration, got others in {first} and {folder} "
                f"(different: {', '.join(different)}); pass runs of one configuration."
            )
    return env_id, config


def _environment(folder: Path) -> tuple[str, RunConfig]:
    path = folder / CONFIG_FILE
    with reading(path, "a run's description", remedy="leave this folder out, or mend the file"):
        description = read_json(path)
        return str(description["env_id"]), read_config(description["config"])


def base_nll(first_row: Mapping[Any, Any], config: RunConfig) -> float | None:
    """Returns the base model's probe NLL, nats a token, or None where a run's first row does not tell it.

    Runs of older versions tell it by the drop, if there is one.
    """
    names = ("probe/nll_before", "probe/nll", "reward/progress")
    recorded, nll, progress = (math.nan if first_row.get(name) is None else float(first_row[name]) for name in names)
    if not math.isnan(recorded):
        return recorded
    is_told = not math.isnan(nll + progress) and (config.progress == "signed" or progress > 0.0)
    return nll + progress if is_told else None


def rebuilt_statistics(
    rows: Iterable[Mapping[str, Any]], config: RunConfig, probe_nll: float
) -> Iterator[RunningStatistics]:
    """Yields a run's statistics before its first window, and after each of its rows.

    Args:
        rows: Its rows, from window 1 on.
        config: Its configuration.
        probe_nll: The base model's probe NLL, in nats a token.
    """
    statistics = initial_statistics(probe_nll)
    yield statistics
    for row in rows:
        statistics = after_window(statistics, row, config)
        yield statistics


def after_window(before: RunningStatistics, row: Mapping[str, Any], config: RunConfig) -> RunningStatistics:
    """Returns the statistics after one more window (``advance``) of a run with a configuration."""
    return advance(
        before,
        row,
        windows=config.windows,
        max_new_tokens=config.max_new_tokens,
        ema_coefficient=config.ema_coefficient,
    )


def ratio_columns(config: RunConfig) -> list[str]:
    """Returns the columns of a row that hold the reveal ratios, in the order of the groups, or of the window's problems."""
    if config.action_ratios == "problem":
        return [column.name for column in problem_columns(config.num_ratios)]
    return [column.name for column in group_columns(config.groups)] or ["exposure/reveal_ratio"]
