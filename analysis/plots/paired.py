"""The forest plot of paired differences."""

from __future__ import annotations

from typing import Literal, overload

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.checks import require_columns
from analysis.plots.style import COLOURS, label_of, new_figure, plain_label


@overload
def plot_paired_differences(differences: pd.DataFrame, *, return_data: Literal[False] = False) -> Figure: ...
@overload
def plot_paired_differences(
    differences: pd.DataFrame, *, return_data: Literal[True]
) -> tuple[Figure, pd.DataFrame]: ...
def plot_paired_differences(
    differences: pd.DataFrame, *, return_data: bool = False
) -> Figure | tuple[Figure, pd.DataFrame]:
    """Draws each agent's mean difference to the reference with its interval, the best on top.

    A filled marker is an interval that leaves out 0; where a difference is from a single seed there is no interval, and a cross.
    At the right stand the number of pairs and the probability that a run of the agent beats one of the reference.

    Args:
        differences: What ``paired_differences`` returns, of one measure or several (one panel each).
        return_data: Also return what was drawn, with a column ``is_clear`` (the interval leaves out 0).

    Raises:
        AnalysisError: If the frame is empty, or lacks a column.
    """
    needed = ("agent", "reference", "measure", "higher_is_better", "num_pairs", "mean", "low", "high", "improvement")
    require_columns(differences, needed, "what paired_differences returns")
    data = differences[list(needed)].assign(is_clear=(differences["low"] > 0) | (differences["high"] < 0))
    measures = list(dict.fromkeys(data["measure"]))
    most = data.groupby("measure")["agent"].size().max()
    figure, panels = new_figure(len(measures), width=7.0, height=0.7 + 0.3 * most)
    for axes, measure in zip(panels[:, 0], measures, strict=True):
        rows = data[data["measure"] == measure]
        places = np.arange(len(rows))[::-1]
        axes.axvline(0.0, color="black", linewidth=0.9)
        axes.hlines(places, rows["low"], rows["high"], color=COLOURS[0], linewidth=2)
        for place, row in zip(places, rows.itertuples(), strict=True):
            marker = "o" if np.isfinite(row.low) else "x"
            face = COLOURS[0] if row.is_clear else "white"
            axes.plot(
                row.mean, place, marker, color=COLOURS[0], markerfacecolor=face, markersize=6, markeredgewidth=1.5
            )
            text = f"{row.num_pairs} {'pair' if row.num_pairs == 1 else 'pairs'}, P(better) {row.improvement:.2f}"
            axes.annotate(text, (1.01, place), xycoords=("axes fraction", "data"), fontsize=8, va="center")
        axes.set_yticks(places, [plain_label(agent, 34) for agent in rows["agent"]], fontsize=8)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(visible=False, axis="y")
        first = rows.iloc[0]
        name = " ".join(label_of(measure).split("\n"))
        better = "right" if first["higher_is_better"] else "left"
        axes.set_xlabel(f"{name}, minus {plain_label(first['reference'])} (better: {better})", fontsize=9)
    figure.suptitle("Differences paired by seed: means, and intervals that hold together (95%)", fontsize=11)
    marks = ["filled: the interval leaves out 0"] if data["low"].notna().any() else []
    marks += ["cross: a single pair"] if data["low"].isna().any() else []
    panels[0, 0].set_title(", ".join(marks).capitalize(), fontsize=8)
    return (figure, data) if return_data else figure
