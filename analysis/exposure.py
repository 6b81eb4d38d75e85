"""What the controllers showed: reveal ratios over a run's progress and by difficulty group, and what mismatch they met."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.checks import group_numbers, require_columns, require_comparable, require_measured
from analysis.errors import AnalysisError
from analysis.intervals import CONFIDENCE, mean_interval
from analysis.metrics import bounds

RATIO = "exposure/reveal_ratio"
"""The column of the reveal ratio."""

STRETCHES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Edges of the stretches that ratios are put into where controllers drew them."""


def run_progress(frame: pd.DataFrame) -> pd.Series[float]:
    """Returns how far its run was at the end of each row's window, in (0, 1].

    The whole is the planned number of windows where the frame has it (``load_runs(config=["windows"])``), else the run's
    last window, which makes an unfinished run look finished.
    """
    last = frame.groupby("run", observed=True)["window"].transform("max").astype(float)
    planned = frame["config/windows"] if "config/windows" in frame else pd.Series(math.nan, index=frame.index)
    return frame["window"].astype(float) / planned.fillna(last)


def exposure_by_progress(frame: pd.DataFrame, *, num_bins: int = 10) -> pd.DataFrame:
    """Returns how the reveal ratio is distributed in each stretch of the runs' progress.

    Args:
        frame: Rows of runs, as ``load_runs`` returns them.
        num_bins: Stretches of equal length.

    Returns:
        One line for each agent and stretch with windows: env_id, agent, ``progress_low``, ``progress_high`` (a window counts
        where it ends: low < progress <= high), mean, lower_quartile, median, upper_quartile, num_windows, num_runs.
    """
    return _by_progress(frame, {None: RATIO}, num_bins).drop(columns="group")


def exposure_by_group(frame: pd.DataFrame, *, num_bins: int = 1) -> pd.DataFrame:
    """Returns how the reveal ratio of each difficulty group is distributed, in all or in each stretch of the runs.

    Args:
        frame: Rows of runs with several difficulty groups (columns ``exposure/reveal_ratio_<g>``).
        num_bins: Stretches of equal length; 1 takes the whole run.

    Returns:
        As ``exposure_by_progress``, with a column ``group`` (0 is easiest) after agent.

    Raises:
        AnalysisError: If the runs have a single group.
    """
    groups = group_numbers(frame, RATIO)
    if not groups:
        raise AnalysisError(
            f"frame: expected the columns {RATIO}_0, {RATIO}_1, ..., got none; make runs with several groups (--groups 4)."
        )
    return _by_progress(frame, {group: f"{RATIO}_{group}" for group in groups}, num_bins)


def _by_progress(frame: pd.DataFrame, columns: dict[Any, str], num_bins: int) -> pd.DataFrame:
    require_columns(frame, ("run", "env_id", "agent", "window", *columns.values()))
    require_comparable(frame)
    if num_bins < 1:
        raise AnalysisError(f"num_bins: expected at least 1, got {num_bins!r}; pass 1 or more.")
    # 0.3 * 10 is a little more than 3: rounding keeps a window that ends on an edge below it.
    bins = np.ceil(np.round(run_progress(frame) * num_bins, 9)).clip(1, num_bins) - 1
    parts = []
    for group, name in columns.items():
        rows = pd.DataFrame(
            {
                "env_id": frame["env_id"].astype(str),
                "agent": frame["agent"].astype(str),
                "group": group,
                "bin": bins,
                "run": frame["run"],
                "ratio": frame[name].astype(float),
            }
        ).dropna(subset="ratio")
        grouped = rows.groupby(["env_id", "agent", "bin"])
        part: Any = grouped["ratio"].agg(
            mean="mean",
            lower_quartile=lambda values: values.quantile(0.25),
            median="median",
            upper_quartile=lambda values: values.quantile(0.75),
            num_windows="size",
        )
        part["num_runs"] = grouped["run"].nunique()
        part = part.reset_index()
        part.insert(2, "group", group)
        part.insert(3, "progress_low", part["bin"] / num_bins)
        part.insert(4, "progress_high", (part.pop("bin") + 1) / num_bins)
        parts.append(part)
    result: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return result.sort_values(["env_id", "agent", "group", "progress_low"], ignore_index=True, kind="stable")


def mismatch_by_ratio(
    frame: pd.DataFrame,
    column: str = "student/mismatch",
    *,
    edges: Sequence[float] | None = None,
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """Returns the mismatch at each reveal ratio: mean over seeds of the seeds' means, with a t interval over seeds.

    Only windows that all runs measured are taken: late windows have another mismatch than early ones, whatever the ratio.
    Ratios that every agent held (``fixed:0.5``) are told apart exactly. Where controllers drew them, they are put into stretches;
    a controller picks its ratio by the state: what differs then is not the ratio alone, and nothing is to be ranked.

    Args:
        frame: Rows of runs, as ``load_runs`` returns them; runs without a seed count as one seed each.
        column: What to sum up.
        edges: Increasing edges of stretches of the ratio, the last one closed; None takes each ratio by itself if every agent held
            one, else ``STRETCHES``.
        confidence: Confidence level, of each interval by itself.

    Returns:
        One line for each environment and ratio: env_id, reveal_ratio (mean over the windows), mean, low, high, num_seeds,
        num_windows, ``first_window`` and ``last_window`` of this ratio; ``is_paired``: every ratio was met by the same seeds in
        the same windows, so that means can be ranked; they are then of the seeds that have every ratio, and ``left_out`` names
        the others, as text.

    Raises:
        AnalysisError: If no window was measured by all runs, or configurations are mixed.
    """
    lines = []
    for part in _by_seed_and_ratio(frame, column, edges):
        for place in part.table.columns:
            values = part.table[place].dropna().to_numpy(dtype=float)
            here = part.rows[part.rows["place"] == place]
            mean, low, high = np.clip(mean_interval(values, confidence=confidence), *bounds(column, values))
            lines.append(
                {
                    "env_id": part.env_id,
                    "reveal_ratio": float(here["ratio"].mean()),
                    "mean": float(mean),
                    "low": float(low),
                    "high": float(high),
                    "num_seeds": len(values),
                    "num_windows": len(here),
                    "first_window": int(here["window"].min()),
                    "last_window": int(here["window"].max()),
                    "is_paired": part.is_paired,
                    "left_out": part.left_out,
                }
            )
    return pd.DataFrame(lines)


def mismatch_trend(
    frame: pd.DataFrame, column: str = "student/mismatch", *, edges: Sequence[float] | None = None
) -> pd.DataFrame:
    """Tests whether the mismatch grows with the reveal ratio: Page's trend test over seeds, each ranked by itself.

    Args:
        frame: As in ``mismatch_by_ratio``.
        column: As there.
        edges: As there.

    Returns:
        One line for each environment: env_id, ``num_ratios``, ``num_seeds`` (those with every ratio, all in the same windows; 0
        where there are none, and nothing is said then), ``is_increasing`` (the means over these seeds, which are those of
        ``mismatch_by_ratio``, rise strictly), ``tau`` (Kendall's, mean over seeds, in [-1, 1])
        and ``p_value`` (one-sided, against no trend; NaN with fewer than 3 ratios or 2 seeds). The test finds a trend, not
        that every step rises: see ``is_increasing`` for that.
    """
    lines = []
    for part in _by_seed_and_ratio(frame, column, edges):
        values = part.table.to_numpy(dtype=float)[: None if part.is_paired else 0]
        num_seeds, num_ratios = values.shape
        is_testable = num_ratios >= 3 and num_seeds >= 2
        taus = [stats.kendalltau(np.arange(num_ratios), line).statistic for line in values] if num_ratios > 1 else []
        lines.append(
            {
                "env_id": part.env_id,
                "num_ratios": num_ratios,
                "num_seeds": num_seeds,
                "is_increasing": bool(num_seeds and num_ratios > 1 and rises(values.mean(axis=0))),
                "tau": float(np.mean(taus)) if len(taus) else math.nan,
                "p_value": _page(values) if is_testable else math.nan,
            }
        )
    return pd.DataFrame(lines)


def rises(means: NDArray[np.float64]) -> bool:
    """Returns whether means, in the order of the ratio, rise at every step."""
    return bool((np.diff(means) > 0).all())


def _page(values: NDArray[np.float64]) -> float:
    return float(stats.page_trend_test(values).pvalue)


class _Part(NamedTuple):
    """One environment's windows.

    Attributes:
        env_id: Its id.
        table: The column's means as seeds x places (of ratios).
        rows: What they are made of.
        is_paired: Every place has the same seeds and windows.
        left_out: The seeds that lack a place, where it is paired.
    """

    env_id: str
    table: pd.DataFrame
    rows: pd.DataFrame
    is_paired: bool
    left_out: str


def _by_seed_and_ratio(frame: pd.DataFrame, column: str, edges: Sequence[float] | None) -> list[_Part]:
    require_columns(frame, ("run", "env_id", "seed", "window", RATIO, column))
    require_measured(frame, [RATIO, column])
    require_comparable(frame)
    # Of all windows: a run that is cut to one has one ratio, whoever drew it.
    ratios = frame.groupby("agent" if "agent" in frame else "run", observed=True)[RATIO]
    rows = pd.DataFrame(
        {
            "env_id": frame["env_id"].astype(str),
            "run": frame["run"].astype(str),
            "seed": frame["seed"].astype("string").fillna(frame["run"].astype("string")),
            "window": frame["window"].astype(int),
            "ratio": frame[RATIO].astype(float),
            "value": frame[column].astype(float),
        }
    ).dropna(subset=["ratio", "value"])
    parts: list[Any] = [_on_shared_windows(str(env_id), part) for env_id, part in rows.groupby("env_id")]
    rows = pd.concat(parts)
    if edges is None and ratios.nunique().le(1).all():
        rows["place"] = rows["ratio"].round(6)
    else:
        edges = STRETCHES if edges is None else edges
        numbers = np.asarray(edges)
        if numbers.ndim != 1 or numbers.dtype.kind not in "iuf" or len(numbers) < 2 or not (np.diff(numbers) > 0).all():
            raise AnalysisError(f"edges: expected at least two increasing numbers, got {edges!r}; sort them.")
        rows["place"] = pd.cut(rows["ratio"], list(edges), right=False, labels=False)
        rows.loc[rows["ratio"] == edges[-1], "place"] = len(edges) - 2
        rows = rows.dropna(subset="place")
    return [_part(str(env_id), part) for env_id, part in rows.groupby("env_id")]


def _part(env_id: str, rows: pd.DataFrame) -> _Part:
    table = rows.pivot_table(index="seed", columns="place", values="value", aggfunc="mean")
    is_whole = table.notna().all(axis=1)
    whole = rows[rows["seed"].isin(table.index[is_whole])]
    if whole.groupby(["seed", "place"])["window"].agg(frozenset).nunique() != 1:
        return _Part(env_id, table, rows, is_paired=False, left_out="")
    return _Part(env_id, table[is_whole], whole, is_paired=True, left_out=", ".join(table.index[~is_whole]))


def _on_shared_windows(env_id: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Returns one environment's rows of the windows that all of its runs measured."""
    counts = rows.groupby("window")["run"].nunique()
    shared = counts.index[counts == rows["run"].nunique()]
    if shared.empty:
        raise AnalysisError(
            f"frame: expected a window that all runs of {env_id} measured, got none; leave out the runs that have too few."
        )
    return rows[rows["window"].isin(shared)]
