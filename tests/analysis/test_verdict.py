"""The verdict in words, on numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import AnalysisError
from analysis.verdict import judge, judged_outcomes


def make_frame(results: dict[str, list[float]], *, accuracy: bool = True, unfinished: str = "") -> pd.DataFrame:
    """Runs of two windows, whose last accuracy is given for each agent and seed; NLL is 1 - accuracy."""
    rows: list[dict[str, Any]] = [
        {
            "run": f"{agent}-{seed}",
            "env_id": "ATESD-Tiny-v0",
            "agent": agent,
            "seed": seed,
            "window": window,
            "update": window,
            "rollout/num_tokens": 10.0,
            "reward/total": value,
            "probe/accuracy": value if accuracy and window == 2 else np.nan,
            "probe/nll": 1.0 - value,
            "status": "truncated" if window == 2 and f"{agent}-{seed}" != unfinished else "running",
        }
        for agent, values in results.items()
        for seed, value in enumerate(values)
        for window in (1, 2)
    ]
    return pd.DataFrame(rows).astype({"agent": "category", "env_id": "category", "status": "string", "seed": "Int64"})


def test_the_best_agent_is_named_with_its_lead():
    verdict = judge(make_frame({"worse": [0.2, 0.3, 0.4], "good": [0.3, 0.4, 0.5]}))
    assert verdict.sentence == (
        "good did best: probe accuracy 40.0%, 10.0 points better than worse, the next, on shared seeds "
        "(95% interval 10.0 to 10.0)."
    )
    assert [(standing.agent, standing.wins) for standing in verdict.standings] == [("good", ""), ("worse", "3 of 3")]
    assert verdict.standings[1].difference == "-10.0 [-10.0, -10.0] points"


def test_agents_that_came_out_even_are_both_named():
    verdict = judge(make_frame({"one": [0.25, 0.5], "other": [0.5, 0.25], "worse": [0.1, 0.1]}))
    assert verdict.sentence == (
        "one and other did best, and equally well: probe accuracy 37.5%, a difference of 0.0 points on shared seeds "
        "(95% interval -25.0 to 25.0)."
    )
    assert verdict.certainty.startswith("Not settled")


def test_what_is_judged_are_the_finished_runs_by_the_verdicts_metric():
    outcomes, metric = judged_outcomes(make_frame({"good": [0.5, 0.9], "other": [0.4, 0.5]}, unfinished="good-1"))
    assert metric == "probe/accuracy"
    assert outcomes[["agent", "seed", metric]].to_numpy().tolist() == [
        ["good", 0, 0.5],
        ["other", 0, 0.4],
        ["other", 1, 0.5],
    ]
    with pytest.raises(AnalysisError, match="expected a finished run with a seed"):
        judged_outcomes(make_frame({"a": [0.5]}, unfinished="a-0"))


def test_less_nll_is_better():
    verdict = judge(make_frame({"worse": [0.2, 0.3], "good": [0.3, 0.4]}, accuracy=False))
    assert verdict.sentence.startswith("good did best: probe NLL 0.650 nats/token, 0.100 better than worse")
    assert verdict.metric == "probe NLL after the last window in nats/token, less is better"
    assert verdict.standings[1].difference.startswith("+0.100")


@pytest.mark.parametrize(
    ("lead", "words"),
    [
        ([0.1] * 8, "Clear on these seeds"),
        ([0.1] * 7, "A hint, not a proof"),
        ([0.1, -0.09] * 4, "Not settled"),
        ([0.1], "Nothing can be said about certainty"),
    ],
)
def test_certainty_depends_on_the_interval_and_on_the_number_of_seeds(lead: list[float], words: str):
    verdict = judge(make_frame({"good": [0.5 + step for step in lead], "other": [0.5] * len(lead)}))
    assert verdict.certainty.startswith(words)


def test_an_accuracy_that_is_the_same_everywhere_gives_way_to_the_nll():
    frame = make_frame({"good": [0.3, 0.4], "other": [0.2, 0.3]})
    frame.loc[frame["probe/accuracy"].notna(), "probe/accuracy"] = 0.0
    assert judge(frame).metric.startswith("probe NLL")


def test_agents_without_a_shared_seed_are_not_compared_by_differences():
    frame = make_frame({"good": [0.5, 0.6], "other": [0.1, 0.2]})
    frame.loc[frame["agent"] == "other", "seed"] += 10
    verdict = judge(frame)
    assert "shares no seed" in verdict.sentence
    assert verdict.standings[1].difference == "no shared seed"


def test_an_unfinished_run_is_left_out_and_named():
    verdict = judge(make_frame({"good": [0.5, 0.6, 0.9], "other": [0.4, 0.5, 0.6]}, unfinished="good-2"))
    assert "probe accuracy 55.0%" in verdict.sentence
    assert verdict.remarks[0] == "Not in the verdict, because not finished: 1 run (good-2)."


def test_a_single_agent_has_nothing_to_be_compared_with():
    assert judge(make_frame({"only": [0.5, 0.6]})).sentence == "Only only is here (2 runs): nothing to compare it with."


def test_where_nothing_can_be_said_the_sentence_says_so():
    assert judge(make_frame({"a": [0.5]}, unfinished="a-0")).sentence == "No verdict yet: no run is finished."
    assert "lack the columns update" in judge(make_frame({"a": [0.5]}).drop(columns="update")).sentence
    twice = make_frame({"a": [0.5, 0.6]})
    twice["seed"] = 0
    assert "two of a with seed 0" in judge(twice).sentence


def test_the_frame_is_left_unchanged():
    frame = make_frame({"good": [0.5, 0.6], "other": [0.1, 0.2]})
    before = frame.copy(deep=True)
    judge(frame)
    pd.testing.assert_frame_equal(frame, before)
