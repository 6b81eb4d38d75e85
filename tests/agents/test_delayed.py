"""Decisions that wait for their return: the same numbers as the pure functions, and what files hold of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.base import Transition
from agents.credit import decision_returns
from agents.delayed import PendingDecisions, decision_arrays, decisions_of


@pytest.mark.parametrize("lookahead", [1, 2, 3, 7])
def test_online_credit_equals_the_pure_function(lookahead: int):
    rng = np.random.default_rng(0)
    progress, grounded = rng.random(6), -rng.random(6)
    settings: dict[str, Any] = {"gamma": 0.8, "lookahead": lookahead, "grounded_weight": 0.1}
    pending: PendingDecisions[int] = PendingDecisions(**settings)
    completed = []
    for decision in range(6):
        now = pending.add(decision, progress[decision], grounded[decision])
        # Known as soon as L windows have passed, and not before.
        assert [name for name, _ in now] == ([decision - lookahead + 1] if decision >= lookahead - 1 else [])
        completed += now
    np.testing.assert_array_equal([value for _, value in completed], decision_returns(progress, grounded, **settings))
    completed += pending.finish()
    assert [name for name, _ in completed] == list(range(6))
    with_tail = decision_returns(progress, grounded, with_tail=True, **settings)
    np.testing.assert_allclose([value for _, value in completed], with_tail, rtol=1e-14)
    assert pending.finish() == []


def test_cleared_decisions_get_no_credit():
    pending: PendingDecisions[str] = PendingDecisions(gamma=1.0, lookahead=2, grounded_weight=0.0)
    pending.add("old run", 5.0, 0.0)
    pending.clear()
    assert pending.add("first", 1.0, 0.0) == []
    assert pending.add("second", 2.0, 0.0) == [("first", 3.0)]


def transition(
    progress: float | None, grounded: float | None, reward: float = 0.0, *, broke: bool = False
) -> Transition:
    nothing = np.zeros(0, dtype=np.float32)
    info = {"reward/progress": progress, "probe/grounded": grounded}
    return Transition(nothing, nothing, reward, nothing, broke, False, info)


@pytest.mark.parametrize("weight", [0.0, 0.5])
@pytest.mark.parametrize("grounded", [None, float("nan"), -2.0])
def test_the_window_that_breaks_a_student_counts_with_its_penalty_and_ends_the_wait(
    grounded: float | None, weight: float
):
    pending: PendingDecisions[str] = PendingDecisions(gamma=0.5, lookahead=2, grounded_weight=weight)
    assert pending.observe("first", transition(1.0, 0.0)) == []
    completed = pending.observe("second", transition(None, grounded, -3.0, broke=True))
    assert [name for name, _ in completed] == ["first", "second"]
    assert completed[1][1] == pytest.approx(-3.0)
    assert not pending.entries


class Choice(NamedTuple):
    numbers: NDArray[np.float64]
    arms: NDArray[np.int64]


def test_decisions_come_back_from_their_arrays():
    entries = [(Choice(np.array([0.1 * index]), np.array([index, 7])), 0.5 * index, -1.0) for index in range(3)]
    arrays = decision_arrays("waiting", ("x", "arms"), entries)
    assert {name: array.shape for name, array in arrays.items()} == {
        "waiting/x": (3, 1),
        "waiting/arms": (3, 2),
        "waiting/numbers": (3, 2),
    }
    assert arrays["waiting/arms"].dtype == np.int64
    for ours, theirs in zip(decisions_of("waiting", ("x", "arms"), Choice, arrays), entries, strict=True):
        assert ours[1:] == theirs[1:]
        assert all((a == b).all() for a, b in zip(ours[0], theirs[0], strict=True))
    assert decision_arrays("waiting", ("x", "arms"), []) == {}
    assert decisions_of("waiting", ("x", "arms"), Choice, {}) == []
