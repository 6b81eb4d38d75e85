"""Pages about results say what the committed outputs say: one number, one file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.contrasts import to_reference
from analysis.statistics import compare_agents
from analysis.verdict import LEAST_SEEDS
from benchmarks.comparisons_on_nulls import claimed
from docs.generator.result_tables import measured
from docs.generator.tables import documents

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "name",
    [
        "agents_on_toy",
        "claims",
        "collapse",
        "comparisons_on_nulls",
        "controllers_on_tiny",
        "counterfactual_best_ratio",
        "faults",
        "intervals_at_few_seeds",
        "population_scaling",
    ],
)
def test_the_index_of_results_names_the_commits_of_their_outputs(name: str):
    (line,) = re.findall(
        rf"^\| \[.*benchmarks[./]{name}\b.*$", (ROOT / "docs/results/README.md").read_text(), re.MULTILINE
    )
    assert f"`{measured(name)['commit'][:7]}`" in line


def test_the_committed_intervals_are_those_of_the_committed_outcomes():
    output = measured("fixed_ratio_sweep")
    ratios = list(output["accuracy_by_seed"])
    contrast = to_reference(np.array([output["accuracy_by_seed"][ratio] for ratio in ratios]).T, len(ratios) - 1)
    for place, ratio in enumerate(ratios[:-1]):
        numbers = output["paired_difference_to_full_exposure"][ratio]
        assert [numbers["low"], numbers["high"]] == pytest.approx([contrast.low[place], contrast.high[place]])
    compared = measured("controllers_on_tiny")["comparison"]
    outcomes = pd.DataFrame(compared["runs"]).assign(num_trained_tokens=0)
    again = compare_agents(outcomes, ["probe/accuracy"]).set_index("agent")
    for line in compared["comparison"][:16]:
        for name in ("mean", "to_best_low", "to_best_fixed_high"):
            assert line[name] == pytest.approx(again.loc[line["agent"], name], nan_ok=True) or line[name] is None


def test_what_was_claimed_of_comparisons_was_met():
    """Within 1.5 points of what its line claims, on both sides; the claims are those of the benchmark."""
    output = measured("comparisons_on_nulls")
    assert output["standard_error"] < 0.4
    lines = [line for line in output["lines"] if line["is_claimed"]]
    assert {(line["seeds"], line["agents"]) for line in lines} == {(n, k) for n in (3, 5, 8, 16) for k in (2, 5, 16)}
    for line in lines:
        after = line["after"]
        assert line["claimed"] == claimed(line["outcomes"], line["agents"])
        for name, percent in line["claimed"].items():
            assert abs(after[name] - percent) <= 1.5, (name, line)
        assert after["winner"] <= (6.5 if line["seeds"] >= LEAST_SEEDS else 0.0), line


def test_what_was_claimed_of_intervals_at_few_seeds_was_met():
    """Interquartile means within 1.5 points of 95%, improvement not below; an own mean falls short where outcomes are skewed."""
    for line in measured("intervals_at_few_seeds")["lines"]:
        for name in ("iqm", "iqm_of_differences"):
            assert abs(line[name]["after"] - 95.0) <= 1.5, line
        for name in ("improvement", "improvement_of_better"):
            assert line[name]["after"] >= 95.0, line
        assert abs(95.0 - line["mean"]["after"]) <= (2.0 if line["outcomes"] == "skewed" else 1.0), line


def test_no_page_speaks_of_intervals_that_are_gone():
    for path in documents():
        assert not re.search(r"percentile bootstrap interval(?!s over seeds, one comparison)", path.read_text()), path
    assert "bootstrap" not in json.dumps(measured("baselines_on_tiny"))
