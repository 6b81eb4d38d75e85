"""The picture of runs that every run ends with, and that of a comparison. Pictures of one question each stand beside.

A plot takes the frame of ``load_runs``, leaves it unchanged, and can hand back what it drew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.checks import group_numbers, require_columns, require_measured, require_one_environment
from analysis.curves import with_broken_curves
from analysis.errors import AnalysisError
from analysis.exposure import RATIO
from analysis.plots.style import COLOURS, agent_styles, legend_columns, plain_label

_PANELS = {
    "probe/nll": "Probe NLL\n(nats/token)",
    "probe/accuracy": "Probe accuracy\n(0..1)",
    "rollout/length": "Rollout length\n(tokens)",
}
_REQUIRED_COLUMNS = ("run", "env_id", "agent", "window", RATIO, "probe/nll")


@overload
def plot_exposure(frame: pd.DataFrame, *, return_data: Literal[False] = False) -> Figure: ...
@overload
def plot_exposure(frame: pd.DataFrame, *, return_data: Literal[True]) -> tuple[Figure, pd.DataFrame]: ...
def plot_exposure(frame: pd.DataFrame, *, return_data: bool = False) -> Figure | tuple[Figure, pd.DataFrame]:
    """Draws reveal ratio, probe NLL, probe accuracy and rollout length over windows for each agent, as far as they were measured.

    With several difficulty groups each has a panel of its ratio.

    A line is the mean over an agent's runs (seeds); the band reaches from the lowest to the highest run, and is left
    out for a single run. Only measured windows are drawn: a window without a measurement is a gap, never interpolated,
    and then bars stand in for the band and agents stand side by side, at most 0.3 windows from their place. A student
    that broke (a cross marks its run's last window) stays at its worst, as in ``learning_curves``; its reveal ratio ends.

    Args:
        frame: Rows of runs of one environment, as ``load_runs`` returns them; at least the columns run, env_id, agent,
            window, exposure/reveal_ratio and probe/nll.
        return_data: Also return what was drawn.

    Returns:
        The figure (save it with ``figure.savefig(path)``); with ``return_data`` also a frame with the columns agent,
        column, window, mean, low, high, num_runs.

    Raises:
        AnalysisError: If the frame is empty, lacks a column, or mixes environments.
    """
    require_columns(frame, _REQUIRED_COLUMNS)
    require_one_environment(frame)
    require_measured(frame, (RATIO, "probe/nll"))
    labels = _panels(frame)
    columns = list(labels)
    data = pd.concat([_summary(frame, name) for name in columns], ignore_index=True)
    styles = agent_styles(frame["agent"])
    height = 1.9 if len(columns) < 5 else 1.4
    figure = Figure(figsize=(7.5, 1.2 + height * len(columns)), dpi=120, layout="constrained")
    panels = list(figure.subplots(len(columns), 1, sharex=True, squeeze=False)[:, 0])
    handles = []
    for index, (agent, style) in enumerate(styles.items()):
        num_runs = frame.loc[frame["agent"] == agent, "run"].nunique()
        shift = 0.6 * (index - (len(styles) - 1) / 2) / len(styles)
        label = f"{plain_label(agent)} ({num_runs} {'run' if num_runs == 1 else 'runs'})"
        handles.append(Line2D([], [], label=label, markersize=5, **style))
        for axes, name in zip(panels, columns, strict=True):
            _draw(axes, data[(data["agent"] == agent) & (data["column"] == name)], style, shift)
            _mark_terminated(axes, frame[frame["agent"] == agent], name, style["color"])
    _dress(panels, labels, frame["window"])
    figure.align_ylabels(panels)
    figure.suptitle(f"Exposure and learning, {plain_label(frame['env_id'].iloc[0])}", fontsize=11)
    figure.legend(
        handles=handles,
        title=_caption(frame, data),
        loc="outside lower center",
        ncols=legend_columns(figure, [handle.get_label() for handle in handles]),
        fontsize=8,
        title_fontsize=8,
        frameon=False,
        handlelength=4,
    )
    return (figure, data) if return_data else figure


def _panels(frame: pd.DataFrame) -> dict[str, str]:
    """Returns the columns that a panel shows, with its label."""
    groups = [group for group in group_numbers(frame, RATIO) if frame[f"{RATIO}_{group}"].notna().any()]
    ratios = {f"{RATIO}_{group}": f"Reveal ratio,\ngroup {group} (0..1)" for group in groups}
    measured = {name: label for name, label in _PANELS.items() if name in frame and frame[name].notna().any()}
    return (ratios if len(ratios) > 1 else {RATIO: "Reveal ratio\n(0..1)"}) | measured


def _summary(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Returns mean, lowest and highest run for each agent and window; NaN and 0 runs where none was measured."""
    groups = with_broken_curves(frame, name).groupby(["agent", "window"], observed=True)[name]
    summary = groups.agg(["mean", "min", "max", "count"]).reset_index()
    summary = summary.rename(columns={"min": "low", "max": "high", "count": "num_runs"})
    summary["agent"] = summary["agent"].astype("string")
    summary.insert(1, "column", name)
    return summary


def _draw(axes: Axes, data: pd.DataFrame, style: dict[str, Any], shift: float) -> None:
    has_band = bool((data["num_runs"] > 1).any())
    # A window that no row speaks of is a gap too.
    data = data.set_index("window").reindex(range(int(data["window"].min()), int(data["window"].max()) + 1))
    window = data.index.to_numpy()
    mean, low, high = (data[name].to_numpy(dtype=float, na_value=float("nan")) for name in ("mean", "low", "high"))
    has_gaps = bool(data["mean"].isna().any())
    if has_gaps:
        window = window + shift
    # Markers tell agents apart, so some are enough; but a lone measurement between gaps is nothing but its marker.
    every = 1 if has_gaps else max(1, len(data) // 12)
    axes.plot(window, mean, linewidth=1.6, markersize=4, markevery=every, **style)
    if has_band:
        if has_gaps:
            axes.vlines(window, low, high, color=style["color"], alpha=0.5, linewidth=1.2)
        else:
            axes.fill_between(window, low, high, color=style["color"], alpha=0.18, linewidth=0)


def _dress(panels: Sequence[Axes], labels: Mapping[str, str], windows: pd.Series[Any]) -> None:
    """Labels the panels' axes and sets how far they reach."""
    for axes, (name, label) in zip(panels, labels.items(), strict=True):
        axes.set_ylabel(label, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.ticklabel_format(axis="y", useOffset=False)
        if name.startswith(RATIO):
            axes.set_ylim(-0.04, 1.04)
    panels[-1].set_xlabel("Hold window", fontsize=9)
    first, last = int(windows.min()), int(windows.max())
    margin = max(0.5, 0.02 * (last - first))
    panels[-1].set_xlim(first - margin, last + margin)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))


def _mark_terminated(axes: Axes, frame: pd.DataFrame, name: str, colour: str) -> None:
    if "status" not in frame:
        return
    ends = frame[(frame["status"] == "terminated").fillna(False) & frame[name].notna()]
    if not ends.empty:
        axes.plot(
            ends["window"], ends[name].to_numpy(dtype=float), "X", color=colour, markeredgecolor="black", markersize=9
        )


def _caption(frame: pd.DataFrame, data: pd.DataFrame) -> str:
    has_band = bool((data["num_runs"] > 1).any())
    text = "Line: mean over runs. Band or bar: lowest to highest run." if has_band else "Line: a single run."
    is_broken = "status" in frame and bool((frame["status"] == "terminated").any())
    return text + (" Cross: a run ended early." if is_broken else "")


@overload
def plot_comparison(comparison: pd.DataFrame, *, return_data: Literal[False] = False) -> Figure: ...
@overload
def plot_comparison(comparison: pd.DataFrame, *, return_data: Literal[True]) -> tuple[Figure, pd.DataFrame]: ...
def plot_comparison(comparison: pd.DataFrame, *, return_data: bool = False) -> Figure | tuple[Figure, pd.DataFrame]:
    """Draws a forest plot: for each metric, every agent's mean paired difference with its interval.

    A row of panels is a metric, a panel the difference to the fixed reference ratio or to the best fixed one; without either
    among the agents, to the best agent; for a single agent or seed, the means themselves. Agents stand in the order of their
    means, the best on top.

    Args:
        comparison: What ``analysis.statistics.compare_agents`` returns; it is left unchanged.
        return_data: Also return what was drawn: columns metric, agent, ``kind`` ("to_reference", "to_best_fixed", "to_best" or
            "mean"), mean, low, high.

    Raises:
        AnalysisError: If the frame is empty.
    """
    if comparison.empty:
        raise AnalysisError("comparison: expected at least one agent, got none; compare at least one.")
    is_there = {name: comparison[f"{name}_low"].notna().any() for name in ("to_reference", "to_best_fixed", "to_best")}
    kinds = [name for name in ("to_reference", "to_best_fixed") if is_there[name]]
    kinds = kinds or (["to_best"] if is_there["to_best"] else ["mean"])
    metrics = list(comparison["metric"].unique())
    num_agents = comparison["agent"].nunique()
    figure = Figure(
        figsize=(1.6 + 3.6 * len(kinds), 1.0 + len(metrics) * (0.9 + 0.28 * num_agents)), dpi=120, layout="constrained"
    )
    panels = figure.subplots(len(metrics), len(kinds), squeeze=False)
    for metric, line in zip(metrics, panels, strict=True):
        rows = comparison[comparison["metric"] == metric]
        for kind, axes in zip(kinds, line, strict=True):
            _draw_forest(axes, rows, kind)
        for axes in line[1:]:
            axes.tick_params(labelleft=False)
    figure.suptitle("Mean over seeds; differences are paired by seed, their 95% intervals hold together", fontsize=10)
    data = pd.concat([_forest(comparison, kind) for kind in kinds], ignore_index=True)
    return (figure, data) if return_data else figure


def _forest(comparison: pd.DataFrame, kind: str) -> pd.DataFrame:
    prefix = "" if kind == "mean" else f"{kind}_"
    names = {kind: "mean", f"{prefix}low": "low", f"{prefix}high": "high"}
    drawn = comparison[["metric", "agent", *names]].rename(columns=names)
    drawn.insert(2, "kind", kind)
    return drawn


def _draw_forest(axes: Axes, rows: pd.DataFrame, kind: str) -> None:
    prefix = "" if kind == "mean" else f"{kind}_"
    places = range(len(rows))[::-1]
    axes.hlines(places, rows[f"{prefix}low"], rows[f"{prefix}high"], color=COLOURS[0], linewidth=2)
    axes.plot(rows[kind], places, "o", color=COLOURS[0], markersize=5)
    axes.set_yticks(places, [plain_label(agent, 34) for agent in rows["agent"]], fontsize=8)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    first = rows.iloc[0]
    direction = "right" if first["higher_is_better"] else "left"
    if kind == "mean":
        axes.set_xlabel(f"{first['metric']} (better: {direction})", fontsize=8)
        return
    axes.axvline(0.0, color="black", linewidth=0.8)
    others = {"to_reference": plain_label(first["reference"]), "to_best": plain_label(first["best"])}
    other = others.get(kind, "best fixed ratio")
    axes.set_xlabel(f"{first['metric']} minus {other} (better: {direction})", fontsize=8)
