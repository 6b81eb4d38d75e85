"""The one call for a notebook: it says what its parts say, and shows itself."""

import pandas as pd
import pytest

from analysis import AnalysisError, compare
from analysis.statistics import compare_agents
from analysis.verdict import judge, judged_outcomes
from tests.analysis.test_verdict import make_frame


def frame_of() -> pd.DataFrame:
    values = [0.2, 0.3, 0.4, 0.2, 0.3, 0.4]
    frame = make_frame({"<b>worse</b>": values, "good": [value + 0.1 for value in values]})
    frame["exposure/reveal_ratio"] = 0.5
    return frame


def test_it_is_made_of_the_verdict_and_the_table() -> None:
    frame = frame_of()
    before = frame.copy()
    comparison = compare(frame)
    pd.testing.assert_frame_equal(frame, before)
    assert comparison.verdict == judge(frame)
    outcomes, metric = judged_outcomes(frame)
    pd.testing.assert_frame_equal(comparison.table, compare_agents(outcomes, [metric]))
    assert list(comparison.pictures) == ["differences", "learning", "exposure"]
    assert list(compare(frame.drop(columns="exposure/reveal_ratio")).pictures) == ["differences", "learning"]
    several = compare(frame, ("probe/nll", "return"))
    assert several.table["metric"].unique().tolist() == ["probe/nll", "return"]


def test_it_reads_as_text_and_as_a_page() -> None:
    comparison = compare(frame_of())
    text = str(comparison)
    assert text.startswith("good did best: probe accuracy 40.0%")
    assert "the best wins on" in text
    page = comparison._repr_html_()
    assert "<p><strong>good did best" in page
    assert "&lt;b&gt;worse&lt;/b&gt;" in page
    assert "<b>worse" not in page, "names of agents are escaped"
    assert page.count('src="data:image/png;base64,') == 3


def test_where_nothing_can_be_compared_it_says_so() -> None:
    comparison = compare(make_frame({"a": [0.5]}, unfinished="a-0"))
    assert str(comparison) == "\n".join([comparison.verdict.sentence, *comparison.verdict.remarks])
    assert comparison.table.empty
    assert "No verdict yet: no run is finished." in comparison._repr_html_()
    with pytest.raises(AnalysisError, match=r"got 'probe/nl'; pass one of these \(did you mean probe/nll\?\)"):
        compare(frame_of(), ("probe/nl",))
