"""The verdict of a folder of runs in words: who is better, by how much, and how sure that is.

The rule is fixed before the numbers are seen. Agents are compared by the probe's accuracy after the last window where
all finished runs measured it and it tells any two of them apart, otherwise by the probe's NLL, and where that lacks
too by the return. Differences are taken seed by seed, on the seeds that all agents have; their 95% intervals hold for all
agents at once and allow for the best having been found on these seeds. It says what ``compare_agents`` says, in words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.checks import require_columns
from analysis.contrasts import ROUNDING
from analysis.errors import AnalysisError
from analysis.metrics import METRICS
from analysis.paired import counted, outcome_table, shared_seeds
from analysis.statistics import compare_agents, final_outcomes

LEAST_SEEDS = 6
"""Shared seeds below which no winner is named.

A coin decides 5 seeds alike in 1 of 16 cases: with fewer than 6, even an agent that is better on every seed may be so by chance
in more than 5% of cases, and what the interval says beyond that rests on the outcomes being normal.
"""

_CANDIDATES = ("probe/accuracy", "probe/nll", "return")
_NAMES = {"probe/accuracy": "probe accuracy", "probe/nll": "probe NLL", "return": "return"}
_UNITS = {"probe/nll": " nats/token"}
_REQUIRED = ("run", "env_id", "agent", "seed", "window", "status", "update", "rollout/num_tokens", "reward/total")


@dataclass(frozen=True)
class Standing:
    """What one agent came to.

    Attributes:
        agent: Its spec.
        num_seeds: Shared seeds that it is compared on.
        num_broken: Finished runs whose student broke.
        result: Mean over shared seeds with its interval, as text.
        difference: Mean difference to the best agent with its interval, as text; empty for the best.
        wins: On how many shared seeds the best agent was better, as text; empty for the best.
        costs: What a run cost, means as text: updates, tokens sampled, tokens trained on, seconds.
    """

    agent: str
    num_seeds: int
    num_broken: int
    result: str
    difference: str
    wins: str
    costs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What the runs say.

    Attributes:
        sentence: Who is better and by how much.
        certainty: How sure that is.
        metric: What was compared, with its direction; empty where nothing was.
        standings: The agents, best first.
        remarks: What was left out, and why; what to keep in mind.
    """

    sentence: str
    certainty: str
    metric: str
    standings: tuple[Standing, ...]
    remarks: tuple[str, ...]


def judge(frame: pd.DataFrame) -> Verdict:
    """Returns the verdict on runs that can be compared.

    Args:
        frame: Rows of runs of one environment with one configuration, as ``load_runs`` returns them.

    Returns:
        The verdict. Where nothing can be said (no run is finished, a seed of an agent has two runs), its sentence says so.
    """
    missing = [name for name in _REQUIRED if name not in frame]
    if missing:
        return _nothing(f"No verdict: the runs lack the columns {', '.join(missing)}.")
    finished, remarks = _finished_runs(frame)
    if finished.empty:
        is_unseeded = not frame.empty and bool(frame["seed"].isna().any())
        reason = "no finished run has a seed to pair by" if is_unseeded else "no run is finished"
        return _nothing(f"No verdict yet: {reason}.", remarks)
    try:
        outcomes, metric = _judged(finished)
    except AnalysisError as error:
        return _nothing(f"No verdict: {error}", remarks)
    num_broken = int(outcomes["is_broken"].sum())
    if num_broken:
        counts = "its return ends there" if metric == "return" else "what counts is its worst measurement"
        remarks.append(f"In {counted(num_broken, 'run')} the student broke; {counts}.")
    return _compared(outcomes, metric, remarks)


def judged_outcomes(frame: pd.DataFrame, further: Sequence[str] = ()) -> tuple[pd.DataFrame, str]:
    """Returns what the verdict is about: the outcomes of finished runs with a seed, and the metric that they are judged by.

    Args:
        frame: As for ``judge``.
        further: Metrics that the outcomes shall have too.

    Raises:
        AnalysisError: If there is no such run, a column is missing, or a seed of an agent has two runs.
    """
    require_columns(frame, _REQUIRED)
    finished, _ = _finished_runs(frame)
    if finished.empty:
        raise AnalysisError("frame: expected a finished run with a seed, got none; wait for one.")
    return _judged(finished, further)


def _judged(finished: pd.DataFrame, further: Sequence[str] = ()) -> tuple[pd.DataFrame, str]:
    measured = [name for name in _CANDIDATES if _is_measured(finished, name)]
    outcomes = final_outcomes(finished, [*dict.fromkeys((*measured, *further))])
    return outcomes, _metric(outcomes)


def _finished_runs(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Returns the rows of runs that are finished and have a seed, and what to say about the others."""
    last = frame.sort_values("window").groupby("run", observed=True).tail(1)
    unfinished = set(last.loc[~last["status"].isin(["truncated", "terminated"]), "run"])
    unseeded = set(last.loc[last["seed"].isna(), "run"]) - unfinished
    remarks = []
    if unfinished:
        names = f"{counted(len(unfinished), 'run')} ({_listed(sorted(unfinished))})"
        remarks.append(f"Not in the verdict, because not finished: {names}.")
    if unseeded:
        names = f"{counted(len(unseeded), 'run')} ({_listed(sorted(unseeded))})"
        remarks.append(f"Not in the verdict, because without a seed to pair by: {names}.")
    return frame[~frame["run"].isin(unfinished | unseeded)], remarks


def _is_measured(frame: pd.DataFrame, metric: str) -> bool:
    """Tells whether every run measured a metric at least once, but for students that broke before."""
    if metric == "return":
        return True
    if metric not in frame:
        return False
    is_there = frame.groupby("run", observed=True)[metric].count().gt(0)
    broken = frame.loc[(frame["status"] == "terminated").fillna(False), "run"]
    return bool(is_there.any() and (is_there | is_there.index.isin(broken)).all())


def _metric(outcomes: pd.DataFrame) -> str:
    measured = [name for name in _CANDIDATES if name in outcomes]
    # An accuracy that is the same in all runs (0 of 8 right) says nothing; the NLL may.
    telling = [name for name in measured if len(outcomes) == 1 or outcomes[name].nunique() > 1]
    return (telling or measured)[0]


def _compared(outcomes: pd.DataFrame, metric: str, remarks: list[str]) -> Verdict:
    lines = compare_agents(outcomes, [metric])
    shared = shared_seeds(outcomes, metric)
    remarks = [*remarks, *shared.remarks()]
    name = f"{_NAMES[metric]} after the last window" if metric != "return" else "return (sum of a run's rewards)"
    direction = "more is better" if METRICS[metric] else "less is better"
    described = f"{name}{' in' + _UNITS[metric] if metric in _UNITS else ''}, {direction}"
    if shared.table.empty:
        lacking = outcome_table(outcomes, metric).count().idxmin()
        sentence = "No verdict: the agents share no seed, so that nothing can be paired."
        certainty = f"Make runs with the same seeds, or leave an agent out ({lacking} has the fewest)."
        return Verdict(sentence, certainty, described, (), tuple(remarks))
    table = shared.table * (1 if METRICS[metric] else -1)
    standings = tuple(_standing(line, table, outcomes, metric) for _, line in lines.iterrows())
    best = lines.iloc[0]
    if len(lines) == 1:
        sentence = f"Only {best['agent']} is here ({counted(len(table), 'run')}): nothing to compare it with."
        certainty = f"Its {_NAMES[metric]}: {standings[0].result}{_UNITS.get(metric, '')}."
    else:
        sentence = _headline(lines, metric)
        certainty = _certainty(lines, table)
    return Verdict(sentence, certainty, described, standings, tuple(remarks))


def _standing(line: pd.Series[Any], table: pd.DataFrame, outcomes: pd.DataFrame, metric: str) -> Standing:
    agent, best = line["agent"], line["best"]
    interval = (line["to_best"], line["to_best_low"], line["to_best_high"])
    return Standing(
        agent=agent,
        num_seeds=line["num_seeds"],
        num_broken=line["num_broken"],
        result=_text((line["mean"], line["low"], line["high"]), metric),
        difference="" if agent == best else _text(interval, metric, is_difference=True),
        wins="" if agent == best else f"{_num_wins(table, best, agent)} of {len(table)}",
        costs=_costs(outcomes[outcomes["agent"] == agent]),
    )


def _costs(outcomes: pd.DataFrame) -> tuple[str, ...]:
    counts = (f"{outcomes[name].mean():,.0f}" for name in ("num_updates", "num_tokens", "num_trained_tokens"))
    return (*counts, f"{outcomes['run_sec'].mean():,.3g}")


def _headline(lines: pd.DataFrame, metric: str) -> str:
    """Returns who has the best mean and by how much; a winner is named only where there are enough seeds and no doubt."""
    best, second = (str(agent) for agent in lines["agent"].iloc[:2])
    result = f"{_NAMES[metric]} {_number(float(lines['mean'].iloc[0]), metric)}{_UNITS.get(metric, '')}"
    unit = " points" if metric == "probe/accuracy" else ""
    lead, low, high = (abs(float(lines[f"to_best{end}"].iloc[1])) for end in ("", "_low", "_high"))
    text = f"{_number(lead, metric, is_difference=True)}{unit}"
    is_open = int(lines["num_seeds"].iloc[0]) < LEAST_SEEDS or bool(_rivals(lines))
    if text == f"{_number(0.0, metric, is_difference=True)}{unit}":
        if is_open:
            return f"{best} and {second} have the best mean, and the same: {result}."
        least = "0.1" if metric == "probe/accuracy" else "0.001"
        return f"{best} did best: {result}, less than {least}{unit} better than {second}, the next."
    if is_open:
        return f"{best} has the best mean: {result}, {text} better than {second}, the next."
    ends = " to ".join(_number(end, metric, is_difference=True) for end in sorted((low, high)))
    return f"{best} did best: {result}, {text} better than {second}, the next (95% interval {ends})."


def _rivals(lines: pd.DataFrame) -> list[str]:
    """Returns the agents, beside the best, whose interval does not leave out that they are as good."""
    is_worse = (lines["to_best_low"] > 0) | (lines["to_best_high"] < 0)
    return lines.loc[~is_worse & (lines["agent"] != lines["best"]), "agent"].astype(str).tolist()


def _num_wins(table: pd.DataFrame, best: str, other: str) -> int:
    """Returns on how many shared seeds the best agent was better, by more than rounding."""
    gap = table[best] - table[other]
    return int((gap > ROUNDING * table[[best, other]].abs().max(axis=1)).sum())


def _certainty(lines: pd.DataFrame, table: pd.DataFrame) -> str:
    """Returns how sure the best agent is.

    Args:
        lines: What ``compare_agents`` says of the metric, best first.
        table: Outcomes on shared seeds, more is better.
    """
    best, second = (str(agent) for agent in lines["agent"].iloc[:2])
    wins = f"{best} was better than {second} on {_num_wins(table, best, second)} of {len(table)} shared seeds."
    if len(table) < 2:
        return f"One shared seed says nothing about certainty; {LEAST_SEEDS} are the least to name a winner."
    if len(table) < LEAST_SEEDS:
        return (
            f"No winner is named from {len(table)} shared seeds: {LEAST_SEEDS} are the least, since with fewer even an agent that "
            f"is better on every seed may be so by chance in more than 5% of cases. {wins}"
        )
    rivals = _rivals(lines)
    if rivals:
        return f"Not settled: these runs do not tell {best} from {_listed(rivals)}. {wins}"
    return f"Clear on these seeds: no interval of a difference to {best} includes zero. {wins}"


def _text(interval: tuple[float, float, float], metric: str, *, is_difference: bool = False) -> str:
    mean, low, high = interval
    if math.isnan(mean):
        return "no shared seed"
    text = _number(mean, metric, is_difference=is_difference, is_signed=is_difference)
    if not math.isnan(low):
        ends = [_number(end, metric, is_difference=is_difference, is_signed=is_difference) for end in (low, high)]
        text += f" [{ends[0]}, {ends[1]}]"
    return f"{text} points" if is_difference and metric == "probe/accuracy" else text


def _number(value: float, metric: str, *, is_difference: bool = False, is_signed: bool = False) -> str:
    sign = "+" if is_signed else ""
    if metric == "probe/accuracy":
        return f"{100 * value:{sign}.1f}{'' if is_difference else '%'}"
    return f"{value:{sign}.3f}"


def _listed(names: list[str], most: int = 5) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _nothing(sentence: str, remarks: list[str] | None = None) -> Verdict:
    return Verdict(sentence, "", "", (), tuple(remarks or ()))
