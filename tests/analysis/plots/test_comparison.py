"""The picture of runs: what it draws, and what it refuses to draw."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import AnalysisError, learning_curves, plot_comparison, plot_exposure


def make_frame(agents: dict[str, int], windows: int = 6, accuracy_every: int = 0) -> pd.DataFrame:
    """Runs whose numbers can be told apart: NLL is 10 * window + seed, the ratio is seed / 10."""
    rows: list[dict[str, Any]] = [
        {
            "run": f"{agent}-{seed}",
            "env_id": "ATESD-Tiny-v0",
            "agent": agent,
            "seed": seed,
            "window": window,
            "exposure/reveal_ratio": seed / 10,
            "probe/nll": 10.0 * window + seed,
            "probe/accuracy": 0.1 * window if accuracy_every and window % accuracy_every == 0 else np.nan,
            "status": "running" if window < windows else "truncated",
        }
        for agent, num_seeds in agents.items()
        for seed in range(num_seeds)
        for window in range(1, windows + 1)
    ]
    return pd.DataFrame(rows).astype({"agent": "category", "env_id": "category", "status": "string", "run": "string"})


def curves(axes: Axes) -> list[Line2D]:
    """The lines of a panel, without the crosses."""
    return [line for line in axes.get_lines() if line.get_marker() != "X"]


def bands(axes: Axes) -> list[Any]:
    """The bands and bars of a panel."""
    return [item for item in axes.collections if isinstance(item, PolyCollection | LineCollection)]


def test_two_panels_share_windows_and_say_their_units() -> None:
    figure = plot_exposure(make_frame({"beta": 2, "fixed:1": 2}))
    assert isinstance(figure, Figure)
    ratio, nll = figure.axes
    assert ratio.get_ylabel() == "Reveal ratio\n(0..1)"
    assert nll.get_ylabel() == "Probe NLL\n(nats/token)"
    assert nll.get_xlabel() == "Hold window"
    assert ratio.get_shared_x_axes().joined(ratio, nll)
    assert "ATESD-Tiny-v0" in figure.get_suptitle()


def test_each_group_has_its_ratio_and_rollouts_their_length() -> None:
    frame = make_frame({"beta": 2}).assign(
        **{"exposure/reveal_ratio_0": 0.25, "exposure/reveal_ratio_1": 0.75, "rollout/length": 30.0}
    )
    figure = plot_exposure(frame)
    labels = ["Reveal ratio,\ngroup 0 (0..1)", "Reveal ratio,\ngroup 1 (0..1)", "Probe NLL\n(nats/token)"]
    assert [axes.get_ylabel() for axes in figure.axes] == [*labels, "Rollout length\n(tokens)"]
    heights = [curves(axes)[0].get_ydata()[0] for axes in figure.axes]
    assert heights == [0.25, 0.75, 10.5, 30.0]
    assert figure.axes[1].get_ylim() == figure.axes[0].get_ylim() == (-0.04, 1.04)
    alone = plot_exposure(frame.assign(**{"exposure/reveal_ratio_1": np.nan}))
    assert alone.axes[0].get_ylabel() == "Reveal ratio\n(0..1)"


def test_lines_are_means_and_bands_reach_from_lowest_to_highest_run() -> None:
    figure, data = plot_exposure(make_frame({"beta": 3}), return_data=True)
    nll = figure.axes[1]
    (line,) = curves(nll)
    np.testing.assert_allclose(line.get_xdata(), [1, 2, 3, 4, 5, 6])
    np.testing.assert_allclose(line.get_ydata(), [11, 21, 31, 41, 51, 61])
    (band,) = bands(nll)
    corners = band.get_paths()[0].vertices
    assert (corners[:, 1].min(), corners[:, 1].max()) == (10, 62)
    assert list(data.columns) == ["agent", "column", "window", "mean", "low", "high", "num_runs"]
    drawn = data[data["column"] == "probe/nll"]
    assert drawn["mean"].tolist() == [11, 21, 31, 41, 51, 61]
    assert drawn["low"].tolist() == [10, 20, 30, 40, 50, 60]
    assert drawn["high"].tolist() == [12, 22, 32, 42, 52, 62]
    assert drawn["num_runs"].tolist() == [3] * 6


def test_a_single_run_has_no_band() -> None:
    figure = plot_exposure(make_frame({"beta": 1}))
    assert [bands(axes) for axes in figure.axes] == [[], []]
    legend = figure.legends[0]
    assert legend.get_title().get_text() == "Line: a single run."
    assert [text.get_text() for text in legend.get_texts()] == ["beta (1 run)"]


def test_the_legend_says_what_the_band_is() -> None:
    legend = plot_exposure(make_frame({"fixed:1": 1, "beta": 3})).legends[0]
    assert legend.get_title().get_text() == "Line: mean over runs. Band or bar: lowest to highest run."
    assert [text.get_text() for text in legend.get_texts()] == ["beta (3 runs)", "fixed:1 (1 run)"]


def test_thirty_agents_are_told_apart_by_colour_style_and_marker_together() -> None:
    figure = plot_exposure(make_frame({f"agent {index:02}": 1 for index in range(30)}, windows=2))
    looks = {(str(line.get_color()), str(line._dash_pattern), line.get_marker()) for line in curves(figure.axes[0])}
    assert len(looks) == 30
    # The first few, which is what people compare, differ in each of the three alone.
    for look in ("get_color", "get_linestyle", "get_marker"):
        assert len({getattr(line, look)() for line in curves(figure.axes[0])[:4]}) == 4


def test_an_agent_looks_the_same_in_every_panel() -> None:
    figure = plot_exposure(make_frame({"beta": 1, "fixed:1": 1, "random": 1}, accuracy_every=1))
    colours = [[line.get_color() for line in curves(axes)] for axes in figure.axes]
    assert len(set(colours[0])) == 3
    assert colours[0] == colours[1] == colours[2]


def test_accuracy_is_drawn_only_where_it_was_measured() -> None:
    figure, data = plot_exposure(make_frame({"beta": 2}, windows=6, accuracy_every=3), return_data=True)
    assert len(figure.axes) == 3
    (line,) = curves(figure.axes[2])
    # Gaps are NaN between the measurements, at which matplotlib breaks a line; every marker is drawn.
    np.testing.assert_allclose(line.get_ydata(), [np.nan, np.nan, 0.3, np.nan, np.nan, 0.6])
    assert line.get_markevery() == 1
    assert [type(item) for item in bands(figure.axes[2])] == [LineCollection]
    accuracy = data[data["column"] == "probe/accuracy"]
    assert accuracy["num_runs"].tolist() == [0, 0, 2, 0, 0, 2]


def test_a_window_without_a_row_is_a_gap_too() -> None:
    frame = make_frame({"beta": 1}, windows=5)
    (line,) = curves(plot_exposure(frame[frame["window"] != 3]).axes[1])
    np.testing.assert_allclose(line.get_ydata(), [10, 20, np.nan, 40, 50])


def test_accuracy_that_was_never_measured_has_no_panel() -> None:
    frame = make_frame({"beta": 1})
    assert len(plot_exposure(frame).axes) == 2
    assert len(plot_exposure(frame.drop(columns="probe/accuracy")).axes) == 2


def test_a_run_that_ended_early_is_marked() -> None:
    frame = make_frame({"beta": 2}, windows=6)
    frame.loc[(frame["seed"] == 1) & (frame["window"] == 4), "status"] = "terminated"
    frame = frame[~((frame["seed"] == 1) & (frame["window"] > 4))]
    figure, data = plot_exposure(frame, return_data=True)
    (cross,) = [line for line in figure.axes[1].get_lines() if line.get_marker() == "X"]
    assert (list(cross.get_xdata()), list(cross.get_ydata())) == ([4], [41])
    assert figure.legends[0].get_title().get_text().endswith("Cross: a run ended early.")
    ratios, losses = (data[data["column"] == name] for name in ("exposure/reveal_ratio", "probe/nll"))
    assert ratios["num_runs"].tolist() == [2, 2, 2, 2, 1, 1]
    curves = learning_curves(frame, "probe/nll")
    assert losses["mean"].tolist() == curves["mean"].tolist(), "one student, one number in both pictures"
    assert losses["num_runs"].tolist() == [2] * 6, "a student that broke stays at its worst"


def test_the_frame_stays_unchanged() -> None:
    frame = make_frame({"beta": 2, "fixed:1": 1}, accuracy_every=2)
    before = frame.copy(deep=True)
    plot_exposure(frame, return_data=True)
    pd.testing.assert_frame_equal(frame, before)


def test_a_filtered_frame_draws_only_its_agents() -> None:
    frame = make_frame({"beta": 1, "fixed:1": 1})
    figure, data = plot_exposure(frame[frame["agent"] == "fixed:1"], return_data=True)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["fixed:1 (1 run)"]
    assert data["agent"].unique().tolist() == ["fixed:1"]


def test_frames_with_plain_and_with_nullable_types_are_drawn() -> None:
    frame = make_frame({"beta": 2}, accuracy_every=3)
    plain = frame.astype({"agent": object, "env_id": object, "status": object, "run": object})
    nullable = frame.astype({"probe/accuracy": "Float64", "probe/nll": "Float64"})
    for other in (plain, nullable):
        (line,) = curves(plot_exposure(other).axes[2])
        np.testing.assert_allclose(line.get_ydata(), [np.nan, np.nan, 0.3, np.nan, np.nan, 0.6])


@pytest.mark.parametrize("name", ["run", "env_id", "agent", "window", "exposure/reveal_ratio", "probe/nll"])
def test_a_missing_column_is_a_clear_error(name: str) -> None:
    with pytest.raises(AnalysisError, match=f"got none of {name}; pass what load_runs returns"):
        plot_exposure(make_frame({"beta": 1}).drop(columns=name))


def test_an_empty_frame_is_a_clear_error() -> None:
    with pytest.raises(AnalysisError, match="expected at least one row, got none"):
        plot_exposure(make_frame({"beta": 1}).iloc[:0])


def test_two_environments_are_a_clear_error() -> None:
    other = make_frame({"beta": 1}).assign(env_id="ATESD-Toy-v0")
    with pytest.raises(
        AnalysisError, match="expected runs of one environment, got ATESD-Tiny-v0, ATESD-Toy-v0; choose one"
    ):
        plot_exposure(pd.concat([make_frame({"beta": 1}), other], ignore_index=True))


def test_a_column_of_nothing_is_a_clear_error() -> None:
    with pytest.raises(AnalysisError, match="expected numbers in the column probe/nll, got only nulls"):
        plot_exposure(make_frame({"beta": 1}).assign(**{"probe/nll": np.nan}))


def test_the_figure_can_be_saved_without_anything_cut_off(tmp_path: Path) -> None:
    figure = plot_exposure(make_frame({f"staged:0.{index}:0.9": 2 for index in range(7)}, accuracy_every=2))
    figure.savefig(tmp_path / "exposure.png")
    assert (tmp_path / "exposure.png").read_bytes().startswith(b"\x89PNG")
    inside = figure.bbox
    for artist in (figure.legends[0], *(axes.yaxis.label for axes in figure.axes), figure.axes[-1].xaxis.label):
        box = artist.get_window_extent()
        assert inside.x0 <= box.x0 <= box.x1 <= inside.x1
        assert inside.y0 <= box.y0 <= box.y1 <= inside.y1
    assert figure.legends[0].get_window_extent().y1 <= figure.axes[-1].xaxis.label.get_window_extent().y0


def test_pyplot_is_never_imported() -> None:
    code = "import sys, analysis; print('matplotlib.pyplot' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def comparison_of(*agents: str, metrics: tuple[str, ...] = ("probe/nll",), has_fixed: bool = True) -> pd.DataFrame:
    """A comparison whose numbers can be told apart: agent k has the mean k, and intervals of +- 0.5."""
    lines = []
    for metric in metrics:
        for index, agent in enumerate(agents):
            difference = index - 1.0 if has_fixed else np.nan
            line: dict[str, Any] = {"metric": metric, "higher_is_better": metric != "probe/nll", "agent": agent}
            line |= {"mean": float(index), "low": index - 0.5, "high": index + 0.5}
            for name in ("to_reference", "to_best_fixed"):
                line |= {name: difference, f"{name}_low": difference - 0.5, f"{name}_high": difference + 0.5}
            to_best = index if len(agents) > 1 else np.nan
            line |= {"to_best": to_best, "to_best_low": to_best - 0.5, "to_best_high": to_best + 0.5, "best": agents[0]}
            lines.append({**line, "reference": "fixed:1" if has_fixed else None})
    return pd.DataFrame(lines)


def test_a_forest_plot_has_a_point_and_an_interval_for_each_agent_the_best_on_top() -> None:
    comparison = comparison_of("beta", "fixed:1", "random")
    before = comparison.copy()
    figure = plot_comparison(comparison)
    reference, best = figure.axes
    assert reference.get_xlabel() == "probe/nll minus fixed:1 (better: left)"
    assert best.get_xlabel() == "probe/nll minus best fixed ratio (better: left)"
    points = next(line for line in reference.get_lines() if line.get_marker() == "o")
    assert list(points.get_xdata()) == [-1.0, 0.0, 1.0]
    labels = {
        tick: label.get_text() for tick, label in zip(reference.get_yticks(), reference.get_yticklabels(), strict=True)
    }
    assert [labels[place] for place in points.get_ydata()] == ["beta", "fixed:1", "random"]
    assert points.get_ydata()[0] == max(points.get_ydata())
    (intervals,) = [item for item in reference.collections if isinstance(item, LineCollection)]
    assert [segment[:, 0].tolist() for segment in intervals.get_segments()] == [[-1.5, -0.5], [-0.5, 0.5], [0.5, 1.5]]
    pd.testing.assert_frame_equal(comparison, before)


def test_without_a_fixed_ratio_the_differences_to_the_best_are_drawn_and_of_one_agent_the_mean() -> None:
    figure = plot_comparison(comparison_of("beta", "random", metrics=("probe/accuracy", "return"), has_fixed=False))
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "probe/accuracy minus beta (better: right)",
        "return minus beta (better: right)",
    ]
    alone = plot_comparison(comparison_of("beta", has_fixed=False))
    assert [axes.get_xlabel() for axes in alone.axes] == ["probe/nll (better: left)"]


def test_an_empty_comparison_is_refused() -> None:
    with pytest.raises(AnalysisError, match="expected at least one agent"):
        plot_comparison(comparison_of())
