"""How fast students learned: curves over windows, the area under them, the time to a threshold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analysis.checks import require_columns, require_measured
from analysis.errors import AnalysisError
from analysis.intervals import CONFIDENCE, NUM_RESAMPLES, bootstrap_interval, interquartile_mean

_RUN = ["env_id", "agent", "seed", "run"]


def learning_curves(
    frame: pd.DataFrame,
    column: str = "probe/nll",
    *,
    confidence: float = CONFIDENCE,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Returns a column's mean over an agent's runs in each window, with a bootstrap interval over runs.

    A window's mean is over the runs that measured it: where runs end early, later windows are a mean over the survivors
    (``num_runs`` says how many) and can look better than they are. Windows in which nothing was measured are left out.

    Args:
        frame: Rows of runs, as ``load_runs`` returns them.
        column: What to sum up.
        confidence: Confidence level.
        num_resamples: Bootstrap resamples; whole runs are resampled, the same ones in every window.
        seed: Seed of the resampling.

    Returns:
        Columns env_id, agent, column, window, mean, low, high, iqm (interquartile mean), num_runs; sorted by env_id, agent,
        window. The interval of a single run is NaN.
    """
    require_columns(frame, ("run", "env_id", "agent", "window", column))
    require_measured(frame, [column])
    parts = []
    for (env_id, agent), rows in frame.groupby(["env_id", "agent"], observed=True, sort=True):
        table = rows.pivot(index="run", columns="window", values=column).astype(float).dropna(axis=1, how="all")
        if table.empty:
            continue
        part = _curve(table.sort_index(axis=1), confidence=confidence, num_resamples=num_resamples, seed=seed)
        part.insert(0, "env_id", str(env_id))
        part.insert(1, "agent", str(agent))
        part.insert(2, "column", column)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _curve(table: pd.DataFrame, **settings: Any) -> pd.DataFrame:
    """Returns the curve of one agent from its runs x windows."""
    values = table.to_numpy()
    is_measured = ~np.isnan(values)
    result = pd.DataFrame(
        {
            "window": table.columns.to_numpy(dtype=np.int64),
            "mean": math.nan,
            "low": math.nan,
            "high": math.nan,
            "iqm": math.nan,
        }
    )
    # Windows that the same runs measured are resampled in one go.
    patterns, which = np.unique(is_measured, axis=1, return_inverse=True)
    for index, pattern in enumerate(patterns.T):
        places = np.flatnonzero(which.ravel() == index)
        sample = values[np.ix_(pattern, places)]
        low, high = bootstrap_interval(sample, **settings)
        numbers = np.stack([sample.mean(axis=0), low, high, interquartile_mean(sample)], axis=1)
        result.loc[places, ["mean", "low", "high", "iqm"]] = numbers
    result["num_runs"] = is_measured.sum(axis=0)
    return result


def area_under_curve(frame: pd.DataFrame, column: str = "probe/nll") -> pd.DataFrame:
    """Returns each run's mean height of a column over its windows: the area by the trapezoidal rule / the windows spanned.

    Measured windows are joined by straight lines. A run with a single measurement has that measurement. Compare only runs
    that span the same windows: ``first_window`` and ``last_window`` say which.

    Args:
        frame: Rows of runs, as ``load_runs`` returns them.
        column: Whose area.

    Returns:
        One line for each run that measured the column: env_id, agent, seed, run, column, area (in the column's unit),
        first_window, last_window, num_measured.
    """
    require_columns(frame, (*_RUN, "window", column))
    require_measured(frame, [column])
    lines = []
    for key, rows in frame.dropna(subset=column).groupby(_RUN, observed=True, sort=True, dropna=False):
        rows = rows.sort_values("window")
        windows, values = rows["window"].to_numpy(dtype=float), rows[column].to_numpy(dtype=float)
        area = np.trapezoid(values, windows) / (windows[-1] - windows[0]) if len(rows) > 1 else values[0]
        lines.append((*key, column, float(area), int(windows[0]), int(windows[-1]), len(rows)))
    return _runs(lines, ["column", "area", "first_window", "last_window", "num_measured"])


def time_to_threshold(
    frame: pd.DataFrame, column: str, threshold: float, *, higher_is_better: bool = True, windows_in_a_row: int = 1
) -> pd.DataFrame:
    """Returns when each run first reached a threshold.

    Args:
        frame: Rows of runs, as ``load_runs`` returns them.
        column: What has to reach it, such as "probe/accuracy".
        threshold: Reached where the column is at least that (at most, if less is better).
        higher_is_better: Of the column.
        windows_in_a_row: Measurements in a row that must reach it, against noise; the time is that of the first of them.

    Returns:
        One line for each run that measured the column: env_id, agent, seed, run, column, threshold, is_reached, ``window``
        (NaN if never reached) and ``last_window``, the last measured one: what was not reached until then is censored, so do
        not average windows where some runs never arrive; compare ``is_reached`` first.
    """
    require_columns(frame, (*_RUN, "window", column))
    require_measured(frame, [column])
    if windows_in_a_row < 1:
        raise AnalysisError(f"windows_in_a_row: expected at least 1, got {windows_in_a_row!r}; pass 1 or more.")
    lines = []
    for key, rows in frame.dropna(subset=column).groupby(_RUN, observed=True, sort=True, dropna=False):
        rows = rows.sort_values("window")
        values = rows[column].to_numpy(dtype=float)
        is_there = values >= threshold if higher_is_better else values <= threshold
        in_a_row = np.convolve(is_there, np.ones(windows_in_a_row))[windows_in_a_row - 1 : len(values)]
        places = np.flatnonzero(in_a_row > windows_in_a_row - 0.5)
        windows = rows["window"].to_numpy()
        window = float(windows[places[0]]) if len(places) else math.nan
        lines.append((*key, column, float(threshold), bool(len(places)), window, int(windows[-1])))
    return _runs(lines, ["column", "threshold", "is_reached", "window", "last_window"])


def _runs(lines: list[tuple[Any, ...]], names: list[str]) -> pd.DataFrame:
    return pd.DataFrame(lines, columns=[*_RUN, *names]).astype({"seed": "Int64"})
