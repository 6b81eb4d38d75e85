"""How pictures look: colours for the colour-blind, line styles and markers for print in grey, shared axes and legends."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from analysis.columns import unit_of
from analysis.samples import printable

# Okabe and Ito's colours, which colour-blind people tell apart; no yellow, which is lost on white. With the line styles
# and markers, whose numbers share no divisor, a combination repeats only after 280 agents.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito's colours, told apart by colour-blind readers."""
LINE_STYLES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
"""Matplotlib's line styles, so that lines differ in grey as well."""
MARKERS = ("o", "s", "^", "D", "v", "P", "<", ">")
"""Matplotlib's markers, so that points differ in grey as well."""

COLOUR_MAP = "cividis"
"""For maps: its lightness grows evenly, so that it reads the same in grey and to the colour-blind."""

NAMES = {
    "exposure/reveal_ratio": "Reveal ratio",
    "probe/nll": "Probe NLL",
    "probe/accuracy": "Probe accuracy",
    "probe/pass_at_k": "Probe pass@k",
    "probe/grounded": "Teacher-grounded score",
    "student/mismatch": "Mismatch",
    "student/loss": "Loss",
    "student/entropy": "Student entropy",
    "teacher/entropy": "Teacher entropy",
    "rollout/length": "Rollout length",
    "rollout/success_rate": "Rollout success",
    "rollout/truncation_rate": "Truncated rollouts",
    "reward/total": "Reward",
    "reward/progress": "Learning progress",
    "return": "Return",
    "area": "Mean height of the curve",
}
"""What columns are called in pictures; others by their own names."""


def label_of(column: str) -> str:
    """Returns a column's label: its name and, in a second line, its unit."""
    unit = unit_of(column)
    return NAMES.get(column, column) + (f"\n({unit})" if unit else "")


def plain_label(text: object, longest: int = 44) -> str:
    r"""Returns a name of a user's or a file's as a label: one line, no formula, the middle left out where it is long.

    >>> plain_label("a$b$"), plain_label("x" * 9, longest=7)
    ('a\\$b\\$', 'xxx ... xxx')
    """
    # Fonts have a sign for what is no character, and none for the names of control characters.
    line = re.sub("[\u2400-\u241f]", "\ufffd", " ".join(printable(text, 1000).split()))
    if len(line) > longest:
        line = f"{line[: longest // 2]} ... {line[-(longest // 2) :]}"
    return line.replace("$", r"\$")


def agent_styles(agents: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Returns colour, line style and marker of each agent, by its place among the sorted names."""
    return {
        agent: {
            "color": COLOURS[index % len(COLOURS)],
            "linestyle": LINE_STYLES[index % len(LINE_STYLES)],
            "marker": MARKERS[index % len(MARKERS)],
        }
        for index, agent in enumerate(sorted(set(agents)))
    }


def new_figure(
    num_rows: int = 1, num_columns: int = 1, *, width: float = 7.5, height: float = 2.2, **shared: Any
) -> Any:
    """Returns a figure and its panels [num_rows, num_columns].

    Args:
        num_rows: Rows of panels.
        num_columns: Columns of panels.
        width: Of the figure, in inches.
        height: Of a row, in inches.
        shared: Arguments of ``Figure.subplots``.
    """
    figure = Figure(figsize=(width, 1.3 + height * num_rows), dpi=120, layout="constrained")
    panels: NDArray[Any] = figure.subplots(num_rows, num_columns, squeeze=False, **shared)
    for axes in panels.ravel():
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25, linewidth=0.6)
    return figure, panels


def draw_line(axes: Axes, x: Any, middle: Any, low: Any, high: Any, style: dict[str, Any]) -> None:
    """Draws a line with markers and, where there is one, the band around it."""
    x, middle, low, high = (np.asarray(values, dtype=float) for values in (x, middle, low, high))
    axes.plot(x, middle, linewidth=1.6, markersize=4, markevery=max(1, len(x) // 12), **style)
    if np.isfinite(low).any():
        axes.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0)


def draw_legend(figure: Figure, styles: dict[str, dict[str, Any]], caption: str, labels: Sequence[str] = ()) -> None:
    """Draws the agents' legend below the panels, with a sentence that says what is drawn.

    Args:
        figure: The figure.
        styles: What ``agent_styles`` returns.
        caption: The sentence.
        labels: One for each agent, as it stands there (``plain_label``); without, the agents' names.
    """
    names = list(labels) or [plain_label(agent) for agent in styles]
    handles = [
        Line2D([], [], label=name, markersize=5, **style) for name, style in zip(names, styles.values(), strict=True)
    ]
    figure.legend(
        handles=handles,
        title=caption,
        loc="outside lower center",
        ncols=legend_columns(figure, names),
        fontsize=8,
        title_fontsize=8,
        frameon=False,
        handlelength=4,
    )


def legend_columns(figure: Figure, labels: Sequence[object]) -> int:
    """Returns how many columns of a legend, three at most, fit into a figure's width."""
    # A letter of a legend is about 0.07 inches wide, and a handle takes 0.7.
    widest = 0.07 * max((len(str(label)) for label in labels), default=0) + 0.7
    return int(np.clip(figure.get_figwidth() // widest, 1, min(max(len(labels), 1), 3)))


def run_labels(frame: pd.DataFrame, agents: Iterable[str]) -> list[str]:
    """Returns each agent's name with its number of runs, such as "beta (3 runs)"."""
    counts = frame.groupby(frame["agent"].astype(str))["run"].nunique()
    return [f"{plain_label(agent)} ({counts[agent]} {'run' if counts[agent] == 1 else 'runs'})" for agent in agents]


def runs_caption(frame: pd.DataFrame) -> str:
    """Returns the sentence below lines of runs and of their means: whose mean it is, and how many students broke."""
    text = "Thick line: mean over the runs that made the window. Thin lines: the runs."
    if "status" not in frame:
        return text
    broken = frame.loc[(frame["status"] == "terminated").fillna(False).astype(bool), "run"].nunique()
    number = frame["run"].nunique()
    return (
        f"{text}\nOf {number} students {broken} broke, and {'is' if broken == 1 else 'are'} in it until then."
        if broken
        else text
    )


def data_address(figure: Figure) -> str:
    """Returns a figure as an address that holds the picture itself, for a page that loads nothing."""
    content = io.BytesIO()
    # Without the software's name: the same runs give the same bytes.
    figure.savefig(content, format="png", metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
