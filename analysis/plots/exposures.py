"""Pictures of what controllers showed: trajectories of reveal ratios, and the Beta policy's density over time."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy import stats

from analysis.checks import group_numbers, require_columns, require_measured, require_one_environment
from analysis.errors import AnalysisError
from analysis.exposure import RATIO
from analysis.plots.style import (
    COLOUR_MAP,
    agent_styles,
    draw_legend,
    new_figure,
    plain_label,
    run_labels,
    runs_caption,
)


@overload
def plot_exposure_trajectories(frame: pd.DataFrame, *, return_data: Literal[False] = False) -> Figure: ...
@overload
def plot_exposure_trajectories(frame: pd.DataFrame, *, return_data: Literal[True]) -> tuple[Figure, pd.DataFrame]: ...
def plot_exposure_trajectories(
    frame: pd.DataFrame, *, return_data: bool = False
) -> Figure | tuple[Figure, pd.DataFrame]:
    """Draws every run's reveal ratio over windows, and the mean of each agent's; a panel for each difficulty group.

    The mean is over the runs that made the window: where a student broke there is no ratio any more.

    Args:
        frame: Rows of runs of one environment, as ``load_runs`` returns them.
        return_data: Also return what was drawn: columns agent, group (null with a single one), run (null for the mean),
            window, reveal_ratio.

    Raises:
        AnalysisError: If the frame is empty, lacks a column, or mixes environments.
    """
    require_columns(frame, ("run", "env_id", "agent", "window", RATIO))
    require_one_environment(frame)
    require_measured(frame, [RATIO])
    measured = [group for group in group_numbers(frame, RATIO) if frame[f"{RATIO}_{group}"].notna().any()]
    groups: list[int | None] = [*measured] or [None]
    columns = {group: RATIO if group is None else f"{RATIO}_{group}" for group in groups}
    parts: list[Any] = []
    for group, column in columns.items():
        rows = pd.DataFrame(
            {
                "agent": frame["agent"].astype(str),
                "group": group,
                "run": frame["run"].astype(object),
                "window": frame["window"],
                "reveal_ratio": frame[column].astype(float),
            }
        ).dropna(subset="reveal_ratio")
        means = rows.groupby(["agent", "window"], as_index=False)["reveal_ratio"].mean()
        means.insert(1, "group", group)
        means.insert(2, "run", pd.Series([None] * len(means), dtype=object))
        parts += [means, rows.sort_values(["agent", "run", "window"])]
    data: pd.DataFrame = pd.concat(parts, ignore_index=True)
    styles = agent_styles(data["agent"])
    figure, panels = new_figure(len(columns), sharex=True, height=2.0 if len(columns) > 1 else 3.2)
    for axes, group in zip(panels[:, 0], columns, strict=True):
        here = data if group is None else data[data["group"] == group]
        for agent, style in styles.items():
            ours = here[here["agent"] == agent]
            for _, run in ours.dropna(subset="run").groupby("run"):
                axes.plot(run["window"], run["reveal_ratio"], color=style["color"], linewidth=0.7, alpha=0.45)
            mean = ours[ours["run"].isna()]
            marks = {"markersize": 4, "markevery": max(1, len(mean) // 12)}
            axes.plot(mean["window"], mean["reveal_ratio"], linewidth=1.8, **marks, **style)
        axes.set_ylim(-0.04, 1.04)
        axes.set_ylabel("Reveal ratio" if group is None else f"Reveal ratio,\ngroup {group}", fontsize=9)
    panels[-1, 0].set_xlabel("Hold window", fontsize=9)
    panels[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(f"Exposure, {plain_label(frame['env_id'].iloc[0])}", fontsize=11)
    draw_legend(figure, styles, runs_caption(frame), run_labels(frame, styles))
    return (figure, data) if return_data else figure


@overload
def plot_beta_density(frame: pd.DataFrame, *, num_ratios: int = ..., return_data: Literal[False] = False) -> Figure: ...
@overload
def plot_beta_density(
    frame: pd.DataFrame, *, num_ratios: int = ..., return_data: Literal[True]
) -> tuple[Figure, pd.DataFrame]: ...
def plot_beta_density(
    frame: pd.DataFrame, *, num_ratios: int = 101, return_data: bool = False
) -> Figure | tuple[Figure, pd.DataFrame]:
    """Draws the density of the Beta policy over windows, from the concentrations logged; a panel for each agent and group.

    The density is the mean over runs of theirs, so that runs that disagree show as two ridges and not as one between. The
    line is the mean of the policies, the dots are the ratios that were drawn from them.

    Args:
        frame: Rows of runs of one environment, with the columns ``agent/c1`` and ``agent/c2`` (with several groups
            ``agent/c1_0``, ...); rows of agents without a Beta policy, which lack them, are left out.
        num_ratios: Ratios between 0 and 1 at which the density is taken.
        return_data: Also return what was drawn: columns agent, group (null with a single one), window, reveal_ratio, density,
            ``mean`` (of the window's policies).

    Raises:
        AnalysisError: If no row has concentrations, or the frame is empty or mixes environments.
    """
    require_columns(frame, ("run", "env_id", "agent", "window", RATIO))
    groups: list[int | None] = [*group_numbers(frame, "agent/c1")] or [None]
    names = {
        group: tuple(f"agent/{name}{'' if group is None else f'_{group}'}" for name in ("c1", "c2")) for group in groups
    }
    require_columns(frame, [name for pair in names.values() for name in pair], "runs of the agent beta")
    rows = frame.dropna(subset=[name for pair in names.values() for name in pair])
    if rows.empty:
        raise AnalysisError(
            "frame: expected rows with agent/c1 and agent/c2, got only nulls; pass runs of the agent beta."
        )
    require_one_environment(rows)
    agents = sorted(rows["agent"].astype(str).unique())
    ratios = np.linspace(0.0, 1.0, num_ratios)
    places = [(agent, group) for agent in agents for group in groups]
    figure, panels = new_figure(len(places), sharex=True, height=2.2 if len(places) > 1 else 3.4)
    parts = []
    for axes, (agent, group) in zip(panels[:, 0], places, strict=True):
        ours = rows[rows["agent"].astype(str) == agent]
        data, mesh = _draw_density(axes, ours, names[group], RATIO if group is None else f"{RATIO}_{group}", ratios)
        axes.set_ylabel("Reveal ratio" if group is None else f"Reveal ratio,\ngroup {group}", fontsize=9)
        if len(agents) > 1:
            axes.set_title(f"{plain_label(agent)} ({_counted(ours['run'].nunique())})", fontsize=9)
        bar = figure.colorbar(mesh, ax=axes)
        bar.set_label("Density", fontsize=8)
        bar.ax.tick_params(labelsize=8)
        parts.append(data.assign(agent=agent, group=group))
    panels[-1, 0].set_xlabel("Hold window", fontsize=9)
    panels[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    whose = f"Policy of {plain_label(agents[0])}" if len(agents) == 1 else "Beta policies"
    figure.suptitle(f"{whose}, {plain_label(rows['env_id'].iloc[0])} ({_counted(rows['run'].nunique())})", fontsize=11)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    legend.set_title("Colour: density of the Beta policy, mean over runs.", prop={"size": 8})
    whole = pd.concat(parts, ignore_index=True)[["agent", "group", "window", "reveal_ratio", "density", "mean"]]
    return (figure, whole) if return_data else figure


def _draw_density(
    axes: Axes, rows: pd.DataFrame, names: tuple[str, ...], column: str, ratios: NDArray[np.float64]
) -> tuple[pd.DataFrame, QuadMesh]:
    """Draws one agent's and group's density, and returns it with the mesh that the colours are read from."""
    first, second = names
    c1, c2 = (rows[name].to_numpy(dtype=float)[:, None] for name in names)
    density: Any = stats.beta.pdf(ratios, c1, c2)
    table = pd.DataFrame(density, columns=ratios).groupby(rows["window"].to_numpy()).mean()
    # A cell reaches half a window to both sides.
    mesh = axes.pcolormesh(
        table.index.to_numpy(), ratios, table.to_numpy().T, cmap=COLOUR_MAP, shading="nearest", rasterized=True
    )
    mean = (rows[first] / (rows[first] + rows[second])).groupby(rows["window"]).mean()
    axes.plot(mean.index, mean, color="white", linewidth=3.4)
    axes.plot(mean.index, mean, color="black", linewidth=1.6, label="mean of the policies")
    dots: Any = {"color": "white", "markeredgecolor": "black", "markeredgewidth": 0.6, "markersize": 3.5}
    axes.plot(rows["window"], rows[column], "o", label="ratios drawn", **dots)
    axes.grid(visible=False)
    axes.set_ylim(0.0, 1.0)
    data = table.rename_axis("window").melt(ignore_index=False, var_name="reveal_ratio", value_name="density")
    data = data.reset_index().astype({"reveal_ratio": float}).sort_values(["window", "reveal_ratio"])
    return data.assign(mean=data["window"].map(mean)), mesh


def _counted(num_runs: int) -> str:
    return f"{num_runs} {'run' if num_runs == 1 else 'runs'}"
