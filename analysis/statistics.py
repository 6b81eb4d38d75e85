"""What runs came to, and how agents compare: pure functions from frame to frame.

Runs with one seed meet the same problems and random numbers, so agents are compared by the differences on each seed, on the
seeds that all of them have. The intervals of differences hold for all agents at once (``analysis.contrasts``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.checks import (
    CONFIGURATION,
    DIFFERING,
    require_columns,
    require_finite,
    require_one_environment,
    require_seeds,
    require_texts,
    with_numbers,
)
from analysis.contrasts import Contrast, to_best, to_best_fixed, to_reference
from analysis.errors import AnalysisError
from analysis.intervals import CONFIDENCE, mean_interval, require_confidence
from analysis.metrics import METRICS, bounds, difference_bounds, known_metrics
from analysis.paired import shared_seeds

COSTS = ("num_updates", "num_tokens", "num_trained_tokens", "controller_sec", "run_sec")
"""What a run cost: columns of ``final_outcomes``."""

_LABELS = ("reference", "best_fixed", "best")
_NUMBERS = (
    *("mean", "low", "high"),
    *("to_reference", "to_reference_low", "to_reference_high", "to_reference_p"),
    *("to_best_fixed", "to_best_fixed_low", "to_best_fixed_high"),
    *("to_best", "to_best_low", "to_best_high", "to_best_p"),
)
_REQUIRED = ("run", "env_id", "agent", "seed", "window", "status", "update", "rollout/num_tokens", "reward/total")
_FIXED = re.compile(r"fixed:([0-9.]+(?:e-?[0-9]+)?)")


def fixed_ratio(agent: str) -> float | None:
    """Returns the reveal ratio of an agent that holds one in every window, or None.

    >>> fixed_ratio("fixed:0.5"), fixed_ratio("beta")
    (0.5, None)
    """
    match = _FIXED.fullmatch(agent)
    return float(match[1]) if match else None


def run_seconds(frame: pd.DataFrame) -> pd.Series[float]:
    """Returns each run's wall time in seconds, windows and controller; without loading, checkpoints and evaluation.

    Runs of a version that logged only parts of a window get the sum of these parts.

    Args:
        frame: Rows of runs, as ``load_runs`` returns them.
    """
    names = [name for name in ("time/window_sec", "time/controller_sec") if name in frame]
    if "time/window_sec" not in names:
        names = [name for name in frame.columns if name.startswith("time/")]
    return frame.groupby("run", observed=True)[names].sum().sum(axis=1)


def final_outcomes(frame: pd.DataFrame, metrics: str | Sequence[str]) -> pd.DataFrame:
    """Returns one line for each run: what it came to, and what it cost.

    Args:
        frame: Rows of runs of one environment, as ``load_runs`` returns them.
        metrics: One or more names in ``METRICS``.

    Returns:
        Columns run, agent, seed; ``is_broken`` (the student broke);
        ``num_windows``, ``num_updates``, ``num_tokens`` (sampled), ``num_trained_tokens`` (that updates learned from: in runs
        that do not say so, all that were sampled), and in these three what the agent made on branches or sampled to ask;
        ``controller_sec`` and ``run_sec`` (windows and controller); then each metric: its last measurement in the run, or the
        sum of rewards for "return". A student that
        broke counts as its worst measurement: the last one may be a good one from before; one that broke before it was
        measured counts as the worst measurement of all runs, since to leave out its seed would be in favour of its agent.

    Raises:
        AnalysisError: If a metric is unknown or was never measured, environments or configurations are mixed, a run has no
            seed, or a seed of an agent has two runs.
    """
    metrics = known_metrics(metrics)
    require_columns(frame, _REQUIRED)
    require_one_environment(frame)
    require_seeds(frame)
    require_finite(frame, ("window", "update", "rollout/num_tokens", "reward/total"))
    rows = frame.sort_values(["run", "window"])
    runs = rows.groupby("run", observed=True)
    names = runs.last()
    for run in names.index[names["update"].isna()]:
        raise AnalysisError(
            f"run {run}: expected its updates in the column update, got only nulls; leave that run out."
        )
    outcomes = pd.DataFrame(
        {
            "agent": names["agent"].astype(str),
            "seed": names["seed"].astype(int),
            "is_broken": (names["status"] == "terminated").fillna(False).astype(bool),
            "num_windows": names["window"].astype(int),
            **_run_costs(rows),
        }
    )
    for metric in metrics:
        outcomes[metric] = _came_to(rows, metric, outcomes["is_broken"])
    for name in (CONFIGURATION, DIFFERING):
        if name in names:
            outcomes[name] = names[name].astype("string")
    return outcomes.reset_index(names="run").sort_values(["agent", "seed"], ignore_index=True)


def _came_to(rows: pd.DataFrame, metric: str, is_broken: pd.Series[bool]) -> pd.Series[Any]:
    """Returns what each run came to in a metric, a number for each run of sorted rows."""
    runs = rows.groupby("run", observed=True)
    if metric == "return":
        results = runs["reward/total"].sum(min_count=1)  # a baseline has none, which is not a return of 0
    elif metric not in rows or rows[metric].isna().all():
        raise AnalysisError(f"metric: expected {metric} to be measured in these runs, got only nulls; leave it out.")
    else:
        require_finite(rows, [metric])
        worst = runs[metric].min() if METRICS[metric] else runs[metric].max()
        results = runs[metric].last().where(~is_broken, worst)  # `last` passes over nulls
    worst_of_all = results.min() if METRICS[metric] else results.max()
    return results.mask(is_broken & results.isna(), worst_of_all)


def _run_costs(rows: pd.DataFrame) -> dict[str, pd.Series[Any]]:
    """Returns the columns ``COSTS`` of sorted rows, a number for each run."""
    runs = rows.groupby("run", observed=True)
    trained = rows["rollout/num_tokens"]
    if "update/num_tokens" in rows:
        trained = rows["update/num_tokens"].fillna(trained)
    seconds = rows["time/controller_sec"] if "time/controller_sec" in rows else pd.Series(math.nan, index=rows.index)
    updates, tokens, asked = (
        runs[f"agent/{name}"].sum().astype(int) if f"agent/{name}" in rows else 0
        for name in ("branch_updates", "branch_tokens", "sampled_tokens")
    )
    return {
        "num_updates": runs["update"].last().astype(int) + updates,
        "num_tokens": runs["rollout/num_tokens"].sum().astype(int) + tokens + asked,
        "num_trained_tokens": trained.groupby(rows["run"]).sum().astype(int) + tokens,
        "controller_sec": seconds.groupby(rows["run"]).sum(min_count=1),
        "run_sec": run_seconds(rows),
    }


def compare_agents(
    outcomes: pd.DataFrame,
    metrics: str | Sequence[str],
    *,
    reference_ratio: float = 1.0,
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """Compares agents with full exposure, with the best fixed ratio and with the best agent, paired by seed.

    Every comparison is on the seeds that all agents have. The intervals of each of the three hold for all agents of a metric at
    once, and allow for the best having been chosen on the very seeds that it is judged by.

    Args:
        outcomes: What ``final_outcomes`` returns.
        metrics: One or more metrics in it.
        reference_ratio: The fixed ratio that all are compared with; 1 is full exposure (OPSD).
        confidence: Confidence level.

    Returns:
        One line for each metric and agent, best mean first. Columns: metric, higher_is_better, agent, ``num_seeds`` (shared by
        all), ``left_out`` (the seeds that some agent lacks, as text), num_broken (of all runs); ``mean``, ``low``, ``high`` (t
        interval of the agent alone); ``reference`` (the agent that holds ``reference_ratio``, or null), ``to_reference``,
        ``to_reference_low``, ``to_reference_high``, ``to_reference_p`` (adjusted): the mean difference, agent minus reference;
        ``best_fixed`` (the fixed ratio with the best mean, for a fixed ratio of the others, or null), ``to_best_fixed``,
        ``to_best_fixed_low``, ``to_best_fixed_high``; ``best`` (the agent with the best mean), ``to_best``, ``to_best_low``,
        ``to_best_high``, ``to_best_p``; and means over all runs of num_updates, num_tokens, num_trained_tokens, controller_sec
        and run_sec. NaN where nothing can be said.

    Raises:
        AnalysisError: If no metric is named, one is unknown, or the outcomes cannot be compared (``shared_seeds``).
    """
    metrics = known_metrics(metrics)
    if not metrics:
        raise AnalysisError(f"metrics: expected at least one, got none; pass one of {', '.join(METRICS)}.")
    require_columns(outcomes, ("agent", "seed", "is_broken", *COSTS, *metrics), "what final_outcomes returns")
    require_confidence(confidence)
    require_texts(outcomes, ["agent"])
    outcomes = with_numbers(outcomes, ["is_broken", *COSTS])
    costs = outcomes.groupby("agent")[[*COSTS]].mean()
    num_broken = outcomes.groupby("agent")["is_broken"].sum()
    parts = []
    for metric in metrics:
        shared = shared_seeds(outcomes, metric)
        part = _compared(shared.table, metric, reference_ratio, confidence)
        part.insert(4, "left_out", ", ".join(map(str, shared.left_out)))
        part.insert(5, "num_broken", part["agent"].map(num_broken).astype(int))
        parts.append(part.join(costs, on="agent"))
    return pd.concat(parts, ignore_index=True)


def _compared(table: pd.DataFrame, metric: str, reference_ratio: float, confidence: float) -> pd.DataFrame:
    """Returns the lines of one metric, from complete seeds x agents."""
    is_higher_better = METRICS[metric]
    agents = [str(agent) for agent in table.columns]
    values = table.to_numpy(dtype=np.float64)
    ratios = [fixed_ratio(agent) for agent in agents]
    frame = pd.DataFrame({"metric": metric, "higher_is_better": is_higher_better, "agent": agents})
    frame["num_seeds"] = len(table)
    if not len(table):
        return frame.assign(**dict.fromkeys(_LABELS, None), **dict.fromkeys(_NUMBERS, math.nan))
    intervals = [mean_interval(column, confidence=confidence) for column in values.T]
    frame[["mean", "low", "high"]] = np.clip(intervals, *bounds(metric, values))
    frame["mean"] = values.mean(axis=0)  # to the last bit what ranks in the contrasts, where two agents come out even
    reference = ratios.index(reference_ratio) if reference_ratio in ratios else None
    frame["reference"] = None if reference is None else agents[reference]
    nothing = np.full(len(agents), math.nan)
    contrast = Contrast(nothing, nothing, nothing, nothing)
    if reference is not None:
        contrast = to_reference(values, reference, confidence=confidence)
    reach = difference_bounds(metric, values)
    frame = _with(frame, "to_reference", contrast, reach)
    fixed = [place for place, ratio in enumerate(ratios) if ratio is not None]
    frame["best_fixed"] = [
        _best_of(table, [i for i in fixed if i != own], is_higher_better) for own in range(len(agents))
    ]
    contrast = to_best_fixed(values, fixed, higher_is_better=is_higher_better, confidence=confidence)
    frame = _with(frame, "to_best_fixed", contrast, reach).drop(columns="to_best_fixed_p")
    contrast, best = to_best(values, higher_is_better=is_higher_better, confidence=confidence)
    frame["best"] = agents[best]
    frame = _with(frame, "to_best", contrast, reach)
    return frame.sort_values("mean", ascending=not is_higher_better, ignore_index=True, kind="stable")


def _with(frame: pd.DataFrame, name: str, contrast: Contrast, reach: tuple[float, float]) -> pd.DataFrame:
    return frame.assign(
        **{
            name: contrast.difference,
            f"{name}_low": np.clip(contrast.low, *reach),
            f"{name}_high": np.clip(contrast.high, *reach),
            f"{name}_p": contrast.p_value,
        }
    )


def _best_of(table: pd.DataFrame, places: Sequence[int], higher_is_better: bool) -> str | None:
    if not places:
        return None
    means = table.iloc[:, list(places)].mean()
    return str(means.idxmax() if higher_is_better else means.idxmin())
