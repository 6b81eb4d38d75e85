"""Pictures of learning: curves over windows, and the signs of a student that is about to break."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.checks import listed, require_columns, require_finite, require_one_environment
from analysis.curves import learning_curves
from analysis.errors import AnalysisError
from analysis.plots.style import (
    agent_styles,
    draw_legend,
    draw_line,
    label_of,
    new_figure,
    plain_label,
    run_labels,
    runs_caption,
)

LEARNING = ("probe/nll", "probe/accuracy")
"""What a student learned."""

HEALTH = (
    "rollout/length",
    "rollout/truncation_rate",
    "student/entropy",
    "rollout/success_rate",
    "probe/accuracy",
    "probe/pass_at_k",
)
"""What tells of collapse: rollouts that grow until they are cut, entropy that falls, pass@k that falls while accuracy rises."""


@overload
def plot_learning_curves(
    frame: pd.DataFrame, columns: str | Sequence[str] | None = ..., *, return_data: Literal[False] = False
) -> Figure: ...
@overload
def plot_learning_curves(
    frame: pd.DataFrame, columns: str | Sequence[str] | None = ..., *, return_data: Literal[True]
) -> tuple[Figure, pd.DataFrame]: ...
def plot_learning_curves(
    frame: pd.DataFrame,
    columns: str | Sequence[str] | None = None,
    *,
    return_data: bool = False,
) -> Figure | tuple[Figure, pd.DataFrame]:
    """Draws columns over windows for each agent: the mean over runs, and its 95% t interval, of each window and agent by itself.

    Args:
        frame: Rows of runs of one environment, as ``load_runs`` returns them.
        columns: One or several, a panel each; None takes those of ``LEARNING`` that were measured.
        return_data: Also return what was drawn: the frames of ``learning_curves``, one below the other.

    Raises:
        AnalysisError: If a named column is missing or was never measured, the frame is empty or mixes environments.
    """
    require_columns(frame, ("run", "env_id", "agent", "window"))
    require_one_environment(frame)
    columns = _measured(frame, LEARNING) if columns is None else listed(columns)
    if not columns:
        raise AnalysisError("columns: expected at least one to draw, got none; name one.")
    data = pd.concat([learning_curves(frame, name) for name in columns], ignore_index=True)
    styles = agent_styles(data["agent"])
    figure, panels = new_figure(len(columns), sharex=True)
    for axes, name in zip(panels[:, 0], columns, strict=True):
        for agent, style in styles.items():
            part = data[(data["agent"] == agent) & (data["column"] == name)]
            draw_line(axes, part["window"], part["mean"], part["low"], part["high"], style)
        axes.set_ylabel(label_of(name), fontsize=9)
        axes.ticklabel_format(axis="y", useOffset=False)
    panels[-1, 0].set_xlabel("Hold window", fontsize=9)
    panels[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.align_ylabels(panels[:, 0])
    figure.suptitle(f"Learning, {plain_label(frame['env_id'].iloc[0])}", fontsize=11)
    draw_legend(
        figure,
        styles,
        "Line: mean over runs. Band: its 95% t interval, of each window and agent by itself.",
        run_labels(frame, styles),
    )
    return (figure, data) if return_data else figure


@overload
def plot_health(frame: pd.DataFrame, *, return_data: Literal[False] = False) -> Figure: ...
@overload
def plot_health(frame: pd.DataFrame, *, return_data: Literal[True]) -> tuple[Figure, pd.DataFrame]: ...
def plot_health(frame: pd.DataFrame, *, return_data: bool = False) -> Figure | tuple[Figure, pd.DataFrame]:
    """Draws the signs of collapse over windows: rollout length and truncation, entropy, success, accuracy and pass@k.

    A thick line is the mean over the agent's runs that made the window: a student that broke is in it until then, and the
    caption counts them. The thin lines are the runs: collapse befalls single runs, which a mean hides.

    Args:
        frame: Rows of runs of one environment, as ``load_runs`` returns them.
        return_data: Also return what was drawn: columns agent, column, run (null for the mean), window, value.

    Raises:
        AnalysisError: If none of ``HEALTH`` was measured, the frame is empty or mixes environments.
    """
    require_columns(frame, ("run", "env_id", "agent", "window"))
    require_one_environment(frame)
    columns = _measured(frame, HEALTH)
    rows = frame[["run", "agent", "window", *columns]].astype(
        {"agent": str, "run": str} | dict.fromkeys(columns, float)
    )
    runs = rows.melt(["agent", "run", "window"], columns, "column").dropna(subset="value")
    means = runs.groupby(["agent", "window", "column"], as_index=False)["value"].mean().assign(run=None)
    data = pd.concat([means.astype({"run": object}), runs.astype({"run": object})], ignore_index=True)
    data = data[["agent", "column", "run", "window", "value"]].sort_values(
        ["column", "agent", "run", "window"], ignore_index=True
    )
    styles = agent_styles(data["agent"])
    figure, panels = new_figure((len(columns) + 1) // 2, min(len(columns), 2), height=1.9, sharex=True)
    for axes, name in zip(panels.ravel(), columns, strict=False):
        part = data[data["column"] == name]
        for agent, style in styles.items():
            ours = part[part["agent"] == agent]
            for _, run in ours.dropna(subset="run").groupby("run"):
                axes.plot(run["window"], run["value"], color=style["color"], linewidth=0.6, alpha=0.4)
            mean = ours[ours["run"].isna()]
            axes.plot(
                mean["window"], mean["value"], linewidth=1.6, markersize=4, markevery=max(1, len(mean) // 8), **style
            )
        axes.set_ylabel(label_of(name), fontsize=9)
        axes.ticklabel_format(axis="y", useOffset=False)
        if name.endswith("_rate") or name in ("probe/accuracy", "probe/pass_at_k"):
            top = max(0.1, 1.1 * float(part["value"].max()))
            axes.set_ylim(-0.04 * top, top)
    for axes in panels.ravel()[len(columns) :]:
        axes.remove()
    for axes in panels.ravel()[: len(columns)][-panels.shape[1] :]:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("Hold window", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(f"Health of the students, {plain_label(frame['env_id'].iloc[0])}", fontsize=11)
    draw_legend(figure, styles, runs_caption(frame), run_labels(frame, styles))
    return (figure, data) if return_data else figure


def _measured(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Returns the columns that were measured, of which one at least must be."""
    measured = [name for name in names if name in frame and frame[name].notna().any()]
    if not measured:
        raise AnalysisError(f"frame: expected numbers in one of {', '.join(names)}, got none; pass whole rows.")
    require_finite(frame, measured)
    return measured
