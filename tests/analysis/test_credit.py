"""The return of decisions: by hand, and equal to what the controllers were credited with."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import AnalysisError, credit_decomposition, decision_returns
from analysis.credit import PARTS


def frame_of(progress: list[float], grounded: list[float], run: str = "a-0", **columns: Any) -> pd.DataFrame:
    """One run's rows."""
    frame = pd.DataFrame(
        {"window": range(1, len(progress) + 1), "reward/progress": progress, "probe/grounded": grounded}
    )
    frame = frame.assign(run=run, env_id="ATESD-Tiny-v0", agent=run.partition("-")[0], seed=0)
    return frame.assign(**{"exposure/reveal_ratio": 0.5, **columns}).astype({"agent": "category", "seed": "Int64"})


SETTINGS = {"config/gamma": 0.5, "config/lookahead": 2.0, "config/grounded_weight": 0.1}


def test_returns_and_their_parts_by_hand() -> None:
    frame = frame_of([1.0, 0.0, 4.0], [-3.0, 0.0, -6.0], **SETTINGS)
    before = frame.copy()
    table = decision_returns(frame)
    pd.testing.assert_frame_equal(frame, before)
    assert table["window"].tolist() == [1, 2]
    assert table["own_progress"].tolist() == [1.0, 0.0]
    assert table["later_progress"].tolist() == [0.0, 4.0]
    assert table["discount"].tolist() == [0.0, -2.0]
    # (-3 + 0 / 2) / 1.5 = -2 and (0 - 6 / 2) / 1.5 = -2, times 0.1.
    np.testing.assert_allclose(table["grounded"], [-0.2, -0.2])
    np.testing.assert_allclose(table["returns"], [0.8, 1.8])
    np.testing.assert_allclose(table["returns"], table[list(PARTS)].sum(axis=1))
    tail = decision_returns(frame, with_tail=True)
    assert tail["num_windows"].tolist() == [2, 2, 1]
    np.testing.assert_allclose(tail["returns"], [0.8, 1.8, 4.0 - 0.6])


@pytest.mark.parametrize("with_tail", [False, True])
@pytest.mark.parametrize(
    ("gamma", "lookahead", "weight"), [(0.9, 3, 0.1), (1.0, 1, 0.0), (0.0, 4, 1.0), (0.7, 30, 0.2)]
)
def test_returns_are_those_that_controllers_learn_from(
    gamma: float, lookahead: int, weight: float, with_tail: bool
) -> None:
    credit = pytest.importorskip("agents.credit")
    rng = np.random.default_rng(0)
    progress, grounded = rng.random(12), -rng.random(12)
    settings: dict[str, Any] = {
        "gamma": gamma,
        "lookahead": lookahead,
        "grounded_weight": weight,
        "with_tail": with_tail,
    }
    ours = decision_returns(frame_of(progress.tolist(), grounded.tolist()), **settings)
    np.testing.assert_allclose(ours["returns"], credit.decision_returns(progress, grounded, **settings), atol=1e-12)


def test_each_run_has_its_own_settings_unless_they_are_given() -> None:
    frame = pd.concat(
        [
            frame_of([1.0, 1.0], [0.0, 0.0], **SETTINGS),
            frame_of([1.0, 1.0], [0.0, 0.0], run="b-0", **{**SETTINGS, "config/lookahead": 1.0}),
        ]
    )
    assert decision_returns(frame)["returns"].tolist() == [1.5, 1.0, 1.0]
    assert decision_returns(frame, gamma=1.0, lookahead=2)["returns"].tolist() == [2.0, 2.0]


def test_the_decomposition_is_the_mean_over_decisions_and_runs() -> None:
    frame = pd.concat(
        [
            frame_of([1.0, 0.0, 4.0], [-3.0, 0.0, -6.0], **SETTINGS),
            frame_of([2.0, 2.0], [0.0, 0.0], run="a-1", **SETTINGS).assign(seed=1),
        ]
    )
    line = credit_decomposition(decision_returns(frame)).iloc[0]
    # Run a-0: own 0.5, later 2, discount -1, grounded -0.2; run a-1: 2, 2, -1, 0.
    np.testing.assert_allclose(line[list(PARTS)].astype(float), [1.25, 2.0, -1.0, -0.1])
    assert line["returns"] == pytest.approx(2.15)
    assert (line["num_decisions"], line["num_runs"]) == (3, 2)


def test_how_much_of_the_spread_is_grounding() -> None:
    only = decision_returns(frame_of([0.0, 0.0], [-1.0, -3.0]), gamma=1.0, lookahead=1, grounded_weight=1.0)
    assert credit_decomposition(only)["grounded_share"][0] == 1.0
    none = decision_returns(frame_of([0.0, 1.0], [-1.0, -1.0]), gamma=1.0, lookahead=1, grounded_weight=1.0)
    assert credit_decomposition(none)["grounded_share"][0] == 0.0
    flat = decision_returns(frame_of([1.0, 1.0], [-1.0, -1.0]), gamma=1.0, lookahead=1, grounded_weight=1.0)
    assert math.isnan(credit_decomposition(flat)["grounded_share"][0])


def test_a_run_shorter_than_the_lookahead_has_no_complete_decision() -> None:
    assert decision_returns(frame_of([1.0], [0.0], **SETTINGS)).empty


def test_what_cannot_be_credited_is_refused() -> None:
    frame = frame_of([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    with pytest.raises(
        AnalysisError, match="expected the columns config/gamma, config/lookahead, config/grounded_weight"
    ):
        decision_returns(frame)
    settings = {"gamma": 0.9, "lookahead": 2, "grounded_weight": 0.1}
    with pytest.raises(AnalysisError, match="run a-0: expected every window, got gaps"):
        decision_returns(frame[frame["window"] != 2], **settings)
    for name, value in (("gamma", 1.5), ("lookahead", 0), ("lookahead", 1.5), ("grounded_weight", -1.0)):
        with pytest.raises(AnalysisError, match=f"{name} of run a-0: expected"):
            decision_returns(frame, **{**settings, name: value})
