"""The verdict in words, on numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import AnalysisError
from analysis.statistics import compare_agents, final_outcomes
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
    worse = [0.2, 0.3, 0.4, 0.2, 0.3, 0.4]
    verdict = judge(make_frame({"worse": worse, "good": [value + 0.1 for value in worse]}))
    assert verdict.sentence == (
        "good did best: probe accuracy 40.0%, 10.0 points better than worse, the next (95% interval 10.0 to 10.0)."
    )
    assert verdict.certainty == (
        "Clear on these seeds: no interval of a difference to good includes zero. good was better than worse on 6 of 6 shared "
        "seeds."
    )
    assert [(standing.agent, standing.wins) for standing in verdict.standings] == [("good", ""), ("worse", "6 of 6")]
    assert verdict.standings[1].difference == "-10.0 [-10.0, -10.0] points"


def test_no_winner_is_named_below_the_least_number_of_seeds():
    verdict = judge(make_frame({"worse": [0.2, 0.3, 0.4], "good": [0.3, 0.4, 0.5]}))
    assert verdict.sentence == "good has the best mean: probe accuracy 40.0%, 10.0 points better than worse, the next."
    assert verdict.certainty.startswith(
        "No winner is named from 3 shared seeds: 6 are the least, since with fewer even"
    )


def test_what_is_said_is_what_compare_agents_says():
    """One set of functions: the verdict's numbers are those of the table."""
    rng = np.random.default_rng(4)
    frame = make_frame({name: rng.uniform(0.2, 0.8, 7).tolist() for name in ("a", "b", "c")})
    verdict, table = judge(frame), compare_agents(judged_outcomes(frame)[0], ["probe/accuracy"])
    assert [standing.agent for standing in verdict.standings] == table["agent"].tolist()
    for standing, line in zip(verdict.standings[1:], table.to_dict("records")[1:], strict=True):
        numbers = [100 * line[f"to_best{end}"] for end in ("", "_low", "_high")]
        assert standing.difference == "{:+.1f} [{:+.1f}, {:+.1f}] points".format(*numbers)


def test_means_are_compared_on_shared_seeds_only_and_the_others_are_named():
    """Of all its seeds "partial" has the better mean, on the shared ones the worse."""
    frame = make_frame({"whole": [0.5, 0.6, 0.5, 0.6, 0.5, 0.6], "partial": [0.4, 0.5, 0.4, 0.5, 0.4, 0.5, 0.99, 0.99]})
    verdict = judge(frame)
    assert verdict.sentence.startswith("whole did best: probe accuracy 55.0%, 10.0 points better than partial")
    assert verdict.standings[1].num_seeds == 6
    assert verdict.remarks == (
        "Compared on the 6 seeds that all agents have; left out: seeds 6, 7 (not there for whole).",
    )


def test_a_student_that_broke_counts_as_its_worst():
    frame = make_frame({"steady": [0.5] * 6, "broken": [0.9] * 6})
    frame.loc[(frame["run"] == "broken-0") & (frame["window"] == 1), "probe/accuracy"] = 0.1
    frame.loc[(frame["run"] == "broken-0") & (frame["window"] == 2), "status"] = "terminated"
    verdict = judge(frame)
    assert "In 1 run the student broke; what counts is its worst measurement." in verdict.remarks
    assert verdict.standings[0].result.startswith("76.7%"), "(5 x 0.9 + 0.1) / 6"


def test_a_student_that_broke_before_it_was_measured_is_not_left_out():
    good = [0.5, 0.6, 0.4, 0.5, 0.6, 0.4]
    frame = make_frame({"good": good, "worse": [value - 0.1 for value in good]})
    is_broken = (frame["run"] == "good-0") & (frame["window"] == 1)
    frame.loc[is_broken, ["probe/nll", "reward/total"]] = np.nan
    frame.loc[is_broken, "status"] = "terminated"
    frame = frame[(frame["run"] != "good-0") | is_broken]
    verdict = judge(frame)
    assert verdict.metric.startswith("probe accuracy")
    assert verdict.certainty.startswith("Not settled")
    assert [(line.num_seeds, line.num_broken) for line in verdict.standings] == [(6, 1), (6, 0)]
    outcomes, _ = judged_outcomes(frame, ["probe/nll", "return"])
    broken = outcomes[outcomes["is_broken"]].iloc[0]
    assert broken[["probe/accuracy", "probe/nll", "return"]].tolist() == pytest.approx([0.3, 0.7, 0.6])


def test_runs_of_unlike_configurations_get_no_verdict():
    frame = make_frame({"good": [0.5, 0.6], "other": [0.1, 0.2]})
    frame["configuration"] = np.where(frame["seed"] == 0, "aa", "bb")
    frame["configuration_differs"] = np.where(frame["seed"] == 0, "lora_r=8", "lora_r=4")
    assert "expected runs of one configuration, got 2: lora_r=8 (aa); lora_r=4 (bb)" in judge(frame).sentence


def test_agents_that_came_out_even_are_both_named():
    verdict = judge(make_frame({"one": [0.25, 0.5], "other": [0.5, 0.25], "worse": [0.1, 0.1]}))
    assert verdict.sentence == "one and other have the best mean, and the same: probe accuracy 37.5%."


def test_no_agent_is_told_from_itself_where_even_means_differ_in_their_last_bit():
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = rng.integers(0, 500, 16) / 500
        verdict = judge(make_frame({"b": values.tolist(), "a": rng.permutation(values).tolist()}))
        best, other = verdict.standings
        assert (best.difference, best.wins) == ("", "")
        assert f"do not tell {best.agent} from {other.agent}." in verdict.certainty


def test_a_lead_below_what_is_shown_is_no_tie_where_it_is_clear():
    values = [0.2, 0.3, 0.4, 0.2, 0.3, 0.4]
    verdict = judge(make_frame({"worse": values, "good": [value + 1e-5 for value in values]}))
    assert verdict.sentence == "good did best: probe accuracy 30.0%, less than 0.1 points better than worse, the next."
    assert verdict.certainty.startswith("Clear on these seeds")


def test_finished_runs_without_a_seed_are_not_called_unfinished():
    frame = make_frame({"beta": [0.5], "fixed:1": [0.4]}).assign(seed=pd.array([None] * 4, dtype="Int64"))
    assert judge(frame).sentence == "No verdict yet: no finished run has a seed to pair by."
    with pytest.raises(AnalysisError, match="expected a seed of every run, got none of beta-0"):
        final_outcomes(frame, ["probe/nll"])


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
    verdict = judge(make_frame({"worse": [0.2, 0.3] * 3, "good": [0.3, 0.4] * 3}, accuracy=False))
    assert verdict.sentence.startswith("good did best: probe NLL 0.650 nats/token, 0.100 better than worse")
    assert verdict.metric == "probe NLL after the last window in nats/token, less is better"
    assert verdict.standings[1].difference.startswith("+0.100")


@pytest.mark.parametrize(
    ("lead", "words"),
    [
        ([0.1] * 6, "Clear on these seeds"),
        ([0.1] * 5, "No winner is named from 5 shared seeds"),
        ([0.1, -0.09] * 4, "Not settled: these runs do not tell good from other"),
        ([0.1], "One shared seed says nothing about certainty"),
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
    assert verdict.sentence == "No verdict: the agents share no seed, so that nothing can be paired."
    assert verdict.standings == ()


def test_an_unfinished_run_is_left_out_and_named():
    verdict = judge(make_frame({"good": [0.5, 0.6, 0.9], "other": [0.4, 0.5, 0.6]}, unfinished="good-2"))
    assert "probe accuracy 55.0%" in verdict.sentence
    assert "left out: seed 2 (not there for good)" in verdict.remarks[1]
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
