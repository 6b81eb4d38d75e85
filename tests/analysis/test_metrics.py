"""Which way is better: told by one table, and never the wrong way round."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis import AnalysisError, agent_means, compare_agents, learning_curves, mismatch_by_ratio, paired_differences
from analysis.columns import documented_columns
from analysis.metrics import HIGHER_IS_BETTER, METRICS, bounds, difference_bounds, direction
from analysis.statistics import COSTS


def test_the_table_tells_and_a_contradiction_is_refused() -> None:
    assert direction("probe/accuracy") is True
    assert direction("probe/nll", higher_is_better=False) is False
    assert direction("window") is False, "a threshold is better reached early"
    with pytest.raises(AnalysisError, match="higher_is_better: expected False for probe/nll, of which less is better"):
        direction("probe/nll", higher_is_better=True)


def test_an_area_has_the_direction_of_its_column() -> None:
    for column, better in (("probe/nll", False), ("probe/accuracy", True)):
        assert direction("area", outcomes=pd.DataFrame({"column": [column] * 2})) is better
    with pytest.raises(AnalysisError, match="known direction, got 'area'"):
        direction("area", outcomes=pd.DataFrame({"column": ["probe/nll", "probe/accuracy"]}))


def test_what_the_table_does_not_know_has_to_be_told() -> None:
    assert direction("mine", higher_is_better=False) is False
    with pytest.raises(AnalysisError, match=r"got 'probe/acuracy'; pass .* \(did you mean probe/accuracy\?\)"):
        direction("probe/acuracy")


def test_every_name_is_a_column_or_an_outcome() -> None:
    """A misspelt entry would be told to nobody."""
    known = {*documented_columns()["column"], *COSTS, *METRICS, "returns", "is_reached", "drop"}
    assert set(HIGHER_IS_BETTER) <= known


def test_only_shares_have_bounds() -> None:
    halves = np.array([0.5, math.nan])
    for name in ("probe/accuracy", "rollout/truncation_rate", "is_reached", "exposure/reveal_ratio_1"):
        assert bounds(name, halves) == (0.0, 1.0)
        assert difference_bounds(name, halves) == (-1.0, 1.0)
    assert bounds("area", halves, pd.DataFrame({"column": ["probe/accuracy"]})) == (0.0, 1.0)
    assert bounds("probe/accuracy", np.array([45.0])) == (-math.inf, math.inf), "in percent it is no share"
    assert bounds("probe/nll", halves) == difference_bounds("probe/nll", halves) == (-math.inf, math.inf)


def test_an_interval_of_a_share_ends_where_the_share_does() -> None:
    """Of 0.9 and 1.0 the t interval reaches from 0.31 to 1.59, of the differences 0.9 and 0.2 from -3.9 to 5.0."""
    outcomes = pd.DataFrame(
        {"agent": ["a", "a", "fixed:1", "fixed:1"], "seed": [0, 1, 0, 1], "probe/accuracy": [0.9, 1.0, 0.0, 0.8]}
    )
    rows = outcomes.assign(run=outcomes["agent"] + outcomes["seed"].astype(str), env_id="ATESD-Tiny-v0", window=1)
    rows["exposure/reveal_ratio"] = 0.5
    costs = {"is_broken": False, **dict.fromkeys(COSTS, 1)}
    compared = compare_agents(outcomes.assign(**costs), "probe/accuracy").set_index("agent").loc["a"]
    means = agent_means(outcomes, "probe/accuracy").iloc[0]
    for line in (compared, means, learning_curves(rows, "probe/accuracy").iloc[0]):
        assert line["low"] == pytest.approx(0.95 - 12.706 * 0.05, rel=1e-3)
        assert line["high"] == 1.0
    assert means["iqm_high"] == 1.0
    assert mismatch_by_ratio(rows[rows["agent"] == "a"], "probe/accuracy")["high"].tolist() == [1.0]
    difference = paired_differences(outcomes, "probe/accuracy", "fixed:1").iloc[0]
    assert difference[["low", "high", "iqm_low", "iqm_high"]].tolist() == [-1.0, 1.0, -1.0, 1.0]
    for name in ("to_reference", "to_best_fixed"):
        assert compared[[f"{name}_low", f"{name}_high"]].tolist() == [-1.0, 1.0]
