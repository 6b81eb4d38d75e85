"""A run so far, as text and as a picture: pure functions of its rows.

Both take the rows in the order of their windows. A column that a row lacks, or whose value is null or not finite, is
left out of the picture, and a dash in the text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from atesd_env.envs.columns import Row

HEIGHT, WIDTH = 480, 640
"""Size of the picture in pixels: even numbers, which video encoders want."""

_DPI = 100
_TABLE_WINDOWS = 10
_BAR_LENGTH = 20
_GROUP_COLUMN = re.compile(r"exposure/reveal_ratio_(\d+)")


def render(rows: Sequence[Row], windows: int, mode: str | None) -> str | NDArray[np.uint8] | None:
    """Returns a run so far as a render mode wants it: text ("ansi"), a picture ("rgb_array"), or None without a mode."""
    if mode is None:
        return None
    return render_ansi(rows, windows) if mode == "ansi" else render_rgb(rows, windows)


def render_ansi(rows: Sequence[Row], windows: int) -> str:
    """Returns a table of the last ten windows: reveal ratio as a bar, probe NLL, probe accuracy and reward.

    Args:
        rows: Rows of the windows made so far; may be empty.
        windows: Windows of the episode.
    """
    done = int(_number(rows[-1], "window")) if rows else 0
    lines = [f"window {done} of {windows}"]
    if rows:
        groups = _group_columns(rows)
        header = f"{'window':>6}  {'reveal ratio':<{_BAR_LENGTH + 5}}  {'probe NLL':>9}  {'accuracy':>8}  {'reward':>8}"
        lines.append(header + ("  ratio by group" if groups else ""))
        lines.extend(_table_line(row, groups) for row in rows[-_TABLE_WINDOWS:])
    return "\n".join(lines)


def render_rgb(rows: Sequence[Row], windows: int) -> NDArray[np.uint8]:
    """Returns a picture of reveal ratio, probe NLL and success rates over windows, uint8 [HEIGHT, WIDTH, 3].

    The size is the same for every call, so that pictures of one run make a film.

    Args:
        rows: Rows of the windows made so far; may be empty.
        windows: Windows of the episode; the picture's right end.
    """
    # Imported here: who never renders needs no matplotlib.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(WIDTH / _DPI, HEIGHT / _DPI), dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    ratio_axes, nll_axes, rate_axes = figure.subplots(3, 1, sharex=True)
    # Fixed margins and label places keep every frame's axes where they are while tick labels grow.
    figure.subplots_adjust(left=0.15, right=0.97, top=0.92, bottom=0.105, hspace=0.2)

    window = _values(rows, "window")
    for name in _group_columns(rows):
        ratio_axes.plot(window, _values(rows, name), ":", color="#7f7f7f", linewidth=1.2, marker=".", markersize=3)
    for axes, name, colour, marker, label in (
        (ratio_axes, "exposure/reveal_ratio", "#0072B2", "o", None),
        (nll_axes, "probe/nll", "#D55E00", "s", None),
        (rate_axes, "rollout/success_rate", "#009E73", "^", "rollouts"),
        (rate_axes, "probe/accuracy", "#000000", "D", "probe, greedy"),
    ):
        # matplotlib breaks a line at NaN, so that a window without a measurement stays a gap.
        values = _values(rows, name)
        axes.plot(window, values, color=colour, marker=marker, markersize=3.5, linewidth=1.5, label=label)

    last = max(windows, int(_number(rows[-1], "window")) if rows else 0)
    y_labels = {ratio_axes: "reveal ratio", nll_axes: "probe NLL\n(nats/token)", rate_axes: "share right"}
    for axes, y_label in y_labels.items():
        axes.set_ylabel(y_label, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.yaxis.set_label_coords(-0.1, 0.5)
    for axes in (ratio_axes, rate_axes):
        axes.set_ylim(-0.06, 1.06)
    if np.isfinite(_values(rows, "probe/nll")).any():
        nll_axes.ticklabel_format(axis="y", useOffset=False)
    else:
        nll_axes.set_yticks([])
    rate_axes.set_xlim(0.5, last + 0.5)
    rate_axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    rate_axes.set_xlabel("hold window", fontsize=9, loc="left")
    # Below the axes, where it hides no curve.
    figure.legend(loc="lower right", bbox_to_anchor=(0.98, 0.0), fontsize=8, ncols=2, frameon=False)
    figure.suptitle(_title(rows, windows), fontsize=11)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _title(rows: Sequence[Row], windows: int) -> str:
    if not rows:
        return f"window 0 of {windows}"
    row = rows[-1]
    return (
        f"window {int(_number(row, 'window'))} of {windows}, reveal ratio {_text(row, 'exposure/reveal_ratio', 2)}, "
        f"probe NLL {_text(row, 'probe/nll', 3)}"
    )


def _table_line(row: Row, groups: list[str]) -> str:
    ratio = _number(row, "exposure/reveal_ratio")
    filled = round(min(max(ratio, 0.0), 1.0) * _BAR_LENGTH) if math.isfinite(ratio) else 0
    cells = (
        f"{_text(row, 'window', 0):>6}",
        f"{'█' * filled}{'·' * (_BAR_LENGTH - filled)} {_text(row, 'exposure/reveal_ratio', 2):>4}",
        f"{_text(row, 'probe/nll', 4):>9}",
        f"{_text(row, 'probe/accuracy', 3):>8}",
        f"{_text(row, 'reward/total', 4):>8}",
        *([" ".join(_text(row, name, 2) for name in groups)] if groups else []),
    )
    return "  ".join(cells)


def _group_columns(rows: Sequence[Row]) -> list[str]:
    names = {name for row in rows for name in row if _GROUP_COLUMN.fullmatch(name)}
    return sorted(names, key=lambda name: int(name.rsplit("_", 1)[1]))


def _values(rows: Sequence[Row], name: str) -> NDArray[np.float64]:
    return np.asarray([_number(row, name) for row in rows], dtype=np.float64)


def _number(row: Row, name: str) -> float:
    value = row.get(name)
    return float("nan") if value is None or not math.isfinite(value) else float(value)


def _text(row: Row, name: str, digits: int) -> str:
    number = _number(row, name)
    return "-" if math.isnan(number) else f"{number:.{digits}f}"
