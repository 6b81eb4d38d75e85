"""The picture of a bench: who reaches how much on how many runs, and the interquartile means with their intervals."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.bench import GAIN, profiles, score_agents
from analysis.plots.style import agent_styles, draw_legend, new_figure, plain_label

_NUM_THRESHOLDS = 101


@overload
def plot_bench(outcomes: pd.DataFrame, measure: str = GAIN, *, return_data: Literal[False] = False) -> Figure: ...
@overload
def plot_bench(
    outcomes: pd.DataFrame, measure: str = GAIN, *, return_data: Literal[True]
) -> tuple[Figure, pd.DataFrame]: ...
def plot_bench(
    outcomes: pd.DataFrame, measure: str = GAIN, *, return_data: bool = False
) -> Figure | tuple[Figure, pd.DataFrame]:
    """Draws the performance profile of each agent, and its interquartile mean with its interval.

    Args:
        outcomes: What ``analysis.bench.with_gains`` returns; it is left unchanged.
        measure: What is drawn: the gain, or a measure.
        return_data: Also return the lines of the profile.

    Raises:
        AnalysisError: If nothing has the measure, or an agent lacks an instance.
    """
    scores = score_agents(outcomes, measure)
    values = outcomes[measure].dropna()
    low, high = (0.0, 1.0) if measure == GAIN else (float(values.min()), float(values.max()))
    thresholds = np.linspace(min(low, float(values.min())), max(high, float(values.max())), _NUM_THRESHOLDS)
    data = profiles(outcomes, measure, thresholds.tolist())
    styles = agent_styles(scores["agent"])
    figure, panels = new_figure(1, 2, width=9.0, height=1.2 + 0.28 * len(scores))
    left, right = panels[0]
    for agent, style in styles.items():
        lines = data[data["agent"] == agent]
        left.plot(lines["threshold"], lines["share"], linewidth=1.6, **{**style, "marker": ""})
    name = "normalised gain (0 fixed:1, 1 oracle)" if measure == GAIN else measure
    left.set_xlabel(name, fontsize=8)
    left.set_ylabel("share of runs beyond", fontsize=8)
    places: Any = range(len(scores))[::-1]
    right.hlines(
        places, scores["iqm_low"], scores["iqm_high"], colors=[styles[one]["color"] for one in scores["agent"]]
    )
    for place, (_, line) in zip(places, scores.iterrows(), strict=True):
        right.plot(line["iqm"], place, markersize=5, **{**styles[line["agent"]], "linestyle": ""})
    right.set_yticks(places, [plain_label(agent, 34) for agent in scores["agent"]], fontsize=8)
    right.set_ylim(-0.6, len(scores) - 0.4)
    right.set_xlabel(f"interquartile mean: {name}", fontsize=8)
    draw_legend(figure, styles, "95% intervals from seeds within each instance")
    return (figure, data) if return_data else figure
