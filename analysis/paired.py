"""Agents against each other: frames of one line for each run in, frames of one line for each agent out.

The frames that go in are those of ``final_outcomes``, ``area_under_curve``, ``time_to_threshold`` or your own: columns
``agent``, ``seed``, and any number of measures. Runs with one seed met the same problems and random numbers, so that
differences are taken seed by seed, on the seeds that all agents have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.checks import nearest, require_columns, require_finite, require_one_environment, require_seeds
from analysis.contrasts import to_reference
from analysis.errors import AnalysisError
from analysis.intervals import (
    CONFIDENCE,
    improvement_interval,
    interquartile_interval,
    interquartile_mean,
    mean_interval,
    num_seeds_for,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    require_confidence,
)
from analysis.metrics import bounds, difference_bounds, direction


@dataclass(frozen=True)
class SharedSeeds:
    """A measure on the seeds that all agents have.

    Attributes:
        table: A line for each shared seed, a column for each agent, both sorted; no NaN.
        left_out: Each other seed, with the agents that lack it.
    """

    table: pd.DataFrame
    left_out: dict[Any, tuple[str, ...]]

    def remarks(self) -> list[str]:
        """Returns a sentence about what was left out, or none."""
        if not self.left_out:
            return []
        lacking = sorted({agent for agents in self.left_out.values() for agent in agents})
        seeds = ", ".join(map(str, self.left_out))
        return [
            f"Compared on the {counted(len(self.table), 'seed')} that all agents have; left out: seed"
            f"{'s' if len(self.left_out) > 1 else ''} {seeds} (not there for {', '.join(lacking)})."
        ]


def shared_seeds(outcomes: pd.DataFrame, measure: str) -> SharedSeeds:
    """Returns a measure as seeds x agents, on the seeds that all agents have.

    Args:
        outcomes: One line for each run, with the columns agent, seed and ``measure``; NaN counts as no run.
        measure: Column to compare.

    Raises:
        AnalysisError: If a column is missing, an outcome is not finite, environments or configurations are mixed, an agent has
            two runs with one seed, the runs span different windows, or some never reached what "window" is the time of.
    """
    table = outcome_table(outcomes, measure)
    is_there = table.notna()
    is_shared = is_there.all(axis=1)
    left_out = {
        seed: tuple(str(agent) for agent in table.columns[~is_there.loc[seed]]) for seed in table.index[~is_shared]
    }
    return SharedSeeds(table[is_shared], left_out)


def outcome_table(outcomes: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Returns a measure with a line for each seed and a column for each agent, NaN where there is no run.

    Arguments and errors: as in ``shared_seeds``.
    """
    require_columns(outcomes, ("agent", "seed", measure), "one line for each run, such as final_outcomes returns")
    require_one_environment(outcomes.drop(columns="run", errors="ignore"))  # each line is a run
    require_seeds(outcomes)
    require_finite(outcomes, [measure])
    runs = outcomes[["agent", "seed", measure]].astype({"agent": str, measure: float})
    for name in ("first_window", "last_window") if measure == "area" else ():
        if name in outcomes and outcomes[name].nunique() > 1:
            spans = ", ".join(map(str, sorted(outcomes[name].unique())))
            raise AnalysisError(
                f"outcomes: expected areas over the same windows, got {name.replace('_', ' ')}s {spans}; leave out runs that "
                "are not finished, or cut all rows to the shortest run's windows."
            )
    if measure == "window" and outcomes[measure].isna().any():
        raise AnalysisError(
            f"outcomes: expected runs that all reached the threshold, got {counted(int(outcomes[measure].isna().sum()), 'run')} that "
            "did not, and to leave out their seeds would be in favour of their agents; compare is_reached, or take another threshold."
        )
    return runs.pivot(index="seed", columns="agent", values=measure).dropna(how="all")


def agent_means(outcomes: pd.DataFrame, measure: str, *, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Returns each agent's mean and interquartile mean over its runs, with t intervals.

    These are intervals of one agent each, over all of its seeds: to tell agents apart, use ``paired_differences``.

    Args:
        outcomes: One line for each run, with the columns agent, seed and ``measure``; NaN is left out.
        measure: Column to sum up.
        confidence: Confidence level.

    Returns:
        Columns agent, measure, num_seeds, mean, low, high, iqm, iqm_low, iqm_high; sorted by agent. Intervals of fewer than
        two runs are NaN.
    """
    table = outcome_table(outcomes, measure)
    lines = []
    for agent in table.columns:
        values = table[agent].dropna().to_numpy(dtype=np.float64)
        line = {"agent": agent, "measure": measure, "num_seeds": len(values)}
        reach = bounds(measure, values, outcomes)
        lines.append({**line, **_summed_up(values, reach, confidence=confidence)})
    return pd.DataFrame(lines)


def paired_differences(
    outcomes: pd.DataFrame,
    measure: str,
    reference: str,
    *,
    higher_is_better: bool | None = None,
    effect: float | None = None,
    power: float = 0.8,
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """Returns how each agent differs from a reference agent, seed by seed, on the seeds that all agents have.

    Args:
        outcomes: One line for each run, with the columns agent, seed and ``measure``; NaN is left out.
        measure: Column to compare.
        reference: Agent that the others are compared with, such as "fixed:1".
        higher_is_better: Of a measure that ``analysis.metrics`` does not know.
        effect: Difference that one would not want to miss; None takes the one observed.
        power: Probability with which ``num_seeds_needed`` seeds find it.
        confidence: Confidence level of all intervals together.

    Returns:
        One line for each other agent, the best mean difference first. Columns: agent, reference, measure, higher_is_better,
        num_pairs; ``mean``, ``low``, ``high``, ``p_value`` (adjusted: they hold for all agents of the table at once,
        ``analysis.contrasts``) and ``iqm``, ``iqm_low``, ``iqm_high`` (not adjusted) of the differences, agent minus reference;
        ``deviation`` (their standard deviation, n - 1); ``improvement``, ``improvement_low``, ``improvement_high``
        (``probability_of_improvement`` over all pairs of runs, not only of one seed,
        not adjusted); ``num_seeds_needed`` (Int64): seeds with which a paired t-test finds ``effect`` with ``power``, if the
        differences deviate as observed; null where that cannot be said (an observed effect is a noisy guess: a needed number
        made of it is one too); and ``left_out``, the seeds that some agent lacks, as text.

    Raises:
        AnalysisError: If the direction is unknown or contradicted, the reference has no run, the agents share no seed, or the
            frame cannot be compared (``shared_seeds``).
    """
    require_confidence(confidence)
    shared = shared_seeds(outcomes, measure)
    is_higher_better = direction(measure, outcomes=outcomes, higher_is_better=higher_is_better)
    agents, values = _comparable(shared, reference), shared.table.to_numpy(dtype=np.float64)
    place = agents.index(reference)
    theirs = values[:, place]
    contrast = to_reference(values, place, confidence=confidence)
    reach = difference_bounds(measure, values, outcomes)
    common = {"reference": reference, "measure": measure, "higher_is_better": is_higher_better}
    lines = []
    for other in np.delete(np.arange(len(agents)), place).tolist():
        ours = values[:, other]
        low, high = np.clip((contrast.low[other], contrast.high[other]), *reach).tolist()
        deviation = float((ours - theirs).std(ddof=1)) if len(ours) > 1 else math.nan
        lines.append(
            {"agent": agents[other], **common, "num_pairs": len(ours)}
            | _summed_up(ours - theirs, reach, confidence=confidence)
            | {"low": low, "high": high, "p_value": float(contrast.p_value[other]), "deviation": deviation}
            | _improvement(ours, theirs, is_higher_better, confidence)
            | {"num_seeds_needed": _seeds_needed(ours - theirs, deviation, effect, power, confidence)}
        )
    frame = pd.DataFrame(lines).assign(left_out=", ".join(map(str, shared.left_out)))
    frame["num_seeds_needed"] = frame["num_seeds_needed"].astype("Int64")
    return frame.sort_values("mean", ascending=not is_higher_better, ignore_index=True, kind="stable")


def _improvement(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], is_higher_better: bool, confidence: float
) -> dict[str, float]:
    """Returns the probability of improvement with its interval, as columns."""
    low, high = improvement_interval(ours, theirs, confidence=confidence, higher_is_better=is_higher_better)
    value = probability_of_improvement(ours, theirs, higher_is_better=is_higher_better)
    return {"improvement": value, "improvement_low": low, "improvement_high": high}


def _comparable(shared: SharedSeeds, reference: str) -> list[str]:
    """Returns the agents, in the order of the table's columns.

    Raises:
        AnalysisError: If the reference is not among them, no other is, or they share no seed.
    """
    agents = [str(agent) for agent in shared.table.columns]
    if reference not in agents:
        raise AnalysisError(
            f"reference: expected one of {', '.join(agents)}, got {reference!r}"
            f"{nearest(reference, agents, ' ({})')}; choose an agent that the frame has."
        )
    if len(agents) == 1:
        raise AnalysisError(f"outcomes: expected another agent beside {reference!r}, got none; add its runs.")
    if shared.table.empty:
        raise AnalysisError(
            f"outcomes: expected a seed that all of {', '.join(agents)} have, got none; leave an agent out, or add runs."
        )
    return agents


def performance_profiles(
    outcomes: pd.DataFrame, measure: str, thresholds: float | Sequence[float], *, higher_is_better: bool | None = None
) -> pd.DataFrame:
    """Returns the share of each agent's runs that are beyond thresholds, and how far they fall short of each on average.

    Args:
        outcomes: One line for each run, with the columns agent, seed and ``measure``; NaN is left out.
        measure: Column to look at.
        thresholds: Where to look, one or several.
        higher_is_better: Of a measure that ``analysis.metrics`` does not know.

    Returns:
        One line for each agent and threshold: agent, measure, threshold, ``share`` in [0, 1] (``performance_profile``), ``gap``
        (``optimality_gap``, in the measure's unit), num_seeds. Shares of few runs are coarse: read differences between agents
        off ``paired_differences``.
    """
    table = outcome_table(outcomes, measure)
    better = {"higher_is_better": direction(measure, outcomes=outcomes, higher_is_better=higher_is_better)}
    lines = []
    for agent in table.columns:
        values = table[agent].dropna().to_numpy(dtype=np.float64)
        places = np.atleast_1d(np.asarray(thresholds, dtype=np.float64))
        for threshold, share in zip(places, performance_profile(values, places, **better), strict=True):
            gap = optimality_gap(values, threshold, **better)
            lines.append((agent, measure, float(threshold), float(share), gap, len(values)))
    return pd.DataFrame(lines, columns=["agent", "measure", "threshold", "share", "gap", "num_seeds"])


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun, such as "1 seed" or "3 seeds"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


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


def _summed_up(values: np.ndarray, reach: tuple[float, float], *, confidence: float) -> dict[str, float]:
    """Returns the means with their intervals, which are cut where the measure ends."""
    names = ("mean", "low", "high", "iqm", "iqm_low", "iqm_high")
    if not len(values):
        return dict.fromkeys(names, math.nan)
    numbers = [*mean_interval(values, confidence=confidence), float(interquartile_mean(values))]
    numbers += interquartile_interval(values, confidence=confidence)
    return {name: float(number) for name, number in zip(names, np.clip(numbers, *reach), strict=True)}
