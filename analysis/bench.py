"""What agents reached on the instances of a bench, and how they compare over all of them (after rliable, arXiv 2108.13264).

Agents are compared on the seeds of an instance that all of them have. In means an instance counts as much as any other, however
many seeds it has. Intervals are those of ``analysis.stratified``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.checks import require_columns, require_texts, with_numbers
from analysis.curves import area_under_curve
from analysis.errors import AnalysisError
from analysis.intervals import (
    CONFIDENCE,
    interquartile_mean,
    mean_interval,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)
from analysis.metrics import HIGHER_IS_BETTER, bounds, known_metrics
from analysis.paired import shared_seeds
from analysis.statistics import COSTS, final_outcomes
from analysis.stratified import stratified_iqm_interval, stratified_mean_interval

AREA = "area/probe/nll"
"""Measure of a run: mean probe NLL over its windows."""
MEASURES = ("probe/accuracy", "probe/nll", AREA)
"""What a run of the bench is measured by."""
BRANCHES = ("branch_updates", "branch_tokens")
"""What a run spent on branches, as its agent tells (``agent/branch_updates``, ``agent/branch_tokens``); 0 where it tells nothing."""
SCORING = ("sampled_tokens", "scored_tokens")
"""What it spent on the teacher's scores before its windows, as its agent tells (``agent/sampled_tokens``, ``agent/scored_tokens``)."""
GAIN = "gain"
"""Normalised probe accuracy of a run: 0 is ``fixed:1`` (OPSD), 1 the oracle."""
LEAST_RANGE = 0.05
"""Least accuracy by which the oracle must be above ``fixed:1`` for a gain to mean anything; below, an instance has none."""

_COSTS = (*COSTS, *BRANCHES, *SCORING)


def bench_outcomes(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns one line for each run of the bench: what it came to after its last window, and what it cost.

    Args:
        frame: Rows of runs, as ``load_runs`` returns them, with the column instance.

    Returns:
        Columns instance, agent, seed, is_broken, ``MEASURES`` (NaN where not measured), ``COSTS`` of ``final_outcomes`` and
        ``BRANCHES`` and ``SCORING``; sorted by instance, agent, seed.

    Raises:
        AnalysisError: If the runs are none of the bench, those of an instance differ in their configurations, or an agent has two
            runs of an instance at one seed.
    """
    require_columns(frame, ("instance", "probe/nll"), "rows of runs of the bench, as load_runs returns them")
    require_texts(frame, [name for name in ("instance", "agent", "env_id") if name in frame])
    frame = with_numbers(frame, [name for name in ("window", "update", "seed") if name in frame])
    parts = [_of_instance(str(name), rows) for name, rows in frame.groupby("instance", sort=True)]
    return pd.concat(parts, ignore_index=True)


def _of_instance(instance: str, rows: pd.DataFrame) -> pd.DataFrame:
    measured = [name for name in MEASURES[:2] if name in rows and rows[name].notna().any()]
    outcomes = final_outcomes(rows, measured).set_index("run")
    outcomes[AREA] = area_under_curve(rows).set_index("run")["area"]
    runs = rows.groupby("run", observed=True)
    # The student's own, and beside them what was tried on branches and taken back, or asked before a window.
    outcomes["num_updates"], outcomes["num_tokens"] = runs["update"].max(), runs["rollout/num_tokens"].sum()
    for name in (*BRANCHES, *SCORING):
        outcomes[name] = runs[f"agent/{name}"].sum() if f"agent/{name}" in rows else 0.0
    outcomes.insert(0, "instance", instance)
    names = ["instance", "agent", "seed", "is_broken", *MEASURES, *_COSTS]
    return outcomes.reset_index(drop=True).reindex(columns=names)


def at_equal_compute(frame: pd.DataFrame, budget: float = 1.0) -> pd.DataFrame:
    """Returns the outcomes of runs that were stopped when their updates, those on branches included, had used up a budget.

    The measures are those of the last window within it; costs are the whole run's. A run that has nothing to show within the budget
    counts as the worst on its instance.

    Args:
        frame: As for ``bench_outcomes``.
        budget: As a multiple of the updates of the instance's longest run; infinity is ``bench_outcomes``.

    Raises:
        AnalysisError: As ``bench_outcomes``; or if the budget is not above 0.
    """
    if not budget > 0:
        raise AnalysisError(
            f"budget: expected a number above 0, got {budget!r}; 1 is the updates of a run without branches."
        )
    outcomes, key = bench_outcomes(frame), ["instance", "agent", "seed"]
    rows = frame.sort_values(["run", "window"])
    spent = rows["update"].astype(float)
    if "agent/branch_updates" in rows:
        spent = spent + rows["agent/branch_updates"].fillna(0.0).groupby(rows["run"]).cumsum()
    within = rows[spent <= budget * rows.groupby("instance")["update"].transform("max")]
    if within.empty:
        raise AnalysisError(f"budget: expected one that a run has a window in, got {budget!r}; raise it.")
    reached = bench_outcomes(within).set_index(key)[[*MEASURES]].reindex(pd.MultiIndex.from_frame(outcomes[key]))
    for measure in MEASURES:
        worst = reached[measure].groupby("instance").transform("min" if _is_higher_better(measure) else "max")
        outcomes[measure] = reached[measure].fillna(worst).to_numpy()
    return outcomes


def with_gains(outcomes: pd.DataFrame, references: pd.DataFrame | None = None) -> pd.DataFrame:
    """Returns outcomes with the column ``GAIN``: 0 is the accuracy of ``fixed:1`` on the instance, 1 that of the oracle.

    Both are means: of the references where they have them, else of the runs themselves. NaN where one of them is not known, or the
    oracle is less than ``LEAST_RANGE`` above.

    Args:
        outcomes: What ``bench_outcomes`` returns; left as it is.
        references: Lines of known controllers with the columns instance, agent, metric, mean; or None.
    """
    outcomes = _checked(outcomes, MEASURES[:1])
    known = outcomes.groupby(["instance", "agent"])[MEASURES[0]].mean()
    if references is not None:
        lines = references[references["metric"] == MEASURES[0]]
        known = pd.concat([known, lines.set_index(["instance", "agent"])["mean"]])
        known = known[~known.index.duplicated(keep="last")]
    by_agent = known.unstack("agent").reindex(columns=["fixed:1", "oracle"])
    lowest, highest = (outcomes["instance"].map(by_agent[agent]).astype(float) for agent in by_agent)
    span = (highest - lowest).where(highest - lowest >= LEAST_RANGE)
    return outcomes.assign(**{GAIN: (outcomes[MEASURES[0]] - lowest) / span})


def by_instance(outcomes: pd.DataFrame, *, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Returns the mean of each agent on each instance, a line for each measure.

    Args:
        outcomes: What ``with_gains`` (or ``bench_outcomes``) returns.
        confidence: Of the t intervals over seeds.

    Returns:
        Columns instance, agent, measure, mean, low, high, num_seeds.
    """
    measures, lines = [name for name in (*MEASURES, GAIN) if name in outcomes], []
    for (instance, agent), runs in _checked(outcomes, measures).groupby(["instance", "agent"], sort=True):
        for measure in measures:
            values = runs[measure].dropna().to_numpy(dtype=np.float64)
            interval = np.clip(mean_interval(values, confidence=confidence), *_reach(measure, values))
            lines.append((instance, agent, measure, *map(float, interval), len(values)))
    return pd.DataFrame(lines, columns=["instance", "agent", "measure", "mean", "low", "high", "num_seeds"])


def score_agents(outcomes: pd.DataFrame, measure: str, *, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Returns what each agent reached over all instances, the best first.

    Args:
        outcomes: What ``with_gains`` (or ``bench_outcomes``) returns.
        measure: Which column: ``GAIN`` or one of ``MEASURES``.
        confidence: Of the intervals.

    Returns:
        One line for each agent: agent, measure, num_instances and num_runs (compared, on the seeds that all agents have),
        ``left_out`` (instances with the seeds that some agent lacks, as text), num_broken (of all runs); ``mean``,
        ``low``, ``high`` (over instances); ``iqm``, ``iqm_low``, ``iqm_high`` (interquartile mean over runs); the ends are NaN where
        an instance has a single run; for the gain
        ``optimality_gap`` (how far runs fall short of 1), else NaN; and costs, means over all runs.

    Raises:
        AnalysisError: If the measure is unknown, an agent lacks an instance that another one has (their means would be of other
            things), or all share no seed of one.
    """
    is_higher_better = _is_higher_better(measure)
    outcomes = _checked(outcomes, (measure, "is_broken", *_COSTS))
    strata, left_out = _strata(outcomes, measure)
    lines = []
    for agent, samples in strata.items():
        whole = np.concatenate(samples)
        reach = _reach(measure, whole)
        low, high = np.clip(stratified_mean_interval(samples, confidence=confidence), *reach)
        iqm_low, iqm_high = np.clip(stratified_iqm_interval(samples, confidence=confidence), *reach)
        gap = optimality_gap(whole, 1.0, higher_is_better=True) if measure == GAIN else math.nan
        mine = outcomes[outcomes["agent"] == agent]
        lines.append(
            {
                "agent": agent,
                "measure": measure,
                "num_instances": len(samples),
                "num_runs": len(whole),
                "left_out": left_out,
                "num_broken": int(mine["is_broken"].sum()),
                "mean": float(np.mean([sample.mean() for sample in samples])),
                "low": float(low),
                "high": float(high),
                "iqm": float(interquartile_mean(whole)),
                "iqm_low": float(iqm_low),
                "iqm_high": float(iqm_high),
                "optimality_gap": gap,
                **{name: float(mine[name].mean()) for name in _COSTS},
            }
        )
    return pd.DataFrame(lines).sort_values("mean", ascending=not is_higher_better, ignore_index=True, kind="stable")


def improvements(outcomes: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Returns how likely a run of one agent beats a run of another on the same instance, mean over instances: [agent x other].

    Of the runs that ``score_agents`` compares; arguments and errors are its own.
    """
    better = {"higher_is_better": _is_higher_better(measure)}
    strata, _ = _strata(outcomes, measure)
    table = {
        other: [
            float(np.mean([probability_of_improvement(a, b, **better) for a, b in zip(ours, theirs, strict=True)]))
            for ours in strata.values()
        ]
        for other, theirs in strata.items()
    }
    return pd.DataFrame(table, index=pd.Index(list(strata), name="agent"))


def profiles(outcomes: pd.DataFrame, measure: str, thresholds: Sequence[float]) -> pd.DataFrame:
    """Returns the share of each agent's runs beyond each threshold: columns agent, measure, threshold, share.

    Of the runs that ``score_agents`` compares; arguments and errors are its own.
    """
    better = {"higher_is_better": _is_higher_better(measure)}
    lines = [
        (agent, measure, float(threshold), float(share))
        for agent, samples in _strata(outcomes, measure)[0].items()
        for threshold, share in zip(
            thresholds, performance_profile(np.concatenate(samples), thresholds, **better), strict=True
        )
    ]
    return pd.DataFrame(lines, columns=["agent", "measure", "threshold", "share"])


def _checked(outcomes: pd.DataFrame, numbers: Iterable[str]) -> pd.DataFrame:
    """Returns outcomes with these columns as numbers, instances and agents being texts."""
    require_columns(outcomes, ("instance", "agent", *numbers), "what bench_outcomes returns")
    require_texts(outcomes, ("instance", "agent"))
    return with_numbers(outcomes, numbers)


def _is_higher_better(measure: str) -> bool:
    known_metrics(measure, (GAIN, *MEASURES), argument="measure")
    return measure == GAIN or HIGHER_IS_BETTER[measure.removeprefix("area/")]


def _reach(measure: str, values: NDArray[np.float64]) -> tuple[float, float]:
    """Returns between which ends an interval is cut: only an accuracy is a share."""
    return bounds(measure, values) if measure == MEASURES[0] else (-math.inf, math.inf)


def _strata(outcomes: pd.DataFrame, measure: str) -> tuple[dict[str, list[NDArray[np.float64]]], str]:
    """Returns each agent's samples, one for each instance that has the measure, in the same order for all, and what is left out.

    The samples of an instance are of the seeds that all agents have there; the other seeds are told as text.
    """
    there = _checked(outcomes, (measure,)).dropna(subset=measure)
    if there.empty:
        raise AnalysisError(f"measure: expected {measure} in the outcomes, got only nulls; choose another measure.")
    shared = {str(name): shared_seeds(part, measure) for name, part in there.groupby("instance", sort=True)}
    agents = sorted(there["agent"].unique())
    for agent in agents:
        missing = [name for name, seeds in shared.items() if agent not in seeds.table]
        if missing:
            raise AnalysisError(
                f"outcomes: expected runs of all agents on all instances, got none of {agent} on {', '.join(missing)}; make them, or "
                "leave the agent out."
            )
    for name, seeds in shared.items():
        if seeds.table.empty:
            raise AnalysisError(
                f"outcomes: expected a seed that all agents have on {name}, got none; make runs with the same seeds, or leave an "
                "agent out."
            )
    strata = {agent: [seeds.table[agent].to_numpy() for seeds in shared.values()] for agent in agents}
    left_out = (f"{name}: {', '.join(map(str, seeds.left_out))}" for name, seeds in shared.items() if seeds.left_out)
    return strata, "; ".join(left_out)
