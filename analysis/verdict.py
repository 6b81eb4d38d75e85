"""The verdict of a folder of runs in words: who is better, by how much, and how sure that is.

The rule is fixed before the numbers are seen. Agents are compared by the probe's accuracy after the last window where
all finished runs measured it and it tells any two of them apart, otherwise by the probe's NLL, and where that lacks
too by the return. Differences are taken on the same seed, and their 95% intervals are bootstrapped over seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from analysis.checks import require_columns
from analysis.errors import AnalysisError
from analysis.statistics import METRICS, final_outcomes, mean_interval

ENOUGH_SEEDS = 8
"""Shared seeds from which on a bootstrap interval is taken at its word; below, it is too narrow."""

_CANDIDATES = ("probe/accuracy", "probe/nll", "return")
_NAMES = {"probe/accuracy": "probe accuracy", "probe/nll": "probe NLL", "return": "return"}
_UNITS = {"probe/nll": " nats/token"}
_REQUIRED = ("run", "env_id", "agent", "seed", "window", "status", "update", "rollout/num_tokens", "reward/total")


@dataclass(frozen=True)
class Standing:
    """What one agent came to.

    Attributes:
        agent: Its spec.
        num_seeds: Finished runs.
        num_broken: Runs of them whose student broke.
        result: Mean over runs with its interval, as text.
        difference: Mean difference to the best agent on shared seeds with its interval, as text; empty for the best.
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
        return _nothing("No verdict yet: no run is finished.", remarks)
    try:
        outcomes, metric = _judged(finished)
    except AnalysisError as error:
        return _nothing(f"No verdict: {error}", remarks)
    num_broken = int(outcomes["is_broken"].sum())
    if num_broken:
        remarks.append(
            f"In {_counted(num_broken, 'run')} the student broke; what counts is its last measurement, which may be from before."
        )
    return _compared(outcomes, metric, remarks)


def judged_outcomes(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Returns what the verdict is about: the outcomes of finished runs with a seed, and the metric that they are judged by.

    Args:
        frame: As for ``judge``.

    Raises:
        AnalysisError: If there is no such run, a column is missing, or a seed of an agent has two runs.
    """
    require_columns(frame, _REQUIRED)
    finished, _ = _finished_runs(frame)
    if finished.empty:
        raise AnalysisError("frame: expected a finished run with a seed, got none; wait for one.")
    return _judged(finished)


def _judged(finished: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    outcomes = final_outcomes(finished, [name for name in _CANDIDATES if _is_measured(finished, name)])
    return outcomes, _metric(outcomes)


def _finished_runs(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Returns the rows of runs that are finished and have a seed, and what to say about the others."""
    last = frame.sort_values("window").groupby("run", observed=True).tail(1)
    unfinished = set(last.loc[~last["status"].isin(["truncated", "terminated"]), "run"])
    unseeded = set(last.loc[last["seed"].isna(), "run"]) - unfinished
    remarks = []
    if unfinished:
        names = f"{_counted(len(unfinished), 'run')} ({_listed(sorted(unfinished))})"
        remarks.append(f"Not in the verdict, because not finished: {names}.")
    if unseeded:
        names = f"{_counted(len(unseeded), 'run')} ({_listed(sorted(unseeded))})"
        remarks.append(f"Not in the verdict, because without a seed to pair by: {names}.")
    return frame[~frame["run"].isin(unfinished | unseeded)], remarks


def _is_measured(frame: pd.DataFrame, metric: str) -> bool:
    """Tells whether every run measured a metric at least once."""
    if metric == "return":
        return True
    return metric in frame and bool(frame.groupby("run", observed=True)[metric].count().gt(0).all())


def _metric(outcomes: pd.DataFrame) -> str:
    measured = [name for name in _CANDIDATES if name in outcomes]
    # An accuracy that is the same in all runs (0 of 8 right) says nothing; the NLL may.
    telling = [name for name in measured if len(outcomes) == 1 or outcomes[name].nunique() > 1]
    return (telling or measured)[0]


def _compared(outcomes: pd.DataFrame, metric: str, remarks: list[str]) -> Verdict:
    higher_is_better = METRICS[metric]
    table = outcomes.pivot(index="seed", columns="agent", values=metric)
    order = [str(agent) for agent in table.mean().sort_values(ascending=not higher_is_better).index]
    best = order[0]
    num_broken = outcomes.groupby("agent")["is_broken"].sum()
    standings = []
    for agent in order:
        difference = (table[agent] - table[best]).dropna()
        is_worse = difference < 0 if higher_is_better else difference > 0
        standings.append(
            Standing(
                agent=agent,
                num_seeds=int(table[agent].count()),
                num_broken=int(num_broken[agent]),
                result=_text(mean_interval(table[agent]), metric),
                difference="" if agent == best else _text(mean_interval(difference), metric, is_difference=True),
                wins="" if agent == best else f"{int(is_worse.sum())} of {len(difference)}",
                costs=_costs(outcomes[outcomes["agent"] == agent]),
            )
        )
    direction = "more is better" if higher_is_better else "less is better"
    name = f"{_NAMES[metric]} after the last window" if metric != "return" else "return (sum of a run's rewards)"
    described = f"{name}{' in' + _UNITS[metric] if metric in _UNITS else ''}, {direction}"
    if len(order) == 1:
        sentence = f"Only {best} is here ({_counted(int(table[best].count()), 'run')}): nothing to compare it with."
        certainty = f"Its {_NAMES[metric]}: {standings[0].result}{_UNITS.get(metric, '')}."
        return Verdict(sentence, certainty, described, tuple(standings), tuple(remarks))
    if len(order) > 2:
        remarks = [*remarks, f"The best of {len(order)} was found on the seeds it is judged by, which flatters it."]
    second = order[1]
    gap = (table[best] - table[second]) * (1 if higher_is_better else -1)
    mean, low, high = mean_interval(gap)
    sentence = _headline(best, second, table, metric, (mean, low, high))
    certainty = _certainty(best, second, gap.dropna(), low)
    return Verdict(sentence, certainty, described, tuple(standings), tuple(remarks))


def _costs(outcomes: pd.DataFrame) -> tuple[str, ...]:
    counts = (f"{outcomes[name].mean():,.0f}" for name in ("num_updates", "num_tokens", "num_trained_tokens"))
    return (*counts, f"{outcomes['run_sec'].mean():,.3g}")


def _headline(best: str, second: str, table: pd.DataFrame, metric: str, gap: tuple[float, float, float]) -> str:
    mean, low, high = gap
    level = _number(float(table[best].mean()), metric)
    result = f"{_NAMES[metric]} {level}{_UNITS.get(metric, '')}"
    begin = f"{best} did best: {result}"
    if math.isnan(mean):
        return f"{begin}; {second}, the next, shares no seed with it."
    unit = " points" if metric == "probe/accuracy" else ""
    lead = f"{_number(abs(mean), metric, is_difference=True)}{unit}"
    if lead == f"{_number(0.0, metric, is_difference=True)}{unit}":
        begin = f"{best} and {second} did best, and equally well: {result}, a difference of {lead} on shared seeds"
    else:
        word = "better" if mean >= 0 else "worse"
        begin = f"{begin}, {lead} {word} than {second}, the next, on shared seeds"
    if math.isnan(low):
        return f"{begin}."
    ends = [_number(end, metric, is_difference=True) for end in (low, high)]
    return f"{begin} (95% interval {ends[0]} to {ends[1]})."


def _certainty(best: str, second: str, gap: pd.Series[float], low: float) -> str:
    """Returns how sure a difference is.

    Args:
        best: The best agent.
        second: The next one.
        gap: Differences on shared seeds, positive where ``best`` is better.
        low: Lower end of the interval of their mean.
    """
    if len(gap) < 2:
        return "Nothing can be said about certainty: two shared seeds are the least, and eight are advisable."
    wins = f"{best} was better on {int((gap > 0).sum())} of {len(gap)} shared seeds."
    if low <= 0:
        return f"Not settled: the interval includes zero, so these runs do not tell {best} and {second} apart. {wins}"
    if len(gap) < ENOUGH_SEEDS:
        return (
            f"A hint, not a proof: the interval excludes zero, but one from {len(gap)} seeds is too narrow "
            f"({ENOUGH_SEEDS} or more are advisable). {wins}"
        )
    return f"Clear on these seeds: the interval excludes zero. {wins}"


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


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _listed(names: list[str], most: int = 5) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _nothing(sentence: str, remarks: list[str] | None = None) -> Verdict:
    return Verdict(sentence, "", "", (), tuple(remarks or ()))
