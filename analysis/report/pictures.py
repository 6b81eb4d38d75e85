"""The pictures of a report: what is drawn from which rows, and the same in words.

Words are made from the very data that was drawn. A picture says three things: ``caption``, what to look for; ``find``, what that is
here, in one sentence; ``describe``, its numbers one by one, for those who cannot see it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.credit import credit_decomposition, decision_returns
from analysis.errors import AnalysisError
from analysis.exposure import rises
from analysis.metrics import METRICS
from analysis.paired import counted, paired_differences, shared_seeds
from analysis.plots.credit import plot_credit
from analysis.plots.exposures import plot_beta_density, plot_exposure_trajectories
from analysis.plots.learning import plot_health, plot_learning_curves
from analysis.plots.paired import plot_paired_differences
from analysis.plots.ratios import plot_mismatch_by_ratio, plot_ratio_sweep
from analysis.plots.style import NAMES
from analysis.statistics import compare_agents, fixed_ratio
from analysis.verdict import LEAST_SEEDS, judged_outcomes

MOST_NAMED = 12
"""Agents that a text names one by one; the others are counted."""


@dataclass(frozen=True)
class Picture:
    """A picture of the report.

    Attributes:
        title: Its heading.
        draw: Makes it from the rows of comparable runs, and returns it with the data drawn; a ``ValueError`` (such as an
            ``AnalysisError``) leaves it out and says why.
        describe: Says what the data drawn holds, number by number, for those who cannot see it.
        caption: What to look for.
        find: Says in one sentence what that is in the data drawn; None says nothing.
        needs: What runs it takes, for the line that says why it was left out.
    """

    title: str
    draw: Callable[[pd.DataFrame], tuple[Figure, pd.DataFrame]]
    describe: Callable[[pd.DataFrame], str]
    caption: str = ""
    find: Callable[[pd.DataFrame], str] | None = None
    needs: str = ""


def _number(value: float, column: str = "") -> str:
    if column.endswith(("accuracy", "_rate", "pass_at_k")):
        return f"{100 * value:.1f}%"
    return f"{value:.3g}"


def _listed(texts: Iterable[str]) -> str:
    texts = list(texts)
    rest = len(texts) - MOST_NAMED
    return "; ".join(texts[:MOST_NAMED]) + (f"; and {rest} more" if rest > 0 else "")


def _name(column: str) -> str:
    return NAMES.get(column, column)


def _ends(rows: pd.DataFrame, value: str, column: str = "") -> str:
    """Returns a value's way from the first window to the last, such as "0.49 to 0.07"."""
    values = rows.sort_values("window")[value].to_numpy(dtype=float)
    return f"{_number(values[0], column)} to {_number(values[-1], column)}"


# --- learning


def _draw_learning(frame: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    return plot_learning_curves(frame, return_data=True)


def _describe_learning(data: pd.DataFrame) -> str:
    sentences = [
        "Lines over hold windows, one for each agent, with bands. Means over runs, first to last measured window."
    ]
    for column, rows in data.groupby("column", sort=False):
        ways = (f"{agent} {_ends(ours, 'mean', str(column))}" for agent, ours in rows.groupby("agent"))
        sentences.append(f"{_name(str(column))}: {_listed(ways)}.")
    return " ".join(sentences)


def _find_learning(data: pd.DataFrame) -> str:
    sentences = []
    for column, rows in data.groupby("column", sort=False):
        column = str(column)
        window = rows.groupby("agent")["window"].max().min()
        ends = rows[rows["window"] == window].sort_values("agent")
        # By name: they may be of unlike seeds, and to rank them is the verdict's.
        words = (f"{agent} {_number(mean, column)}" for agent, mean in zip(ends["agent"], ends["mean"], strict=True))
        sentences.append(f"{_name(column)} in window {window}, means over each agent's runs: {_listed(words)}.")
    return " ".join(sentences)


def _of_group(words: str, group: Any) -> str:
    return "" if pd.isna(group) else f"{words} {int(group)}"


# --- exposure


def _draw_exposure(frame: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    return plot_exposure_trajectories(frame, return_data=True)


def _describe_exposure(data: pd.DataFrame) -> str:
    sentences = ["Lines over hold windows: thick ones are means over runs, thin ones the runs."]
    for group, rows in data.groupby("group", dropna=False):
        where = _of_group(" of group", group)
        ways = []
        for agent, ours in rows.groupby("agent"):
            means, low, high = ours[ours["run"].isna()], ours["reveal_ratio"].min(), ours["reveal_ratio"].max()
            way = (
                f"held at {_number(low)}"
                if low == high
                else f"{_ends(means, 'reveal_ratio')}, between {low:.2f} and {high:.2f}"
            )
            ways.append(f"{agent} {way}")
        sentences.append(f"Reveal ratio{where}, first to last window: {_listed(ways)}.")
    return " ".join(sentences)


def _find_exposure(data: pd.DataFrame) -> str:
    means = data[data["run"].isna()]
    if data["group"].notna().any():
        means = cast("pd.DataFrame", means.groupby(["agent", "window"], as_index=False)["reveal_ratio"].mean())
    moving = [str(agent) for agent, rows in data.groupby("agent") if rows["reveal_ratio"].nunique() > 1]
    if not moving:
        return "Every agent here held one ratio."
    ways = (f"{agent} from {_ends(means[means['agent'] == agent], 'reveal_ratio')}" for agent in moving)
    return f"Means over runs, first to last window: {_listed(ways)}."


# --- Beta density


def _find_density(data: pd.DataFrame) -> str:
    sentences = []
    for (agent, group), rows in data.groupby(["agent", "group"], dropna=False):
        where = _of_group(", group", group)
        windows = rows.groupby("window")["mean"].first()
        sentences.append(
            f"{agent}{where}: {windows.iloc[0]:.2f} in window {windows.index[0]} to {windows.iloc[-1]:.2f} in window {windows.index[-1]}"
        )
    return f"Mean of the policy: {_listed(sentences)}."


def _describe_density(data: pd.DataFrame) -> str:
    peaks = []
    for (agent, group), rows in data.groupby(["agent", "group"], dropna=False):
        where = _of_group(", group", group)
        last = rows[rows["window"] == rows["window"].max()]
        peak = last.loc[last["density"].idxmax()]
        peaks.append(f"{agent}{where} at ratio {peak['reveal_ratio']:.2f} with density {peak['density']:.2g}")
    return f"A map, windows across and reveal ratios upwards. {_find_density(data)} Highest in the last window: {_listed(peaks)}."


# --- mismatch


def _draw_mismatch(frame: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    ratios = frame["agent"].astype(str).map(fixed_ratio)
    return plot_mismatch_by_ratio(frame[ratios.notna()] if ratios.nunique() >= 2 else frame, return_data=True)


def _describe_mismatch(data: pd.DataFrame) -> str:
    points = []
    for row in data.to_dict("records"):
        interval = f" [{_number(row['low'])}, {_number(row['high'])}]" if np.isfinite(row["low"]) else ""
        points.append(f"ratio {row['reveal_ratio']:.2f}: {_number(row['mean'])}{interval}")
    return f"A line over reveal ratios with intervals. Mismatch in nats per token at {_listed(points)}."


def _find_mismatch(data: pd.DataFrame) -> str:
    first, last = data.iloc[0], data.iloc[-1]
    if len(data) == 1:
        return f"{_number(first['mean'])} nats per token at the only ratio, {first['reveal_ratio']:.2f}."
    ends = (f"{_number(row['mean'])} nats per token at ratio {row['reveal_ratio']:.2f}" for row in (first, last))
    if not first["is_paired"]:
        return f"{' and '.join(ends)}: met by other seeds or in other windows, which tells nothing of the ratio."
    way = "rises at every step" if rises(data["mean"].to_numpy()) else "does not rise at every step"
    left_out = f" Left out, since they lack a ratio: seeds {first['left_out']}." if first["left_out"] else ""
    return f"From {' to '.join(ends)}; it {way}.{left_out}"


# --- fixed ratios


def _draw_sweep(frame: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    outcomes, metric = judged_outcomes(frame)
    if outcomes["agent"].map(fixed_ratio).nunique() < 2:
        raise AnalysisError("frame: expected two fixed ratios, got fewer; add runs of fixed:0 and fixed:1.")
    seeds = shared_seeds(outcomes, metric).table.index  # the words rank the agents
    return plot_ratio_sweep(outcomes[outcomes["seed"].isin(seeds)], metric, return_data=True)


def _describe_sweep(data: pd.DataFrame) -> str:
    metric = str(data["measure"].iloc[0])
    texts = [
        f"{row['agent']} {_number(row['mean'], metric)}" + _interval(row["low"], row["high"], metric)
        for row in data.to_dict("records")
    ]
    return (
        f"Points over fixed reveal ratios, and a line across for every other agent. {_name(metric)}: {_listed(texts)}."
    )


def _find_sweep(data: pd.DataFrame) -> str:
    metric = str(data["measure"].iloc[0])
    fixed, others = data[data["reveal_ratio"].notna()], data[data["reveal_ratio"].isna()]

    def best(rows: pd.DataFrame) -> str:
        row = rows.sort_values("mean", ascending=not METRICS[metric], kind="stable").iloc[0]
        return f"{row['agent']}, {_number(row['mean'], metric)}"

    text = f"Best mean {_name(metric).lower()} of a fixed ratio: {best(fixed)}"
    return f"{text}; of the others: {best(others)}." if len(others) else f"{text}."


def _interval(low: float, high: float, metric: str = "") -> str:
    return f" [{_number(low, metric)}, {_number(high, metric)}]" if np.isfinite(low) else ""


# --- paired differences


def _draw_differences(frame: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    outcomes, metric = judged_outcomes(frame)
    lines = compare_agents(outcomes, [metric]).set_index("agent", drop=False)
    full, best = lines[["reference", "best"]].iloc[0]
    differences = paired_differences(outcomes, metric, full or best or lines["agent"].iloc[0])
    if not full:  # the best was found on these seeds, which its own intervals allow for
        names = ["to_best", "to_best_low", "to_best_high"]
        differences[["mean", "low", "high"]] = lines.loc[differences["agent"], names].to_numpy()
    return plot_paired_differences(differences, return_data=True)


def _describe_differences(data: pd.DataFrame) -> str:
    metric, reference = str(data["measure"].iloc[0]), data["reference"].iloc[0]
    texts = [
        f"{row['agent']} {row['mean']:+.3g}{_interval(row['low'], row['high'])}, {row['num_pairs']} pairs"
        for row in data.to_dict("records")
    ]
    return f"A point with its interval for each agent. {_name(metric)} minus that of {reference}: {_listed(texts)}."


def _find_differences(data: pd.DataFrame) -> str:
    sign = np.where(data["higher_is_better"], 1, -1) * np.sign(data["mean"])
    reference, num_pairs = data["reference"].iloc[0], int(data["num_pairs"].iloc[0])
    if num_pairs < LEAST_SEEDS:
        return (
            f"{counted(num_pairs, 'pair')}: too few to say who is better than {reference}; {LEAST_SEEDS} are the least."
        )
    texts = []
    for word, chosen in (("Better", sign > 0), ("Worse", sign < 0)):
        agents = data.loc[data["is_clear"] & chosen, "agent"].astype(str).tolist()
        if agents:
            texts.append(f"{word} than {reference}, with an interval that leaves out 0: {_listed(agents)}.")
    return " ".join(texts) or f"No interval leaves out 0: these runs tell no agent from {reference}."


# --- health


def _describe_health(data: pd.DataFrame) -> str:
    sentences = [
        "Panels of lines over hold windows: thick ones are means over runs, thin ones the runs. First to last window."
    ]
    for column, rows in data.groupby("column"):
        means = rows[rows["run"].isna()]
        ways = (f"{agent} {_ends(ours, 'value', str(column))}" for agent, ours in means.groupby("agent"))
        sentences.append(f"{_name(str(column))}: {_listed(ways)}.")
    return " ".join(sentences)


def _find_health(data: pd.DataFrame) -> str:
    runs = data[data["run"].notna()]
    texts = []
    for column, rows in runs.groupby("column"):
        last = rows.sort_values("window").groupby("run")["value"].last()
        texts.append(
            f"{_name(str(column)).lower()} {_number(last.min(), str(column))} to {_number(last.max(), str(column))}"
        )
    return f"Lowest to highest run at the end: {'; '.join(texts)}."


# --- credit


def _draw_credit(frame: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    return plot_credit(credit_decomposition(decision_returns(frame)), return_data=True)


def _describe_credit(data: pd.DataFrame) -> str:
    table = data.pivot(index="agent", columns="part", values="value")
    texts = (
        f"{agent} {_number(row['returns'])} = own window {row['own_progress']:+.3g}, later windows {row['later_progress']:+.3g}, "
        f"discounting {row['discount']:+.3g}, grounded {row['grounded']:+.3g}"
        for agent, row in table.iterrows()
    )
    return f"Stacked bars, one for each agent. Mean R of a decision in nats per token: {_listed(texts)}."


def _find_credit(data: pd.DataFrame) -> str:
    table = data.pivot(index="agent", columns="part", values="value")
    texts = (
        f"{agent} {_number(row['own_progress'])} of {_number(row['returns'])} nats per token"
        for agent, row in table.iterrows()
    )
    return f"Progress in the decision's own window, of the mean R of each agent's runs: {_listed(texts)}."


PICTURES: list[Picture] = [
    Picture(
        "Learning curves",
        _draw_learning,
        _describe_learning,
        "What the students learned. Bands that overlap do not tell agents apart, see the paired differences below.",
        _find_learning,
        "measurements of the probe",
    ),
    Picture(
        "Exposure trajectories",
        _draw_exposure,
        _describe_exposure,
        "What each agent let the teacher see: does the ratio rise as the student learns, and do runs agree?",
        _find_exposure,
        "reveal ratios",
    ),
    Picture(
        "Beta density over time",
        lambda frame: plot_beta_density(frame, return_data=True),
        _describe_density,
        "What a Beta controller believed: a band that narrows or moves is learning, one that stays as it began is not.",
        _find_density,
        "runs of an agent with a Beta policy, such as beta",
    ),
    Picture(
        "Mismatch by reveal ratio",
        _draw_mismatch,
        _describe_mismatch,
        "Does the teacher move away from the student as it sees more? Where controllers chose ratios, the state differs with them.",
        _find_mismatch,
        "measurements of the mismatch",
    ),
    Picture(
        "Fixed ratios, and agents that choose",
        _draw_sweep,
        _describe_sweep,
        "An agent that learns is worth its while where its line lies beyond the best of the fixed ratios.",
        _find_sweep,
        "finished runs of two fixed ratios or more, such as fixed:0 and fixed:1",
    ),
    Picture(
        "Paired differences",
        _draw_differences,
        _describe_differences,
        "Agents against the reference on shared seeds; the intervals hold together: what lies beside 0 whole is a difference.",
        _find_differences,
        "finished runs of two agents or more, one for each agent and seed",
    ),
    Picture(
        "Health of the students",
        lambda frame: plot_health(frame, return_data=True),
        _describe_health,
        "Signs of collapse: rollouts that grow until they are cut, entropy that falls to 0, pass@k that falls while accuracy rises.",
        _find_health,
        "measurements of rollouts or of the probe",
    ),
    Picture(
        "What decisions were credited for",
        _draw_credit,
        _describe_credit,
        "The return R that controllers learn from, in its parts. Where later windows outweigh the own one, credit comes late.",
        _find_credit,
        "runs longer than the lookahead",
    ),
]
"""The pictures of each comparison, in order; append to show more."""
