"""Agents against each other: frames of one line for each run in, frames of one line for each agent out.

The frames that go in are those of ``final_outcomes``, ``area_under_curve``, ``time_to_threshold`` or your own: columns
``agent``, ``seed``, and any number of measures. Runs with one seed met the same problems and random numbers, so that
differences are taken seed by seed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analysis.checks import require_columns, require_one_environment
from analysis.errors import AnalysisError
from analysis.intervals import (
    CONFIDENCE,
    NUM_RESAMPLES,
    bootstrap_interval,
    improvement_interval,
    interquartile_mean,
    num_seeds_for,
    probability_of_improvement,
)


def agent_means(
    outcomes: pd.DataFrame,
    measure: str,
    *,
    confidence: float = CONFIDENCE,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Returns each agent's mean and interquartile mean over its runs, with bootstrap intervals.

    Args:
        outcomes: One line for each run, with the columns agent, seed and ``measure``; NaN is left out.
        measure: Column to sum up.
        confidence: Confidence level.
        num_resamples: Bootstrap resamples.
        seed: Seed of the resampling.

    Returns:
        Columns agent, measure, num_seeds, mean, low, high, iqm, iqm_low, iqm_high; sorted by agent. Intervals of fewer than
        two runs are NaN.
    """
    table = _table(outcomes, measure)
    lines = []
    for agent in table.columns:
        values = table[agent].dropna().to_numpy(dtype=np.float64)
        lines.append(
            {
                "agent": agent,
                "measure": measure,
                "num_seeds": len(values),
                **_summed_up(values, confidence=confidence, num_resamples=num_resamples, seed=seed),
            }
        )
    return pd.DataFrame(lines)


def paired_differences(
    outcomes: pd.DataFrame,
    measure: str,
    reference: str,
    *,
    higher_is_better: bool = True,
    effect: float | None = None,
    power: float = 0.8,
    confidence: float = CONFIDENCE,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Returns how each agent differs from a reference agent, seed by seed.

    Args:
        outcomes: One line for each run, with the columns agent, seed and ``measure``; NaN is left out.
        measure: Column to compare.
        reference: Agent that the others are compared with, such as "fixed:1".
        higher_is_better: Of the measure.
        effect: Difference that one would not want to miss; None takes the one observed.
        power: Probability with which ``num_seeds_needed`` seeds find it.
        confidence: Confidence level.
        num_resamples: Bootstrap resamples.
        seed: Seed of the resampling.

    Returns:
        One line for each other agent, the best mean difference first. Columns: agent, reference, measure, higher_is_better,
        num_pairs; ``mean``, ``low``, ``high`` and ``iqm``, ``iqm_low``, ``iqm_high`` of the differences (agent minus
        reference); ``deviation`` (their standard deviation, n - 1); ``improvement``, ``improvement_low``,
        ``improvement_high`` (``probability_of_improvement`` over all pairs of runs, not only of one seed); and
        ``num_seeds_needed`` (Int64): seeds with which a paired t-test finds ``effect`` with ``power``, if the differences
        deviate as observed; null where that cannot be said. The observed effect is a noisy guess: a needed number made of it is
        one too.

    Raises:
        AnalysisError: If the reference has no run, or an agent has two runs with one seed.
    """
    table = _table(outcomes, measure)
    if reference not in table:
        raise AnalysisError(
            f"reference: expected one of {', '.join(table.columns)}, got {reference!r}; "
            "choose an agent that the frame has."
        )
    settings: dict[str, Any] = {"confidence": confidence, "num_resamples": num_resamples, "seed": seed}
    lines = []
    for agent in table.columns.drop(reference):
        difference = (table[agent] - table[reference]).dropna().to_numpy(dtype=np.float64)
        ours, theirs = (table[name].dropna().to_numpy(dtype=np.float64) for name in (agent, reference))
        better = probability_of_improvement(ours, theirs, higher_is_better=higher_is_better)
        low, high = improvement_interval(ours, theirs, higher_is_better=higher_is_better, **settings)
        deviation = float(difference.std(ddof=1)) if len(difference) > 1 else math.nan
        lines.append(
            {
                "agent": agent,
                "reference": reference,
                "measure": measure,
                "higher_is_better": higher_is_better,
                "num_pairs": len(difference),
                **_summed_up(difference, **settings),
                "deviation": deviation,
                "improvement": better,
                "improvement_low": low,
                "improvement_high": high,
                "num_seeds_needed": _seeds_needed(difference, deviation, effect, power, confidence),
            }
        )
    if not lines:
        raise AnalysisError(f"outcomes: expected another agent beside {reference!r}, got none; add its runs.")
    frame = pd.DataFrame(lines).astype({"num_seeds_needed": "Int64"})
    return frame.sort_values("mean", ascending=not higher_is_better, ignore_index=True, kind="stable")


def _seeds_needed(
    difference: np.ndarray, deviation: float, effect: float | None, power: float, confidence: float
) -> int | None:
    if effect is not None:
        return None if math.isnan(deviation) else num_seeds_for(effect, deviation, power=power, confidence=confidence)
    if math.isnan(deviation) or difference.mean() == 0:
        return None
    try:
        return num_seeds_for(float(difference.mean()), deviation, power=power, confidence=confidence)
    except AnalysisError:
        return None  # no effect to speak of


def _summed_up(values: np.ndarray, *, confidence: float, num_resamples: int, seed: int) -> dict[str, float]:
    if not len(values):
        return dict.fromkeys(("mean", "low", "high", "iqm", "iqm_low", "iqm_high"), math.nan)
    numbers: dict[str, float] = {}
    for name, prefix, statistic in (("mean", "", np.mean), ("iqm", "iqm_", interquartile_mean)):
        low, high = bootstrap_interval(values, statistic, confidence=confidence, num_resamples=num_resamples, seed=seed)
        numbers |= {name: float(statistic(values, axis=0)), f"{prefix}low": float(low), f"{prefix}high": float(high)}
    return numbers


def _table(outcomes: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Returns the measure with a line for each seed and a column for each agent."""
    require_columns(outcomes, ("agent", "seed", measure), "one line for each run, such as final_outcomes returns")
    require_one_environment(outcomes)
    runs = outcomes[["agent", "seed", measure]].astype({"agent": str, measure: float})
    twice = runs[runs.duplicated(["agent", "seed"])]
    if not twice.empty:
        agent, seed = twice.iloc[0][["agent", "seed"]]
        raise AnalysisError(
            f"outcomes: expected one run for each agent and seed, got two of {agent} with seed {seed}; choose one of them."
        )
    return runs.pivot(index="seed", columns="agent", values=measure)
