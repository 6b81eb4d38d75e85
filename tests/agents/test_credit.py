"""Credit: the paper's R by hand, its reductions, the mistakes that must show; and decisions that wait for it inside a run."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.base import Transition
from agents.credit import (
    PendingDecisions,
    decision_arrays,
    decision_returns,
    decisions_of,
    grounded_return,
    learning_progress_return,
)
from atesd_env.envs.reward import window_reward
from atesd_env.errors import ConfigError
from atesd_env.simulated.toy import ToyExposureEnv

# Measurements l_0 .. l_5 and scores g_1 .. g_5 of a run of five windows; the drops are 1, 0 (a rise), 0.5, 0.25, 0.
PROBE_NLL = [3.0, 2.0, 2.5, 2.0, 1.75, 1.75]
PROGRESS = [1.0, 0.0, 0.5, 0.25, 0.0]
GROUNDED = [-1.0, -2.0, -4.0, 0.0, -8.0]


def test_returns_by_hand():
    """L = 3, g = 0.5, lambda = 0.1. For decision 0: G_lp = 1 + 0.5*0 + 0.25*0.5 = 1.125;
    G_gt = (1*(-1) + 0.5*(-2) + 0.25*(-4)) / 1.75 = -3 / 1.75."""
    settings: dict[str, Any] = {"gamma": 0.5, "lookahead": 3}
    np.testing.assert_allclose(
        learning_progress_return(PROGRESS, **settings), [1.125, 0.0 + 0.25 + 0.0625, 0.5 + 0.125 + 0.0]
    )
    np.testing.assert_allclose(
        grounded_return(GROUNDED, **settings), [-3.0 / 1.75, (-2.0 - 2.0 - 0.0) / 1.75, (-4.0 + 0.0 - 2.0) / 1.75]
    )
    np.testing.assert_allclose(
        decision_returns(PROGRESS, GROUNDED, grounded_weight=0.1, **settings),
        [1.125 - 0.3 / 1.75, 0.3125 - 0.4 / 1.75, 0.625 - 0.6 / 1.75],
    )


def test_the_tail_has_fewer_terms_and_its_own_weights():
    returns = decision_returns(PROGRESS, GROUNDED, gamma=0.5, lookahead=3, grounded_weight=0.1, with_tail=True)
    whole = decision_returns(PROGRESS, GROUNDED, gamma=0.5, lookahead=3, grounded_weight=0.1)
    np.testing.assert_allclose(returns[:3], whole)
    np.testing.assert_allclose(returns[3:], [0.25 + 0.1 * (0.0 - 4.0) / 1.5, 0.0 + 0.1 * -8.0])


@pytest.mark.parametrize("spike", range(6))
def test_a_single_spike_reaches_the_last_lookahead_decisions_only(spike: int):
    """Window spike+1 alone makes progress: decision t = spike-L+1 .. spike gets gamma^(spike - t), others nothing."""
    progress = np.zeros(6)
    progress[spike] = 1.0
    expected = [0.5 ** (spike - decision) if 0 <= spike - decision < 3 else 0.0 for decision in range(6)]
    returns = learning_progress_return(progress, gamma=0.5, lookahead=3, with_tail=True)
    np.testing.assert_allclose(returns, expected)
    # The mistake that a decision is credited from the measurement before its own window would be seen here.
    shifted = learning_progress_return(np.roll(progress, 1), gamma=0.5, lookahead=3, with_tail=True)
    assert not np.allclose(shifted, expected)


def test_a_decision_is_not_credited_for_what_came_before_it():
    early = learning_progress_return([9.0, 0.0, 0.0, 0.0], gamma=1.0, lookahead=2)
    np.testing.assert_array_equal(early, [9.0, 0.0, 0.0])


def test_a_constant_has_closed_forms():
    returns = learning_progress_return(np.full(8, 2.0), gamma=0.9, lookahead=4)
    np.testing.assert_allclose(returns, 2.0 * (1 - 0.9**4) / (1 - 0.9))
    np.testing.assert_allclose(grounded_return(np.full(8, -0.7), gamma=0.9, lookahead=4, with_tail=True), -0.7)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_one_step_lookahead_is_the_environments_reward(gamma: float):
    expected = [window_reward(*pair, 0.3) for pair in zip(PROGRESS, GROUNDED, strict=True)]
    returns = decision_returns(PROGRESS, GROUNDED, gamma=gamma, lookahead=1, grounded_weight=0.3)
    np.testing.assert_allclose(returns, expected)


def test_one_step_lookahead_is_the_reward_of_a_real_run():
    env = ToyExposureEnv(windows=30)
    env.reset(seed=0)
    steps = [env.step(np.array([ratio])) for ratio in np.random.default_rng(0).random(30)]
    columns = [[step[-1][name] for step in steps] for name in ("reward/progress", "probe/grounded")]
    returns = decision_returns(*columns, gamma=0.9, lookahead=1, grounded_weight=env.config.grounded_weight)
    np.testing.assert_allclose(returns, [step[1] for step in steps], rtol=1e-12)


def test_the_ends_of_gamma():
    one_step = decision_returns(PROGRESS, GROUNDED, gamma=0.5, lookahead=1, grounded_weight=0.1)
    myopic = decision_returns(PROGRESS, GROUNDED, gamma=0.0, lookahead=3, grounded_weight=0.1, with_tail=True)
    np.testing.assert_allclose(myopic, one_step)
    np.testing.assert_allclose(learning_progress_return(PROGRESS, gamma=1.0, lookahead=3), [1.5, 0.75, 0.75])
    np.testing.assert_allclose(grounded_return(GROUNDED, gamma=1.0, lookahead=2), [-1.5, -3.0, -2.0, -4.0])


def test_a_run_shorter_than_the_lookahead():
    assert decision_returns([1.0], [0.0], gamma=0.5, lookahead=2, grounded_weight=0.0).shape == (0,)
    tail = decision_returns([1.0], [-2.0], gamma=0.5, lookahead=2, grounded_weight=1.0, with_tail=True)
    np.testing.assert_allclose(tail, [-1.0])
    assert decision_returns([], [], gamma=0.5, lookahead=2, grounded_weight=0.0, with_tail=True).shape == (0,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lookahead": 0}, "lookahead: expected at least 1 window, got 0"),
        ({"gamma": 1.5}, r"gamma: expected a discount in \[0, 1\], got 1.5"),
        ({"progress": [np.nan, 0.0]}, "progress: expected finite numbers"),
        ({"grounded": [[0.0, 0.0]]}, "grounded: expected finite numbers, one for each window"),
        ({"grounded": [0.0]}, "grounded: expected one score for each of the 2 windows, got 1"),
    ],
)
def test_wrong_input_is_refused(changes: dict[str, Any], message: str):
    arguments: dict[str, Any] = {"progress": [0.0, 0.0], "grounded": [0.0, 0.0], "gamma": 0.5, "lookahead": 1}
    with pytest.raises(ConfigError, match=message):
        decision_returns(**{**arguments, "grounded_weight": 0.1, **changes})


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
