"""How fast students learned: curves over windows, the area under them, the time to a threshold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analysis.checks import (
    CONFIGURATION,
    DIFFERING,
    require_columns,
    require_comparable,
    require_distinct_runs,
    require_measured,
)
from analysis.errors import AnalysisError
from analysis.intervals import CONFIDENCE, interquartile_mean, mean_interval
from analysis.metrics import HIGHER_IS_BETTER, bounds, direction

_RUN = ["env_id", "agent", "seed", "run"]


def learning_curves(frame: pd.DataFrame, column: str = "probe/nll", *, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Returns a column's mean over an agent's runs in each window, with a t interval over runs.

    A window's mean is over the runs that measured it; the curve of a student that broke goes on at its worst to where the
    others' measurements end, so that a mean does not get better because students break. Windows in which nothing was measured
    are left out. The intervals are of one window and one agent each: where bands part is no test, ``paired_differences`` is.

    Args:
        frame: Rows of runs, as ``load_runs`` returns them; of each environment, one configuration.
        column: What to sum up.
        confidence: Confidence level.

    Returns:
        Columns env_id, agent, column, window, mean, low, high, iqm (interquartile mean), num_runs; sorted by env_id, agent,
        window. The interval of a single run is NaN.
    """
    require_columns(frame, ("run", "env_id", "agent", "window", column))
    require_measured(frame, [column])
    require_comparable(frame)
    parts = []
    for (env_id, agent), rows in with_broken_curves(frame, column).groupby(
        ["env_id", "agent"], observed=True, sort=True
    ):
        table = rows.pivot(index="run", columns="window", values=column).astype(float).dropna(axis=1, how="all")
        if table.empty:
            continue
        part = _curve(table.sort_index(axis=1), confidence)
        part[["low", "high"]] = part[["low", "high"]].clip(*bounds(column, table.to_numpy()))
        part.insert(0, "env_id", str(env_id))
        part.insert(1, "agent", str(agent))
        part.insert(2, "column", column)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def with_broken_curves(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Returns the rows with more of them for students that broke: they stay at their worst in the windows that others go on to.

    Only for columns with a direction (``analysis.metrics``), and windows in which some run of the environment measured it. One
    that broke before it was measured stays at the worst of all runs.
    """
    higher_is_better = HIGHER_IS_BETTER.get(column)
    if "status" not in frame or higher_is_better is None:
        return frame
    measured = frame[frame[column].notna()]
    ends = frame[(frame["status"] == "terminated").fillna(False).astype(bool)]
    parts = [frame]
    kind = [name for name in ("env_id", CONFIGURATION) if name in frame]
    for end in ends.to_dict("records"):
        own = measured.loc[measured["run"] == end["run"], column].astype(float)
        others = measured[(measured[kind].astype(str) == [str(end[name]) for name in kind]).all(axis=1)]
        later = np.unique(others.loc[others["window"] > end["window"], "window"])
        own = own if len(own) else others[column].astype(float)
        if len(later):
            same = {name: end[name] for name in (*_RUN, CONFIGURATION, DIFFERING) if name in frame}
            worst = float(own.min() if higher_is_better else own.max())
            parts.append(pd.DataFrame({**same, "window": later, column: worst}))
    return pd.concat(parts, ignore_index=True).astype({"env_id": str, "agent": str}) if len(parts) > 1 else frame


def _curve(table: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Returns the curve of one agent from its runs x windows."""
    values = table.to_numpy()
    is_measured = ~np.isnan(values)
    result = pd.DataFrame({"window": table.columns.to_numpy(dtype=np.int64)})
    names = ["mean", "low", "high", "iqm"]
    result[names] = math.nan
    # Windows that the same runs measured are summed up in one go.
    patterns, which = np.unique(is_measured, axis=1, return_inverse=True)
    for index, pattern in enumerate(patterns.T):
        places = np.flatnonzero(which.ravel() == index)
        sample = values[np.ix_(pattern, places)]
        numbers = [*mean_interval(sample, confidence=confidence), interquartile_mean(sample)]
        result.loc[places, names] = np.stack(numbers, axis=1)
    result["num_runs"] = is_measured.sum(axis=0)
    return result


def area_under_curve(frame: pd.DataFrame, column: str = "probe/nll") -> pd.DataFrame:
    """Returns each run's mean height of a column over its windows: the area by the trapezoidal rule / the windows spanned.

    Measured windows are joined by straight lines. A run with a single measurement has that measurement. Areas over different
    windows cannot be compared: ``first_window`` and ``last_window`` say which they are, and ``paired_differences`` refuses
    them. A student that broke stays at its worst in the windows that other runs go on to.

    Args:
        frame: Rows of runs, as ``load_runs`` returns them.
        column: Whose area.

    Returns:
        One line for each run that measured the column: env_id, agent, seed, run, column, area (in the column's unit),
        first_window, last_window, num_measured; and the run's configuration, where the frame has it.
    """
    require_columns(frame, (*_RUN, "window", column))
    require_measured(frame, [column])
    require_distinct_runs(frame)
    lines = []
    whole = with_broken_curves(frame, column)
    for key, rows in whole.dropna(subset=column).groupby(_RUN, observed=True, sort=True, dropna=False):
        rows = rows.sort_values("window")
        windows, values = rows["window"].to_numpy(dtype=float), rows[column].to_numpy(dtype=float)
        area = np.trapezoid(values, windows) / (windows[-1] - windows[0]) if len(rows) > 1 else values[0]
        lines.append((*key, column, float(area), int(windows[0]), int(windows[-1]), len(rows)))
    return _runs(frame, lines, ["column", "area", "first_window", "last_window", "num_measured"])


def time_to_threshold(
    frame: pd.DataFrame,
    column: str,
    threshold: float,
    *,
    higher_is_better: bool | None = None,
    windows_in_a_row: int = 1,
) -> pd.DataFrame:
    """Returns when each run first reached a threshold.

    A student that broke did not reach it, whatever it measured before: what it had learned is lost.

    Args:
        frame: Rows of runs, as ``load_runs`` returns them.
        column: What has to reach it, such as "probe/accuracy".
        threshold: Reached where the column is at least that (at most, if less is better).
        higher_is_better: Of a column that ``analysis.metrics`` does not know.
        windows_in_a_row: Measurements in a row that must reach it, against noise; the time is that of the first of them.

    Returns:
        One line for each run that measured the column or broke: env_id, agent, seed, run, column, threshold, is_broken,
        is_reached, ``window`` (NaN if not reached) and ``last_window``, the last measured one (of a student that broke, its
        last): what was not reached until then is censored, so that windows are compared (``paired_differences``) only where
        every run arrived, and ``is_reached`` else. And the run's configuration, where the frame has it.

    Raises:
        AnalysisError: If the column's direction is unknown or contradicted, or an argument is out of range.
    """
    require_columns(frame, (*_RUN, "window", column))
    require_measured(frame, [column])
    require_distinct_runs(frame)
    if windows_in_a_row < 1:
        raise AnalysisError(f"windows_in_a_row: expected at least 1, got {windows_in_a_row!r}; pass 1 or more.")
    is_higher_better = direction(column, higher_is_better=higher_is_better)
    lines = []
    statuses = frame["status"] if "status" in frame else pd.Series(index=frame.index, dtype="string")
    ends = (statuses == "terminated").fillna(False).astype(bool)
    there = frame.assign(is_end=ends)[frame[column].notna() | ends]
    for key, rows in there.groupby(_RUN, observed=True, sort=True, dropna=False):
        rows = rows.sort_values("window")
        is_broken, windows = bool(rows["is_end"].any()), rows["window"].to_numpy()
        values = rows[column].to_numpy(dtype=float)
        is_there = values >= threshold if is_higher_better else values <= threshold
        is_there &= not is_broken
        in_a_row = np.convolve(is_there, np.ones(windows_in_a_row))[windows_in_a_row - 1 : len(values)]
        places = np.flatnonzero(in_a_row > windows_in_a_row - 0.5)
        window = float(windows[places[0]]) if len(places) else math.nan
        lines.append((*key, column, float(threshold), is_broken, bool(len(places)), window, int(windows[-1])))
    return _runs(frame, lines, ["column", "threshold", "is_broken", "is_reached", "window", "last_window"])


def _runs(frame: pd.DataFrame, lines: list[tuple[Any, ...]], names: list[str]) -> pd.DataFrame:
    """Returns a line for each run, with the run's configuration where the frame has it."""
    runs = pd.DataFrame(lines, columns=[*_RUN, *names]).astype({"seed": "Int64"})
    for name in (CONFIGURATION, DIFFERING):
        if name in frame:
            runs[name] = runs["run"].map(frame.groupby("run", observed=True)[name].first().astype("string"))
    return runs
