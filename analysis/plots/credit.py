"""The picture of what decisions were credited for."""

from __future__ import annotations

from typing import Literal, overload

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.checks import require_columns, require_one_environment
from analysis.credit import PARTS
from analysis.plots.style import COLOURS, new_figure, plain_label

# Colour and hatch of each part: lightness falls from the first to the last, and hatches tell them apart in print.
_LOOKS = {
    "own_progress": ("progress in its own window", COLOURS[5], ""),
    "later_progress": ("progress in the windows after it", COLOURS[4], "///"),
    "discount": ("taken away by discounting", "#ffffff", "xxx"),
    "grounded": ("teacher-grounded score", COLOURS[0], "..."),
}


@overload
def plot_credit(parts: pd.DataFrame, *, return_data: Literal[False] = False) -> Figure: ...
@overload
def plot_credit(parts: pd.DataFrame, *, return_data: Literal[True]) -> tuple[Figure, pd.DataFrame]: ...
def plot_credit(parts: pd.DataFrame, *, return_data: bool = False) -> Figure | tuple[Figure, pd.DataFrame]:
    """Draws what the mean decision of each agent was credited with: a bar of the parts of R, and R itself as a diamond.

    Parts above 0 are stacked to the right and parts below 0 to the left, so that their lengths are what they are; R is their sum.

    Args:
        parts: What ``credit_decomposition`` returns, of one environment.
        return_data: Also return what was drawn: columns agent, part, value, ``begin`` (where its bar begins), in nats per token;
            R is the part "returns".

    Raises:
        AnalysisError: If the frame is empty, lacks a column, or mixes environments.
    """
    require_columns(parts, ("env_id", "agent", "returns", *PARTS), "what credit_decomposition returns")
    require_one_environment(parts)
    rows = parts.sort_values("returns", ascending=False, kind="stable")
    places = np.arange(len(rows))[::-1]
    figure, panels = new_figure(width=7.0, height=0.8 + 0.3 * len(rows))
    axes = panels[0, 0]
    ends = {1.0: np.zeros(len(rows)), -1.0: np.zeros(len(rows))}
    drawn = []
    for part in PARTS:
        label, colour, hatch = _LOOKS[part]
        values = rows[part].to_numpy(dtype=float)
        begin = np.where(values >= 0, ends[1.0], ends[-1.0])
        axes.barh(
            places, values, 0.62, left=begin, color=colour, hatch=hatch, edgecolor="black", linewidth=0.7, label=label
        )
        for sign, end in ends.items():
            end += np.where(np.sign(values) == sign, values, 0.0)
        drawn.append(pd.DataFrame({"agent": rows["agent"].astype(str), "part": part, "value": values, "begin": begin}))
    returns = rows["returns"].to_numpy(dtype=float)
    axes.plot(
        returns, places, "D", color="white", markeredgecolor="black", markersize=6, linestyle="", label="R, their sum"
    )
    drawn.append(pd.DataFrame({"agent": rows["agent"].astype(str), "part": "returns", "value": returns, "begin": 0.0}))
    axes.axvline(0.0, color="black", linewidth=0.9)
    axes.set_yticks(places, [plain_label(agent, 34) for agent in rows["agent"]], fontsize=8)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("Mean over decisions (nats/token)", fontsize=9)
    figure.suptitle(f"What decisions were credited for, {plain_label(rows['env_id'].iloc[0])}", fontsize=11)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    data = pd.concat(drawn, ignore_index=True)
    return (figure, data) if return_data else figure
