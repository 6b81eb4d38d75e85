"""What the bench's claims compute: on runs that are worked out by hand."""

from __future__ import annotations

import itertools
import json

import pandas as pd
import pytest
from scipy import stats

from analysis.bench import at_equal_compute, bench_outcomes
from atesd_env.bench import InstanceSet, landscape, references
from atesd_env.bench.landscapes import landscapes_file
from benchmarks.claims import against_all, baselines, credit, difference, different, on_instance, within
from benchmarks.common import RESULTS
from benchmarks.references import SEARCH_WITHIN, references_of, with_best_fixed, with_grid

FIXED = ("fixed:0", "fixed:1")


def outcomes(**accuracies: list[float]) -> pd.DataFrame:
    """Runs of agents on an instance, ``own_x=[0.5, 0.7]`` those of seeds 0 and 1."""
    lines = [
        {"agent": agent.replace("fixed", "fixed:"), "instance": instance, "seed": seed, "probe/accuracy": value}
        for name, values in accuracies.items()
        for agent, instance in [name.split("_")]
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(lines).sample(frac=1.0, random_state=0)


def test_differences_are_paired_within_instances_and_their_intervals_allow_for_their_number():
    """Differences 10 and 30 on x, 40 on y each time: 20 and 40, mean 30; standard errors 10 and 0, of the mean 5, freedom 1."""
    runs = outcomes(own_x=[0.5, 0.7], other_x=[0.4, 0.4], own_y=[0.6, 0.6], other_y=[0.2, 0.2])
    for comparisons in (1, 3):
        found = difference(runs, "own", "other", comparisons)
        half = 5.0 * stats.t.ppf(1 - 0.025 / comparisons, 1)
        assert (found["mean"], found["low"], found["high"]) == pytest.approx((30.0, 30.0 - half, 30.0 + half))
    table = against_all(runs, ["own", "other"], ["other"])
    assert list(table["own"]) == ["other"]
    assert table["other"] == {}, "none is compared with itself"


def test_of_an_instance_the_best_is_named_and_what_may_be_as_good():
    told = on_instance(outcomes(a_x=[0.1, 0.2, 0.1], b_x=[0.8, 0.9, 0.8], c_x=[0.7, 0.9, 0.9]), "x")
    assert told["best"] == "b" or told["best"] == "c"
    assert told["agents"]["a"]["to_best"][2] < 0 <= told["agents"]["c"]["to_best"][2]
    assert told["agents"]["b"]["mean"] == pytest.approx(100 * 2.5 / 3)


def test_a_window_may_choose_what_collapses_where_discounted_progress_does_not():
    """At full exposure the NLL falls by 1 and then rises by 2; at none it falls by 0.4 each time."""
    paths = {"fixed:0": (3.0, 2.6, 2.2), "fixed:1": (3.0, 2.0, 4.0)}
    frame = pd.DataFrame(
        [
            {
                "agent": agent,
                "instance": "x",
                "seed": seed,
                "window": window,
                "probe/nll_before": before if window == 1 else None,
                "probe/nll": after,
            }
            for (agent, path), seed in itertools.product(paths.items(), (0, 1))
            for window, (before, after) in enumerate(itertools.pairwise(path), start=1)
        ]
    )
    told = credit(frame, outcomes(fixed0_x=[0.8, 0.6], fixed1_x=[0.1, 0.1]), FIXED)["x"]
    assert (told["first window"], told["discounted"]) == pytest.approx((10.0, 70.0))
    assert told["difference"]["mean"] == pytest.approx(60.0)


def test_seeds_are_paired_by_their_number_and_missing_ones_are_told():
    runs = outcomes(own_x=[0.5, 0.7], other_x=[0.4, 0.4])
    with pytest.raises(ValueError, match="x: expected accuracies of own, other at the same seeds"):
        difference(
            runs.replace({"seed": {1: 2}}).drop(runs.index[runs["agent"].eq("own") & runs["seed"].eq(0)]),
            "own",
            "other",
            1,
        )


def test_a_search_within_runs_is_set_beside_others_on_its_own_seeds():
    runs = outcomes(**{f"{SEARCH_WITHIN}_x": [0.9, 0.7], "oracle_x": [0.8, 0.8, 0.1]})
    runs = runs.assign(num_updates=24, num_tokens=100, branch_updates=0, branch_tokens=0)
    runs.loc[runs["agent"] == SEARCH_WITHIN, ["branch_updates", "branch_tokens"]] = [240, 900]
    told = within(runs, ["oracle"])
    assert told[SEARCH_WITHIN] == {"num_seeds": 2, "accuracy": pytest.approx(80), "updates": 264, "tokens": 1000}
    assert (told["oracle"]["accuracy"], told["oracle"]["search_above"]["mean"]) == pytest.approx((80.0, 0.0))
    assert within(runs[runs["agent"] == "oracle"], ["oracle"]) == {}


def test_what_is_committed_is_what_the_packaged_runs_give():
    packaged = InstanceSet.load("atesd-bench")
    frame = landscape(packaged)
    of_test = frame[frame["instance"].isin([instance.id for instance in packaged.of("test")])]
    shown = with_best_fixed(with_grid(packaged, of_test[of_test["agent"] != SEARCH_WITHIN]))
    pd.testing.assert_frame_equal(references(packaged), references_of(packaged, frame), check_dtype=False)
    assert {instance.id for instance in packaged} == set(references(packaged)["instance"])
    assert landscapes_file(packaged).stat().st_size < 10e6
    committed = json.loads((RESULTS / "claims.json").read_text())
    table = committed["a_at_equal_compute"]
    assert set(table["balance"]) == set(different(bench_outcomes(shown), baselines(committed["accuracy"])))
    at_equal = at_equal_compute(shown)
    for other, told in table["balance"].items():
        assert difference(at_equal, "balance", other, len(table["balance"])) == pytest.approx(told)
