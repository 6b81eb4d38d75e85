"""Which way is better: told by one table, and never the wrong way round."""

import pandas as pd
import pytest

from analysis import AnalysisError
from analysis.columns import documented_columns
from analysis.directions import HIGHER_IS_BETTER, direction
from analysis.statistics import COSTS, METRICS


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
