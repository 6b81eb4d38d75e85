"""Pictures with the reveal ratio across: mismatch, the sweep of fixed ratios, and what each ratio would have done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.checks import require_columns, require_measured, require_one_environment
from analysis.errors import AnalysisError
from analysis.exposure import mismatch_by_ratio, mismatch_trend
from analysis.metrics import direction
from analysis.paired import agent_means
from analysis.plots.style import COLOUR_MAP, COLOURS, agent_styles, draw_legend, label_of, new_figure, plain_label
from analysis.statistics import fixed_ratio


@overload
def plot_mismatch_by_ratio(
    frame: pd.DataFrame,
    column: str = ...,
    *,
    edges: Sequence[float] | None = ...,
    return_data: Literal[False] = False,
) -> Figure: ...
@overload
def plot_mismatch_by_ratio(
    frame: pd.DataFrame,
    column: str = ...,
    *,
    edges: Sequence[float] | None = ...,
    return_data: Literal[True],
) -> tuple[Figure, pd.DataFrame]: ...
def plot_mismatch_by_ratio(
    frame: pd.DataFrame,
    column: str = "student/mismatch",
    *,
    edges: Sequence[float] | None = None,
    return_data: bool = False,
) -> Figure | tuple[Figure, pd.DataFrame]:
    """Draws the mismatch at each reveal ratio with its 95% interval over seeds; says whether it grows.

    Args:
        frame: Rows of runs of one environment, as ``load_runs`` returns them.
        column: What to draw.
        edges: As in ``mismatch_by_ratio``.
        return_data: Also return what was drawn: the frame of ``mismatch_by_ratio``.

    Raises:
        AnalysisError: If the frame is empty, lacks a column, or mixes environments.
    """
    require_columns(frame, ("env_id", column))
    require_one_environment(frame)
    data = mismatch_by_ratio(frame, column, edges=edges)
    trend = mismatch_trend(frame, column, edges=edges).iloc[0]
    figure, panels = new_figure(width=6.0, height=2.6)
    axes = panels[0, 0]
    axes.plot(data["reveal_ratio"], data["mean"], "-o", color=COLOURS[0], linewidth=1.5, markersize=5)
    axes.vlines(data["reveal_ratio"], data["low"], data["high"], color=COLOURS[0], linewidth=1.5)
    axes.set_xlim(-0.04, 1.04)
    axes.set_xlabel("Reveal ratio", fontsize=9)
    axes.set_ylabel(label_of(column), fontsize=9)
    tested = (
        f"Page's trend test over {trend['num_seeds']} seeds: p = {trend['p_value']:.2g}"
        if np.isfinite(trend["p_value"])
        else "too few ratios or seeds with all of them for a trend test"
        if data["is_paired"].iloc[0]
        else "each ratio in others: no trend test"
    )
    figure.suptitle(
        f"{label_of(column).splitlines()[0]} by reveal ratio, {plain_label(data['env_id'].iloc[0])}", fontsize=11
    )
    span = f"{data['first_window'].min()} to {data['last_window'].max()}"
    axes.set_title(f"Mean over seeds, 95% t interval, windows {span}; {tested}", fontsize=8)
    return (figure, data) if return_data else figure


@overload
def plot_ratio_sweep(outcomes: pd.DataFrame, measure: str, *, return_data: Literal[False] = False) -> Figure: ...
@overload
def plot_ratio_sweep(
    outcomes: pd.DataFrame, measure: str, *, return_data: Literal[True]
) -> tuple[Figure, pd.DataFrame]: ...
def plot_ratio_sweep(
    outcomes: pd.DataFrame, measure: str, *, return_data: bool = False
) -> Figure | tuple[Figure, pd.DataFrame]:
    """Draws what fixed ratios came to, ratio by ratio, and every other agent as a line across, each with its 95% interval.

    Args:
        outcomes: One line for each run, with the columns agent, seed and ``measure``.
        measure: What to draw.
        return_data: Also return what was drawn: the frame of ``agent_means`` with a column ``reveal_ratio`` (NaN for agents
            that hold none).

    Raises:
        AnalysisError: If there is no agent ``fixed:A``, or an agent has two runs with one seed.
    """
    data = agent_means(outcomes, measure)
    ratios = pd.Series([fixed_ratio(agent) for agent in data["agent"]], dtype=float)  # None is NaN
    data.insert(1, "reveal_ratio", ratios)
    data = data.sort_values(["reveal_ratio", "agent"], ignore_index=True)
    fixed, others = data[data["reveal_ratio"].notna()], data[data["reveal_ratio"].isna()]
    if fixed.empty:
        raise AnalysisError(
            f"outcomes: expected agents such as fixed:0.5, got {', '.join(data['agent'])}; add a sweep."
        )
    figure, panels = new_figure(width=6.0, height=3.0)
    axes = panels[0, 0]
    styles = agent_styles(data["agent"])  # of all, so that an agent looks as it does in the other pictures
    styles = {"a fixed ratio": {"color": "#000000", "linestyle": "-", "marker": "o"}} | {
        agent: styles[agent] | {"marker": ""} for agent in others["agent"]
    }
    for agent, mean, low, high in others[["agent", "mean", "low", "high"]].to_numpy().tolist():
        style = styles[agent]
        axes.axhline(mean, linewidth=1.8, color=style["color"], linestyle=style["linestyle"])
        if np.isfinite(low):
            axes.axhspan(low, high, color=style["color"], alpha=0.13, linewidth=0)
    axes.vlines(fixed["reveal_ratio"], fixed["low"], fixed["high"], color="#000000", linewidth=1.5)
    axes.plot(fixed["reveal_ratio"], fixed["mean"], "-o", color="#000000", linewidth=1.5, markersize=5)
    axes.set_xlim(-0.04, 1.04)
    axes.set_xlabel("Reveal ratio of the fixed ones", fontsize=9)
    axes.set_ylabel(label_of(measure), fontsize=9)
    figure.suptitle("Fixed ratios, and agents that choose", fontsize=11)
    counts = outcomes.astype({"agent": str}).groupby("agent")["seed"].nunique()
    labels = ["a fixed ratio", *(f"{plain_label(agent)} ({counts[agent]} seeds)" for agent in others["agent"])]
    draw_legend(figure, styles, "Means over seeds, 95% t intervals, of each agent by itself.", labels)
    return (figure, data) if return_data else figure


@overload
def plot_counterfactual(
    frame: pd.DataFrame, outcome: str = ..., *, state: str = ..., return_data: Literal[False] = False
) -> Figure: ...
@overload
def plot_counterfactual(
    frame: pd.DataFrame, outcome: str = ..., *, state: str = ..., return_data: Literal[True]
) -> tuple[Figure, pd.DataFrame]: ...
def plot_counterfactual(
    frame: pd.DataFrame, outcome: str = "return", *, state: str = "done", return_data: bool = False
) -> Figure | tuple[Figure, pd.DataFrame]:
    """Draws a map of what each reveal ratio would have done from each state: states across, ratios upwards.

    A cell is the ratio's advantage over the mean of all ratios from the same state (and seed, where there are several), so
    that what differs between states and seeds cancels. A ring marks the best ratio of each state.

    Args:
        frame: Frames of ``atesd_env.envs.branch.counterfactual``, one below the other, with a column that names the state. Of each
            branch the last window counts; branches that ended early are left out with their state's other branches of that seed.
        outcome: Column to draw, with a direction (``analysis.metrics``); the sign is turned so that more is better in the
            picture.
        state: The column that names the state, such as the windows done before it.
        return_data: Also return what was drawn: columns ``state``, reveal_ratio, advantage, num_seeds.

    Raises:
        AnalysisError: If the frame is empty or lacks a column, or no state has every ratio.
    """
    require_columns(
        frame, (state, "reveal_ratio", "offset", outcome), "counterfactual frames with a column for the state"
    )
    require_measured(frame, [outcome])
    advantage = _advantages(frame, outcome, state)
    means, counts = advantage.groupby(level=0).mean(), advantage.groupby(level=0).size()
    figure, panels = new_figure(width=max(5.0, 2.6 + 0.5 * len(means)), height=1.3 + 0.3 * means.shape[1])
    axes = panels[0, 0]
    axes.grid(visible=False)
    mesh = axes.pcolormesh(means.to_numpy().T, cmap=COLOUR_MAP, edgecolors="white", linewidth=0.5)
    best = means.to_numpy().argmax(axis=1)
    axes.plot(
        np.arange(len(means)) + 0.5,
        best + 0.5,
        "o",
        markersize=9,
        color="white",
        markeredgecolor="black",
        markeredgewidth=1.5,
        linestyle="",
    )
    axes.set_xticks(
        np.arange(len(means)) + 0.5,
        [f"{value:g}" if isinstance(value, float | int) else str(value) for value in means.index],
    )
    axes.set_yticks(np.arange(means.shape[1]) + 0.5, [f"{ratio:g}" for ratio in means.columns])
    axes.set_xlabel("State: windows done" if state == "done" else f"State: {state}", fontsize=9)
    axes.set_ylabel("Reveal ratio from there", fontsize=9)
    bar = figure.colorbar(mesh, ax=axes)
    bar.set_label(f"{label_of(outcome).splitlines()[0]}: better than\nthe mean of the ratios", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(f"Each ratio for the next {int(frame['offset'].max())} windows from the same state", fontsize=11)
    seeds = f", mean over {counts.max()} seeds" if counts.max() > 1 else ""
    axes.set_title(f"Circle: the best ratio{seeds}", fontsize=8)
    data = pd.DataFrame({"advantage": means.rename_axis(columns="reveal_ratio").stack()}).reset_index()
    data["num_seeds"] = data[state].map(counts)
    return (figure, data) if return_data else figure


def _advantages(frame: pd.DataFrame, outcome: str, state: str) -> pd.DataFrame:
    """Returns each ratio's advantage over the mean of all, a line for each state (and seed), a column for each ratio."""
    last = frame[frame["offset"] == frame["offset"].max()]
    keys = [state, *(name for name in ("seed", "run") if name in frame)]
    table = last.pivot_table(index=keys, columns="reveal_ratio", values=outcome, aggfunc="mean")
    table = table.reindex(columns=sorted(frame["reveal_ratio"].unique())).astype(float).dropna()
    if table.empty:
        raise AnalysisError(
            "frame: expected a state from which every ratio was followed to the end, got none; follow fewer windows."
        )
    sign = 1.0 if direction(outcome, known=frame.columns) else -1.0
    advantages: pd.DataFrame = table.sub(table.mean(axis=1), axis=0).mul(sign)
    return advantages
