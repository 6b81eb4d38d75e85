"""What the report says of its pictures, in numbers worked out by hand, and which of them are drawn from which runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import AnalysisError, compare
from analysis.report.pictures import PICTURES, Picture


def frame_of(agents: tuple[str, ...] = ("beta", "fixed:0", "fixed:1"), windows: int = 2) -> pd.DataFrame:
    """Finished runs of two seeds; the accuracy at the end is 50% for beta, 40% for fixed:0 and 20% for fixed:1."""
    lines: list[dict[str, Any]] = []
    for agent in agents:
        end = {"beta": 0.5, "fixed:0": 0.4, "fixed:1": 0.2}[agent]
        for seed in range(2):
            for window in range(1, windows + 1):
                ratio = 0.25 * window if agent == "beta" else float(agent.partition(":")[2])
                lines.append(
                    {
                        "run": f"{agent}-{seed}",
                        "env_id": "ATESD-Tiny-v0",
                        "agent": agent,
                        "seed": seed,
                        "window": window,
                        "update": window,
                        "rollout/num_tokens": 10.0,
                        "rollout/length": 20.0 + window + seed,
                        "exposure/reveal_ratio": ratio,
                        "student/mismatch": 0.5 + 0.5 * ratio,
                        "probe/nll": 2.0 / window,
                        "probe/accuracy": end * window / windows,
                        "probe/grounded": 0.0,
                        "reward/progress": 1.0 / window,
                        "reward/total": 1.0 / window,
                        "agent/c1": 3.0 * window if agent == "beta" else np.nan,
                        "agent/c2": 3.0 if agent == "beta" else np.nan,
                        "config/gamma": 0.5,
                        "config/lookahead": 2.0,
                        "config/grounded_weight": 0.1,
                        "status": "truncated" if window == windows else "running",
                    }
                )
    frame = pd.DataFrame(lines)
    return frame.astype(
        {"run": "string", "agent": "category", "env_id": "category", "seed": "Int64", "status": "string"}
    )


BY_TITLE = {picture.title: picture for picture in PICTURES}

FOUND = {
    "Learning curves": (
        "Probe NLL in window 2, means over each agent's runs: beta 1; fixed:0 1; fixed:1 1. "
        "Probe accuracy in window 2, means over each agent's runs: beta 50.0%; fixed:0 40.0%; fixed:1 20.0%."
    ),
    "Exposure trajectories": "Means over runs, first to last window: beta from 0.25 to 0.5.",
    "Beta density over time": "Mean of the policy: beta: 0.50 in window 1 to 0.67 in window 2.",
    "Mismatch by reveal ratio": (
        "From 0.5 nats per token at ratio 0.00 to 1 nats per token at ratio 1.00; it rises at every step."
    ),
    "Fixed ratios, and agents that choose": "Best mean probe accuracy of a fixed ratio: fixed:0, 40.0%; of the others: beta, 50.0%.",
    "Paired differences": "2 pairs: too few to say who is better than fixed:1; 6 are the least.",
    "Health of the students": "Lowest to highest run at the end: probe accuracy 20.0% to 50.0%; rollout length 22 to 23.",
    # R = 1 + 0.5 * 0.5 in the only complete decision of every run, of which 1 is its own window's.
    "What decisions were credited for": (
        "Progress in the decision's own window, of the mean R of each agent's runs: beta 1 of 1.25 nats per token; "
        "fixed:0 1 of 1.25 nats per token; fixed:1 1 of 1.25 nats per token."
    ),
}

DESCRIBED = {
    "Learning curves": "Probe accuracy: beta 25.0% to 50.0%; fixed:0 20.0% to 40.0%; fixed:1 10.0% to 20.0%.",
    "Exposure trajectories": "beta 0.25 to 0.5, between 0.25 and 0.50; fixed:0 held at 0; fixed:1 held at 1.",
    # Beta(6, 3) has its mode at 5 / 7.
    "Beta density over time": "Highest in the last window: beta at ratio 0.71 with density 2.5.",
    "Mismatch by reveal ratio": "ratio 0.00: 0.5 [0.5, 0.5]; ratio 1.00: 1 [1, 1].",
    "Fixed ratios, and agents that choose": "fixed:0 40.0% [40.0%, 40.0%]; fixed:1 20.0% [20.0%, 20.0%]; beta 50.0% [50.0%, 50.0%].",
    "Paired differences": "minus that of fixed:1: beta +0.3 [0.3, 0.3], 2 pairs; fixed:0 +0.2 [0.2, 0.2], 2 pairs.",
    "Health of the students": "Rollout length: beta 21.5 to 22.5; fixed:0 21.5 to 22.5; fixed:1 21.5 to 22.5.",
    "What decisions were credited for": "beta 1.25 = own window +1, later windows +0.5, discounting -0.25, grounded +0;",
}


@pytest.fixture(scope="module")
def drawn() -> dict[str, pd.DataFrame]:
    """What each picture drew."""
    frame = frame_of()
    before = frame.copy(deep=True)
    data = {picture.title: picture.draw(frame)[1] for picture in PICTURES}
    pd.testing.assert_frame_equal(frame, before)
    return data


def test_every_picture_is_drawn_where_its_data_is(drawn: dict[str, pd.DataFrame]):
    assert list(drawn) == list(FOUND) == list(DESCRIBED)
    assert all(len(data) for data in drawn.values())


@pytest.mark.parametrize("picture", PICTURES, ids=list(BY_TITLE))
def test_the_words_say_what_was_drawn(picture: Picture, drawn: dict[str, pd.DataFrame]):
    assert picture.find is not None
    assert picture.find(drawn[picture.title]) == FOUND[picture.title]
    described = picture.describe(drawn[picture.title])
    assert DESCRIBED[picture.title] in described
    assert "nan" not in described
    assert picture.caption
    assert picture.needs


def test_from_the_least_number_of_seeds_on_the_differences_are_named(drawn: dict[str, pd.DataFrame]):
    data = drawn["Paired differences"].assign(num_pairs=6)
    assert BY_TITLE["Paired differences"].find(data) == (
        "Better than fixed:1, with an interval that leaves out 0: beta; fixed:0."
    )


def test_one_agent_alone_has_no_density_no_sweep_and_no_differences():
    missing = []
    for picture in PICTURES:
        try:
            _, data = picture.draw(frame_of(("fixed:0",)))
        except AnalysisError:
            missing.append(picture.title)
        else:
            assert picture.describe(data)
            assert picture.find is None or picture.find(data)
    assert missing == ["Beta density over time", "Fixed ratios, and agents that choose", "Paired differences"]


def test_the_ratios_that_a_controller_chose_are_put_into_stretches():
    _, data = BY_TITLE["Mismatch by reveal ratio"].draw(frame_of(("beta",), windows=4))
    assert data["reveal_ratio"].tolist() == [0.25, 0.5, 0.75, 1.0]
    assert data["num_windows"].tolist() == [2] * 4
    assert BY_TITLE["Mismatch by reveal ratio"].find(data) == (
        "0.625 nats per token at ratio 0.25 and 1 nats per token at ratio 1.00: met by other seeds or in other windows, which tells "
        "nothing of the ratio."
    )


def test_many_agents_are_counted_and_not_all_named():
    data = pd.DataFrame(
        {"agent": [f"agent {i:02}" for i in range(20)], "column": "probe/nll", "window": 1, "mean": 1.0}
    )
    described = BY_TITLE["Learning curves"].describe(data)
    assert "agent 11 1 to 1; and 8 more." in described
    assert "agent 12" not in described


def test_without_full_exposure_the_differences_are_to_the_verdicts_best_with_its_intervals():
    frame = pd.concat(
        [
            frame_of().assign(
                seed=lambda rows, more=more: rows["seed"] + more, run=lambda rows, more=more: rows["run"] + str(more)
            )
            for more in (0, 2, 4)
        ],
        ignore_index=True,
    )
    rng = np.random.default_rng(4)
    frame["agent"] = frame["agent"].astype(str).replace("fixed:1", "random")
    frame["probe/accuracy"] = rng.normal(0.4, 0.1, len(frame))
    # Only random has the seed on which everyone is better: it must not rank agents.
    frame = frame[(frame["seed"] != 5) | (frame["agent"] == "random")]
    frame.loc[frame["seed"] == 5, "probe/accuracy"] = 2.0
    _, data = BY_TITLE["Paired differences"].draw(frame)
    table = compare(frame).table.set_index("agent")
    assert data["reference"].tolist() == [table["best"].iloc[0]] * 2
    expected = table.loc[data["agent"], ["to_best", "to_best_low", "to_best_high"]].to_numpy()
    assert data[["mean", "low", "high"]].to_numpy() == pytest.approx(expected)


def test_words_that_rank_do_so_on_the_seeds_that_all_have_and_others_do_not_rank():
    frame = frame_of()
    # Seed 1 is hard and its teacher near, and only beta and fixed:0 met it.
    frame.loc[frame["seed"] == 1, ["probe/accuracy", "student/mismatch"]] = 0.0, 9.0
    frame = frame[(frame["seed"] == 0) | (frame["agent"] != "fixed:1")]
    found = {}
    for title in ("Fixed ratios, and agents that choose", "Mismatch by reveal ratio", "Learning curves"):
        find = BY_TITLE[title].find
        assert find is not None
        found[title] = find(BY_TITLE[title].draw(frame)[1])
    sweep, mismatch, learning = found
    assert found[sweep] == FOUND[sweep]
    assert found[mismatch] == f"{FOUND[mismatch]} Left out, since they lack a ratio: seeds 1."
    assert found[learning].endswith("runs: beta 25.0%; fixed:0 20.0%; fixed:1 20.0%."), "by name"
