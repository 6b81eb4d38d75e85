"""What runs came to, and how agents compare: pure functions from frame to frame.

Runs with one seed meet the same problems and random numbers, so agents are compared by the differences on each seed. All
intervals are percentile bootstrap intervals over seeds, drawn from a seeded generator; below about 8 seeds they are too
narrow, and with one seed there is none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import bootstrap

from analysis.load import AnalysisError

METRICS: dict[str, bool] = {
    "probe/accuracy": True,
    "probe/nll": False,
    "probe/pass_at_k": True,
    "probe/grounded": True,
    "rollout/success_rate": True,
    "student/mismatch": False,
    "student/loss": False,
    "return": True,
}
"""What agents can be compared by -> whether more is better; "return" is the sum of a run's rewards."""

COSTS = ("num_updates", "num_tokens", "num_trained_tokens", "controller_sec", "run_sec")
"""What a run cost: columns of ``final_outcomes``."""

CONFIDENCE = 0.95
"""Confidence level of the intervals."""

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


def final_outcomes(frame: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Returns one line for each run: what it came to, and what it cost.

    Args:
        frame: Rows of runs of one environment, as ``load_runs`` returns them.
        metrics: Names in ``METRICS``.

    Returns:
        Columns run, agent, seed; ``is_broken`` (the student broke, so that the last measurement is from before);
        ``num_windows``, ``num_updates``, ``num_tokens`` (sampled), ``num_trained_tokens`` (that updates learned from: in runs
        that do not say so, all that were sampled); ``controller_sec`` and ``run_sec`` (windows and
        controller); then each metric: its last measurement in the run, or the sum of rewards for "return".

    Raises:
        AnalysisError: If a metric is unknown or was never measured, environments are mixed, or a seed of an agent has
            two runs.
    """
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown:
        raise AnalysisError(f"metric: expected one of {', '.join(METRICS)}, got {unknown[0]!r}; pass one of these.")
    env_ids = sorted(frame["env_id"].unique())
    if len(env_ids) != 1:
        raise AnalysisError(
            f"frame: expected runs of one environment, got {', '.join(env_ids) or 'none'}; choose one of them."
        )
    rows = frame.sort_values(["run", "window"])
    runs = rows.groupby("run", observed=True)
    names = runs.last()
    trained = rows["rollout/num_tokens"]
    if "update/num_tokens" in rows:
        trained = rows["update/num_tokens"].fillna(trained)
    seconds = rows["time/controller_sec"] if "time/controller_sec" in rows else pd.Series(math.nan, index=rows.index)
    outcomes = pd.DataFrame(
        {
            "agent": names["agent"].astype(str),
            "seed": names["seed"].astype(int),
            "is_broken": (names["status"] == "terminated").fillna(False).astype(bool),
            "num_windows": names["window"].astype(int),
            "num_updates": names["update"].astype(int),
            "num_tokens": runs["rollout/num_tokens"].sum().astype(int),
            "num_trained_tokens": trained.groupby(rows["run"]).sum().astype(int),
            "controller_sec": seconds.groupby(rows["run"]).sum(min_count=1),
            "run_sec": run_seconds(rows),
        }
    )
    for metric in metrics:
        if metric == "return":
            outcomes[metric] = runs["reward/total"].sum(min_count=1)  # a baseline has none, which is not a return of 0
        elif metric not in rows or rows[metric].isna().all():
            raise AnalysisError(
                f"metric: expected {metric} to be measured in these runs, got only nulls; leave it out."
            )
        else:
            outcomes[metric] = names[metric]  # `last` passes over nulls
    outcomes = outcomes.reset_index(names="run").sort_values(["agent", "seed"], ignore_index=True)
    twice = outcomes[outcomes.duplicated(["agent", "seed"])]
    if not twice.empty:
        agent, seed = twice.iloc[0][["agent", "seed"]]
        raise AnalysisError(
            f"runs: expected one run for each agent and seed, got two of {agent} with seed {seed}; choose one of them."
        )
    return outcomes


def compare_agents(
    outcomes: pd.DataFrame,
    metrics: Sequence[str],
    *,
    reference_ratio: float = 1.0,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compares agents with full exposure and with the best fixed ratio, paired by seed.

    The best fixed ratio is chosen anew for each seed, by the mean over the *other* seeds: chosen by all of them, it would
    profit from the noise of the very seeds that it is judged on.

    Args:
        outcomes: What ``final_outcomes`` returns.
        metrics: Metrics in it.
        reference_ratio: The fixed ratio that all are compared with; 1 is full exposure (OPSD).
        num_resamples: Bootstrap resamples.
        seed: Seed of the bootstrap's random numbers.

    Returns:
        One line for each metric and agent, best mean first. Columns: metric, higher_is_better, agent, num_seeds,
        num_broken; ``mean``, ``low``, ``high`` (interval); ``reference`` (the agent that holds ``reference_ratio``, or
        null), ``num_pairs``, ``to_reference``, ``to_reference_low``, ``to_reference_high``: the mean difference, agent
        minus reference; ``best_fixed`` (the chosen ones and for how many seeds, or null), ``num_best_pairs``,
        ``to_best_fixed``, ``to_best_fixed_low``, ``to_best_fixed_high``; and means over runs of num_updates, num_tokens,
        num_trained_tokens, controller_sec and run_sec. NaN where nothing can be said.
    """
    costs = outcomes.groupby("agent")[[*COSTS]].mean()
    num_broken = outcomes.groupby("agent")["is_broken"].sum()
    lines: list[dict[str, Any]] = []
    for metric in metrics:
        higher_is_better = METRICS[metric]
        table = outcomes.pivot(index="seed", columns="agent", values=metric)
        references = [agent for agent in table.columns.astype(str) if fixed_ratio(agent) == reference_ratio]
        # What a seed lacks (a choice, an agent's run, the reference) is NaN and drops out of the pairs.
        reference = table[references[0]] if references else pd.Series(math.nan, index=table.index)
        chosen = best_fixed_by_seed(table, higher_is_better=higher_is_better)
        best = pd.Series(
            [row[agent] if agent else math.nan for (_, row), agent in zip(table.iterrows(), chosen, strict=True)],
            index=table.index,
            dtype=float,
        )
        for agent in table.mean().sort_values(ascending=not higher_is_better).index:
            values = table[agent]
            line: dict[str, Any] = {
                "metric": metric,
                "higher_is_better": higher_is_better,
                "agent": agent,
                "num_seeds": int(values.count()),
                "num_broken": int(num_broken[agent]),
            }
            line["mean"], line["low"], line["high"] = mean_interval(values, num_resamples=num_resamples, seed=seed)
            for name, count, label, other in (
                ("reference", "num_pairs", references[0] if references else None, reference),
                ("best_fixed", "num_best_pairs", _counted(chosen), best),
            ):
                difference = values - other
                line[name], line[count] = label, int(difference.count())
                line[f"to_{name}"], line[f"to_{name}_low"], line[f"to_{name}_high"] = mean_interval(
                    difference, num_resamples=num_resamples, seed=seed
                )
            lines.append({**line, **costs.loc[agent].to_dict()})
    return pd.DataFrame(lines)


def best_fixed_by_seed(table: pd.DataFrame, *, higher_is_better: bool) -> pd.Series[Any]:
    """Returns for each seed the fixed ratio's agent with the best mean over the other seeds; None where there is none.

    With a single fixed ratio there is nothing to choose, and with several one seed alone cannot choose.

    Args:
        table: Outcomes, a line for each seed and a column for each agent.
        higher_is_better: Of the outcomes.
    """
    fixed = table[[agent for agent in table.columns.astype(str) if fixed_ratio(agent) is not None]]
    chosen: list[str | None] = []
    for seed in table.index:
        others = fixed.drop(index=seed).mean().dropna()
        if len(fixed.columns) == 1:
            chosen.append(str(fixed.columns[0]))
        elif others.empty:
            chosen.append(None)
        else:
            chosen.append(str(others.idxmax() if higher_is_better else others.idxmin()))
    return pd.Series(chosen, index=table.index, dtype=object)


def mean_interval(
    values: pd.Series[Any] | NDArray[np.float64] | Sequence[float], *, num_resamples: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Returns the mean of the numbers that are there, and its bootstrap interval (NaN for fewer than two).

    >>> mean_interval([2.0, 2.0, float("nan")])
    (2.0, 2.0, 2.0)
    """
    sample = np.asarray(values, dtype=np.float64)
    sample = sample[~np.isnan(sample)]
    if len(sample) < 2:
        return (float(sample[0]) if len(sample) else math.nan), math.nan, math.nan
    interval = bootstrap(
        (sample,),
        np.mean,
        n_resamples=num_resamples,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(sample.mean()), float(interval.low), float(interval.high)


def _counted(chosen: pd.Series[Any]) -> str | None:
    """Returns which agents were chosen how often, such as "fixed:0.5 (3), fixed:0 (1)", the most frequent first."""
    counts = chosen.dropna().value_counts()
    if len(counts) == 1:
        return str(counts.index[0])
    return ", ".join(f"{agent} ({count})" for agent, count in counts.items()) or None
