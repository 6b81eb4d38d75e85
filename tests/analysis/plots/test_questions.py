"""Pictures of one question each: what they draw and hand back, that their frames stay as they are, what they refuse."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.figure import Figure
from scipy import stats

import analysis
from analysis import (
    AnalysisError,
    agent_means,
    compare_agents,
    learning_curves,
    mismatch_by_ratio,
    paired_differences,
    plot_beta_density,
    plot_comparison,
    plot_counterfactual,
    plot_credit,
    plot_exposure,
    plot_exposure_trajectories,
    plot_health,
    plot_learning_curves,
    plot_mismatch_by_ratio,
    plot_paired_differences,
    plot_ratio_sweep,
)

AGENTS = ("beta", "fixed:0", "fixed:0.5", "fixed:1")


def frame_of(num_seeds: int = 3, windows: int = 4, groups: int = 1) -> pd.DataFrame:
    """Runs whose numbers can be told apart."""
    lines: list[dict[str, Any]] = []
    for agent in AGENTS:
        for seed in range(num_seeds):
            for window in range(1, windows + 1):
                ratio = 0.1 * seed + 0.05 * window if agent == "beta" else float(agent.partition(":")[2])
                line = {
                    "run": f"{agent}-{seed}",
                    "env_id": "ATESD-Tiny-v0",
                    "agent": agent,
                    "seed": seed,
                    "window": window,
                    "exposure/reveal_ratio": ratio,
                    "student/mismatch": 0.5 + ratio + 0.01 * seed,
                    "student/entropy": 1.0 / window + 0.01 * seed,
                    "rollout/length": 10.0 * window + seed,
                    "probe/nll": 2.0 / window + 0.1 * seed - (ratio if agent != "beta" else 0.2),
                    "probe/accuracy": 0.1 * window if window % 2 == 0 else np.nan,
                }
                names = [""] if groups == 1 else [f"_{group}" for group in range(groups)]
                for name in names if agent == "beta" else []:
                    line |= {f"agent/c1{name}": 2.0 + seed, f"agent/c2{name}": 4.0}
                for group in range(groups if groups > 1 else 0):
                    line[f"exposure/reveal_ratio_{group}"] = ratio * (group + 1) / groups
                lines.append(line)
    frame = pd.DataFrame(lines)
    return frame.astype({"run": "string", "agent": "category", "env_id": "category", "seed": "Int64"})


def outcomes_of() -> pd.DataFrame:
    """The last rows of runs."""
    frame = frame_of()
    return frame[frame["window"] == 4]


def differences_of() -> pd.DataFrame:
    """Differences to full exposure."""
    return paired_differences(outcomes_of(), "probe/nll", "fixed:1")


def counterfactual_of() -> pd.DataFrame:
    """Branches of two windows from two states of two seeds; ratio 0.5 is best in state 0 and 1.0 in state 6."""
    lines = [
        {
            "done": done,
            "seed": seed,
            "branch": branch,
            "reveal_ratio": ratio,
            "offset": offset,
            "return": (1.0 - abs(ratio - (0.5 if done == 0 else 1.0))) * offset + 10 * seed,
            "probe/nll": -(1.0 - abs(ratio - (0.5 if done == 0 else 1.0))) * offset,
        }
        for done in (0, 6)
        for seed in range(2)
        for branch, ratio in enumerate((0.0, 0.5, 1.0))
        for offset in (1, 2)
    ]
    return pd.DataFrame(lines)


def credit_of() -> pd.DataFrame:
    """Parts of R of two agents, one of them with a part below 0 on each side."""
    lines = [("beta", 0.5, 1.0, -0.25, -0.125), ("fixed:1", 0.25, -0.5, 0.125, 0.0)]
    frame = pd.DataFrame(lines, columns=["agent", "own_progress", "later_progress", "discount", "grounded"])
    return frame.assign(env_id="ATESD-Tiny-v0", returns=frame.drop(columns="agent").sum(axis=1))


def comparison_of() -> pd.DataFrame:
    """What ``compare_agents`` returns."""
    costs = {"is_broken": False, "num_updates": 4, "num_tokens": 10, "num_trained_tokens": 10}
    costs |= {"controller_sec": 1.0, "run_sec": 2.0}
    return compare_agents(outcomes_of().assign(**costs), ["probe/nll"])


PLOTS: dict[str, tuple[Callable[..., Any], Callable[[], pd.DataFrame], dict[str, Any]]] = {
    "trajectories": (plot_exposure_trajectories, frame_of, {}),
    "trajectories of groups": (plot_exposure_trajectories, lambda: frame_of(groups=3), {}),
    "beta": (plot_beta_density, frame_of, {}),
    "beta of groups": (plot_beta_density, lambda: frame_of(groups=2), {}),
    "learning": (plot_learning_curves, frame_of, {}),
    "health": (plot_health, frame_of, {}),
    "mismatch": (plot_mismatch_by_ratio, frame_of, {}),
    "mismatch in stretches": (plot_mismatch_by_ratio, frame_of, {"edges": [0.0, 0.4, 0.8, 1.0]}),
    "sweep": (plot_ratio_sweep, outcomes_of, {"measure": "probe/nll"}),
    "forest": (plot_paired_differences, differences_of, {}),
    "counterfactual": (plot_counterfactual, counterfactual_of, {}),
    "credit": (plot_credit, credit_of, {}),
    "exposure and learning": (plot_exposure, frame_of, {}),
    "comparison": (plot_comparison, comparison_of, {}),
}


@pytest.mark.parametrize(("plot", "make_frame", "arguments"), PLOTS.values(), ids=PLOTS)
def test_every_plot_leaves_its_frame_alone_and_hands_back_what_it_drew(
    plot: Callable[..., Any], make_frame: Callable[[], pd.DataFrame], arguments: dict[str, Any], tmp_path: Path
) -> None:
    frame = make_frame()
    before = frame.copy(deep=True)
    figure, data = plot(frame, **arguments, return_data=True)
    pd.testing.assert_frame_equal(frame, before)
    assert isinstance(data, pd.DataFrame)
    assert len(data) > 0
    data["mine"] = 1  # what is handed back is the caller's
    pd.testing.assert_frame_equal(frame, before)
    assert isinstance(plot(frame, **arguments), Figure)
    figure.savefig(tmp_path / "plot.png")
    inside = figure.bbox
    texts = [
        *figure.legends,
        *(label for axes in figure.axes for label in (axes.xaxis.label, axes.yaxis.label, axes.title)),
    ]
    for artist in (text for text in texts if not hasattr(text, "get_text") or text.get_text()):
        box = artist.get_window_extent()
        assert inside.x0 - 1 <= box.x0 <= box.x1 <= inside.x1 + 1
        assert inside.y0 - 1 <= box.y0 <= box.y1 <= inside.y1 + 1


@pytest.mark.parametrize(("plot", "make_frame", "arguments"), PLOTS.values(), ids=PLOTS)
def test_every_plot_refuses_an_empty_frame(
    plot: Callable[..., Any], make_frame: Callable[[], pd.DataFrame], arguments: dict[str, Any]
) -> None:
    with pytest.raises(AnalysisError):
        plot(make_frame().iloc[:0], **arguments)


def test_every_public_plot_is_among_these() -> None:
    tested = {plot.__name__ for plot, _, _ in PLOTS.values()}
    public = {name for name in analysis.__all__ if name.startswith("plot_")}
    assert public == tested


@pytest.mark.parametrize(
    "plot", [plot_exposure_trajectories, plot_learning_curves, plot_health, plot_mismatch_by_ratio]
)
def test_two_environments_are_refused(plot: Callable[..., Any]) -> None:
    frame = pd.concat(
        [frame_of().astype({"env_id": str}), frame_of().assign(env_id="ATESD-Toy-v0").astype({"env_id": str})]
    )
    with pytest.raises(AnalysisError, match="expected runs of one environment, got ATESD-Tiny-v0, ATESD-Toy-v0"):
        plot(frame)


def test_lines_differ_in_style_and_marker_for_print_in_grey() -> None:
    for plot in (plot_learning_curves, plot_exposure_trajectories, plot_health):
        lines = [line for line in plot(frame_of()).axes[0].get_lines() if line.get_linewidth() > 1]
        assert len({line.get_marker() for line in lines}) == len(AGENTS)
        assert len({str(line._dash_pattern) for line in lines}) == len(AGENTS)


def test_learning_curves_are_those_of_the_function() -> None:
    figure, data = plot_learning_curves(frame_of().drop(columns="probe/accuracy"), return_data=True)
    pd.testing.assert_frame_equal(data, learning_curves(frame_of(), "probe/nll"))
    (axes,) = figure.axes
    assert axes.get_ylabel() == "Probe NLL\n(nats/token)"
    line = axes.get_lines()[0]
    np.testing.assert_allclose(line.get_ydata(), data.loc[data["agent"] == "beta", "mean"])
    pd.testing.assert_frame_equal(plot_learning_curves(frame_of(), "probe/nll", return_data=True)[1], data)
    with pytest.raises(AnalysisError, match="expected numbers in one of probe/nll, probe/accuracy, got none"):
        plot_learning_curves(frame_of().drop(columns=["probe/nll", "probe/accuracy"]))
    with pytest.raises(AnalysisError, match="columns: expected at least one to draw, got none"):
        plot_learning_curves(frame_of(), [])


def test_a_column_that_was_named_is_drawn_or_refused() -> None:
    """What is drawn by default may be missing (no accuracy was measured), what was typed may not."""
    for frame in (frame_of(), frame_of().assign(**{"student/loss": np.nan})):
        with pytest.raises(AnalysisError, match="student/loss"):
            plot_learning_curves(frame, ["probe/nll", "student/loss"])


@pytest.mark.parametrize("plot", [plot_health, plot_exposure_trajectories])
def test_a_mean_of_the_runs_that_are_left_says_so(plot: Callable[..., Any]) -> None:
    frame = frame_of()
    sentence = "Thick line: mean over the runs that made the window. Thin lines: the runs."
    assert plot(frame).legends[0].get_title().get_text() == sentence
    frame["status"] = np.where((frame["run"] == "beta-1") & (frame["window"] == 2), "terminated", "running")
    frame = frame[(frame["run"] != "beta-1") | (frame["window"] <= 2)]
    told = plot(frame).legends[0].get_title().get_text()
    assert told == f"{sentence}\nOf 12 students 1 broke, and is in it until then."


@pytest.mark.parametrize("plot", [plot_health, plot_exposure_trajectories, plot_learning_curves])
def test_a_dollar_in_an_agents_name_is_escaped_once(plot: Callable[..., Any]) -> None:
    frame = frame_of()
    frame["agent"] = frame["agent"].astype(str).replace({"beta": "a$b$"})
    (label,) = [
        text.get_text()
        for text in plot(frame).legends[0].get_texts()
        if "(" in text.get_text() and "$" in text.get_text()
    ]
    assert label == r"a\$b\$ (3 runs)"


def test_trajectories_have_a_line_for_each_run_and_one_for_the_mean() -> None:
    figure, data = plot_exposure_trajectories(frame_of(), return_data=True)
    assert len(figure.axes[0].get_lines()) == len(AGENTS) * (3 + 1)
    means = data[(data["agent"] == "beta") & data["run"].isna()]
    np.testing.assert_allclose(means["reveal_ratio"], 0.1 + 0.05 * np.arange(1, 5))
    groups = plot_exposure_trajectories(frame_of(groups=3))
    assert [axes.get_ylabel() for axes in groups.axes] == [f"Reveal ratio,\ngroup {group}" for group in range(3)]


def test_the_density_is_the_mean_of_the_runs_densities() -> None:
    figure, data = plot_beta_density(frame_of(), num_ratios=5, return_data=True)
    at_one = data[data["window"] == 1]
    assert at_one["reveal_ratio"].tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    expected = np.mean([stats.beta.pdf(at_one["reveal_ratio"], 2 + seed, 4) for seed in range(3)], axis=0)
    np.testing.assert_allclose(at_one["density"], expected)
    axes = figure.axes[0]
    (mesh,) = [item for item in axes.collections if isinstance(item, QuadMesh)]
    np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(5, 4)[:, 0], expected)
    mean = axes.get_lines()[1]
    np.testing.assert_allclose(mean.get_ydata(), np.mean([(2 + seed) / (6 + seed) for seed in range(3)]))
    dots = axes.get_lines()[2]
    assert len(dots.get_xdata()) == 3 * 4


def test_a_second_agent_with_a_beta_policy_has_a_panel_of_its_own() -> None:
    frame = frame_of()
    other = frame[frame["agent"] == "beta"].astype({"agent": str}).assign(agent="beta:credit=one-step")
    other["run"] = other["run"] + "-one-step"
    other["agent/c1"] = 6.0
    both = pd.concat([frame.astype({"agent": str}), other])
    figure, data = plot_beta_density(both, num_ratios=5, return_data=True)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["beta (3 runs)", "beta:credit=one-step (3 runs)"]
    alone = plot_beta_density(frame, num_ratios=5, return_data=True)[1]
    pd.testing.assert_frame_equal(data[data["agent"] == "beta"].reset_index(drop=True), alone)
    second = data[data["agent"] == "beta:credit=one-step"]
    np.testing.assert_allclose(second["mean"], 0.6)
    np.testing.assert_allclose(second.loc[second["window"] == 1, "density"], stats.beta.pdf(np.linspace(0, 1, 5), 6, 4))


def test_a_density_needs_an_agent_with_a_beta_policy() -> None:
    frame = frame_of()
    with pytest.raises(AnalysisError, match="pass runs of the agent beta"):
        plot_beta_density(frame[frame["agent"] != "beta"])
    with pytest.raises(AnalysisError, match="got none of agent/c1, agent/c2; pass runs of the agent beta"):
        plot_beta_density(frame.drop(columns=["agent/c1", "agent/c2"]))


def test_health_has_a_panel_for_what_was_measured() -> None:
    figure, data = plot_health(frame_of(), return_data=True)
    labels = [axes.get_ylabel().partition("\n")[0] for axes in figure.axes]
    assert labels == ["Rollout length", "Student entropy", "Probe accuracy"]
    length = data[(data["column"] == "rollout/length") & (data["agent"] == "beta")]
    assert length.loc[length["run"].isna(), "value"].tolist() == [11.0, 21.0, 31.0, 41.0]
    assert length.loc[length["run"] == "beta-2", "value"].tolist() == [12.0, 22.0, 32.0, 42.0]
    with pytest.raises(AnalysisError, match="expected numbers in one of rollout/length"):
        plot_health(frame_of()[["run", "env_id", "agent", "window"]])


def test_the_mismatch_picture_says_how_sure_it_is() -> None:
    frame = frame_of()
    fixed = frame[frame["agent"] != "beta"]
    figure, data = plot_mismatch_by_ratio(fixed, return_data=True)
    pd.testing.assert_frame_equal(data, mismatch_by_ratio(fixed))
    axes = figure.axes[0]
    assert axes.get_title().endswith("Page's trend test over 3 seeds: p = 0.0046")  # 1 / 6 ** 3
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), data["mean"])
    two = plot_mismatch_by_ratio(fixed[fixed["agent"] != "fixed:1"])
    assert two.axes[0].get_title().endswith("too few ratios or seeds with all of them for a trend test")


def test_the_sweep_has_fixed_ratios_across_and_others_as_lines() -> None:
    figure, data = plot_ratio_sweep(outcomes_of(), "probe/nll", return_data=True)
    assert data["agent"].tolist() == ["fixed:0", "fixed:0.5", "fixed:1", "beta"]
    means = agent_means(outcomes_of(), "probe/nll").set_index("agent")["mean"]
    across, fixed = figure.axes[0].get_lines()
    np.testing.assert_allclose(across.get_ydata(), [means["beta"]] * 2)
    np.testing.assert_allclose(fixed.get_xdata(), [0.0, 0.5, 1.0])
    np.testing.assert_allclose(fixed.get_ydata(), means[["fixed:0", "fixed:0.5", "fixed:1"]])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["a fixed ratio", "beta (3 seeds)"]
    only = outcomes_of()
    with pytest.raises(AnalysisError, match=r"expected agents such as fixed:0\.5, got beta"):
        plot_ratio_sweep(only[only["agent"] == "beta"], "probe/nll")


def test_the_forest_has_the_best_on_top_and_fills_what_is_clear() -> None:
    differences = pd.DataFrame(
        {
            "agent": ["good", "unclear", "alone"],
            "reference": "fixed:1",
            "measure": "probe/accuracy",
            "higher_is_better": True,
            "num_pairs": [5, 5, 1],
            "mean": [2.0, 0.5, 0.1],
            "low": [1.0, -0.5, np.nan],
            "high": [3.0, 1.5, np.nan],
            "improvement": [0.9, 0.6, 1.0],
        }
    )
    figure, data = plot_paired_differences(differences, return_data=True)
    assert data["is_clear"].tolist() == [True, False, False]
    axes = figure.axes[0]
    assert axes.get_xlabel() == "Probe accuracy (0..1), minus fixed:1 (better: right)"
    points = [line for line in axes.get_lines() if line.get_marker() in ("o", "x")]
    assert [line.get_ydata()[0] for line in points] == [2, 1, 0]
    assert [line.get_markerfacecolor() != "white" for line in points[:2]] == [True, False]
    assert points[2].get_marker() == "x"
    (intervals,) = [item for item in axes.collections if isinstance(item, LineCollection)]
    assert intervals.get_segments()[0][:, 0].tolist() == [1.0, 3.0]
    assert [text.get_text() for text in axes.texts] == [
        "5 pairs, P(better) 0.90",
        "5 pairs, P(better) 0.60",
        "1 pair, P(better) 1.00",
    ]


@pytest.mark.parametrize("outcome", ["return", "probe/nll"])
def test_the_counterfactual_map_by_hand(outcome: str) -> None:
    figure, data = plot_counterfactual(counterfactual_of(), outcome, return_data=True)
    table = data.pivot(index="done", columns="reveal_ratio", values="advantage")
    # At the second window: 2 * (0.5, 1, 0.5) from state 0 and 2 * (0, 0.5, 1) from state 6; their means are 4 / 3 and 1.
    np.testing.assert_allclose(table.loc[0], np.array([1.0, 2.0, 1.0]) - 4 / 3)
    np.testing.assert_allclose(table.loc[6], np.array([0.0, 1.0, 2.0]) - 1)
    assert data["num_seeds"].tolist() == [2] * 6
    rings = figure.axes[0].get_lines()[0]
    assert list(rings.get_ydata()) == [1.5, 2.5], "0.5 is the second ratio, 1.0 the third"


def test_a_state_with_a_branch_that_ended_early_is_left_out() -> None:
    frame = counterfactual_of()
    cut = frame[~((frame["done"] == 6) & (frame["branch"] == 0) & (frame["offset"] == 2))]
    _, data = plot_counterfactual(cut, return_data=True)
    assert data["done"].unique().tolist() == [0]
    with pytest.raises(AnalysisError, match="follow fewer windows"):
        plot_counterfactual(cut[cut["done"] == 6])


def test_the_bars_of_credit_by_hand() -> None:
    figure, data = plot_credit(credit_of(), return_data=True)
    table = data.set_index(["agent", "part"])
    # beta: 0.5, then 1.0 from there on; what is taken away begins at 0 and goes to the left, one part after the other.
    assert table.loc["beta", "begin"].to_dict() == {
        "own_progress": 0.0,
        "later_progress": 0.5,
        "discount": 0.0,
        "grounded": -0.25,
        "returns": 0.0,
    }
    assert table.loc[("beta", "returns"), "value"] == 1.125
    # fixed:1: 0.25 to the right, 0.5 to the left, 0.125 to the right from 0.25 on.
    assert table.loc["fixed:1", "begin"].tolist()[:3] == [0.0, 0.0, 0.25]
    axes = figure.axes[0]
    edges = {(round(bar.get_x(), 6), round(bar.get_x() + bar.get_width(), 6)) for bar in axes.patches}
    assert {(0.0, 0.5), (0.5, 1.5), (0.0, -0.25), (-0.25, -0.375), (0.0, -0.5), (0.25, 0.375)} <= edges
    diamonds = axes.get_lines()[0]
    assert list(zip(diamonds.get_xdata(), diamonds.get_ydata(), strict=True)) == [(1.125, 1), (-0.125, 0)]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["beta", "fixed:1"]


def test_an_agent_looks_the_same_in_the_sweep_as_in_its_curves() -> None:
    outcomes = outcomes_of()
    others = outcomes.astype({"agent": str}).replace({"agent": {"beta": "random"}})
    sweep = plot_ratio_sweep(others, "probe/nll").axes[0].get_lines()[0]
    curves = plot_learning_curves(frame_of().astype({"agent": str}).replace({"agent": {"beta": "random"}}))
    assert sweep.get_color() == curves.axes[0].get_lines()[3].get_color()


HOSTILE = {
    "beta": "a$b$ \\frac{\nx}",
    "fixed:0": "mine.package.module:" + "VeryLong" * 30,
    "fixed:1": "\u202eevil\x1b[2J",
}


@pytest.mark.parametrize("name", ["learning", "beta", "sweep", "forest", "credit", "comparison"])
def test_names_that_are_long_or_look_like_formulas_are_drawn_inside_of_the_picture(name: str, tmp_path: Path) -> None:
    plot, make_frame, arguments = PLOTS[name]
    frame = make_frame()
    for column in {"agent", "reference"} & set(frame):
        frame[column] = frame[column].astype(str).replace(HOSTILE)
    figure = plot(frame, **arguments)
    figure.savefig(tmp_path / "plot.png")
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1
    for axes in figure.axes:
        assert axes.get_window_extent().width > 0.2 * figure.bbox.width or axes.get_label() == "<colorbar>"
        assert all(label.get_window_extent().x0 >= figure.bbox.x0 for label in axes.get_yticklabels())
