"""The mathematics of bandits: by hand, by recursion, and against MABWiser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mabwiser.mab import MAB, LearningPolicy

from agents.bandits.rules import (
    arm_sums,
    exp3s_gain,
    exp3s_probabilities,
    exp3s_weights,
    gaussian_posterior,
    linucb_parts,
    location_and_scale,
    recency_weights,
    standard_scores,
    ucb_indices,
)

NUM_ARMS = 4


def history(num_entries: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns random arms [n] (each at least once, first), scores [n] and contexts [n, 3]."""
    rng = np.random.default_rng(seed)
    arms = np.concatenate([np.arange(NUM_ARMS), rng.integers(NUM_ARMS, size=num_entries - NUM_ARMS)])
    return arms, rng.normal(size=num_entries), rng.normal(size=(num_entries, 3))


def test_weights_by_hand():
    np.testing.assert_allclose(recency_weights(3, discount=0.9), [0.81, 0.9, 1.0])
    np.testing.assert_array_equal(recency_weights(3), [1.0, 1.0, 1.0])
    np.testing.assert_array_equal(recency_weights(4, window=2), [0.0, 0.0, 1.0, 1.0])
    np.testing.assert_array_equal(recency_weights(2, window=5), [1.0, 1.0])
    assert recency_weights(0, discount=0.5, window=3).shape == (0,)


def test_discounted_sums_obey_their_recursion():
    """Garivier and Moulines: N <- discount * N + [arm], and likewise the sums; a window drops what is older."""
    arms, scores, _ = history(30)
    counts, sums = np.zeros(NUM_ARMS), np.zeros(NUM_ARMS)
    for length in range(1, 31):
        counts, sums = 0.8 * counts, 0.8 * sums
        counts[arms[length - 1]] += 1.0
        sums[arms[length - 1]] += scores[length - 1]
        weights = recency_weights(length, discount=0.8)
        for ours, theirs in zip(
            arm_sums(arms[:length], scores[:length], weights, num_arms=NUM_ARMS), (counts, sums), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-15)
    windowed = arm_sums(arms, scores, recency_weights(30, window=7), num_arms=NUM_ARMS)
    newest = arm_sums(arms[-7:], scores[-7:], np.ones(7), num_arms=NUM_ARMS)
    np.testing.assert_allclose(windowed, newest)


def test_sums_of_an_empty_history_are_floating_zeros():
    counts, sums = arm_sums(np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0), num_arms=3)
    assert counts.dtype == sums.dtype == np.float64
    np.testing.assert_array_equal([counts, sums], np.zeros((2, 3)))


def test_scores_by_hand():
    """Median 3, absolute deviations 2, 1, 0, 1, 97: their median is 1."""
    scores = standard_scores(np.array([1.0, 2.0, 3.0, 4.0, 100.0]), scale_window=5)
    np.testing.assert_allclose(scores, [-2 / 1.482602, -1 / 1.482602, 0.0, 1 / 1.482602, 3.0], rtol=1e-6)


def test_the_scale_estimates_a_standard_deviation():
    """Seed 0, 20,000 normal numbers of deviation 3: the estimate's standard error is 0.025; odds of a miss below 1e-9."""
    location, scale = location_and_scale(np.random.default_rng(0).normal(10.0, 3.0, 20_000))
    assert location == pytest.approx(10.0, abs=0.2)
    assert scale == pytest.approx(3.0, abs=0.16)


def test_scores_know_no_unit():
    returns = np.random.default_rng(0).normal(size=40)
    scores = standard_scores(returns, scale_window=20)
    np.testing.assert_array_equal(standard_scores(returns * 2.0**-20, scale_window=20), scores)
    np.testing.assert_allclose(standard_scores(7.0 * returns - 300.0, scale_window=20), scores, rtol=1e-9)
    assert not np.allclose(standard_scores(-returns, scale_window=20), scores)


def test_scores_are_measured_by_the_newest_returns():
    returns = np.concatenate([np.full(10, 1000.0), np.arange(20.0)])
    scores = standard_scores(returns, scale_window=20)
    np.testing.assert_array_equal(scores[:10], 3.0)
    np.testing.assert_allclose(scores[10:], standard_scores(np.arange(20.0), scale_window=20))


def test_scores_of_returns_that_hardly_differ():
    assert standard_scores(np.zeros(0), scale_window=5).shape == (0,)
    np.testing.assert_array_equal(standard_scores(np.array([5.0]), scale_window=5), [0.0])
    np.testing.assert_array_equal(
        standard_scores(np.array([9.0, 1.0, 2.0, 2.0]), scale_window=2), [3.0, -3.0, 0.0, 0.0]
    )
    # More than half are equal: the mean absolute deviation, 1 / 4, stands in.
    mostly = standard_scores(np.array([0.0, 0.0, 0.0, 1.0]), scale_window=4)
    np.testing.assert_allclose(mostly, [0.0, 0.0, 0.0, 3.0])
    np.testing.assert_allclose(location_and_scale(np.array([0.0, 0.0, 0.0, 1.0])), (0.0, 0.25 * np.sqrt(np.pi / 2)))


def test_ucb_by_hand():
    """Pulls 2 and 6, sums 1 and 6: means 0.5 and 1; N = 8."""
    indices = ucb_indices(np.array([2.0, 6.0]), np.array([1.0, 6.0]), exploration=0.5)
    np.testing.assert_allclose(indices, [0.5 + 0.5 * np.sqrt(np.log(8)), 1.0 + 0.5 * np.sqrt(np.log(8) / 3)])
    greedy = ucb_indices(np.array([2.0, 6.0, 0.0]), np.array([1.0, 6.0, 0.0]), exploration=0.0)
    np.testing.assert_array_equal(greedy, [0.5, 1.0, np.inf])
    # A waiting pull counts in the bonus only; an arm with nothing but waiting pulls has mean 0.
    waiting = ucb_indices(np.array([2.0, 6.0, 0.0]), np.array([1.0, 6.0, 0.0]), pending=np.array([1.0, 0.0, 1.0]))
    bonuses = np.sqrt(2 * np.log(10) / np.array([3.0, 6.0, 1.0]))
    np.testing.assert_allclose(waiting, np.array([0.5, 1.0, 0.0]) + bonuses)
    np.testing.assert_array_equal(ucb_indices(np.zeros(2), np.zeros(2)), [np.inf, np.inf])


def test_ucb_of_a_window_has_the_windows_length_in_its_logarithm():
    """SW-UCB: after 100 pulls with a window of 10, log 10 and not log 100; D-UCB: log of 1 / (1 - discount)."""
    arms, scores = np.arange(100) % 2, np.zeros(100)
    windowed = arm_sums(arms, scores, recency_weights(100, window=10), num_arms=2)
    np.testing.assert_allclose(ucb_indices(*windowed), np.sqrt(2 * np.log(10) / 5))
    discounted = arm_sums(arms, scores, recency_weights(100, discount=0.5), num_arms=2)
    np.testing.assert_allclose(ucb_indices(*discounted), np.sqrt(2 * np.log(2) / np.array([2 / 3, 4 / 3])))


@pytest.mark.parametrize("exploration", [0.05, 1.0])
def test_ucb_decides_as_mabwiser_does(exploration: float):
    """60 pulls, shared, each arm once and then random ones: the same index for each arm after each, so the same decision."""
    arms, scores, _ = history(60)
    theirs = MAB(list(range(NUM_ARMS)), LearningPolicy.UCB1(alpha=exploration))
    theirs.fit(arms[:NUM_ARMS], scores[:NUM_ARMS])
    decisions = set()
    for length in range(NUM_ARMS + 1, 61):
        theirs.partial_fit(arms[length - 1 : length], scores[length - 1 : length])
        ours = ucb_indices(
            *arm_sums(arms[:length], scores[:length], np.ones(length), num_arms=NUM_ARMS), exploration=exploration
        )
        np.testing.assert_allclose(ours, list(theirs.predict_expectations().values()), rtol=1e-12)
        assert ours.argmax() == theirs.predict()
        decisions.add(int(ours.argmax()))
    assert len(decisions) > 1


def linucb_of(arm: int, context: np.ndarray, entries: tuple[np.ndarray, ...], **options: Any) -> tuple[float, float]:
    arms, scores, contexts = entries
    weights = options.pop("weights", np.ones(len(arms)))
    is_arm = arms == arm
    return linucb_parts(context, contexts[is_arm], scores[is_arm], weights[is_arm], **options)


@pytest.mark.parametrize("ridge", [1.0, 2.5])
def test_linucb_decides_as_mabwiser_does(ridge: float):
    """60 pulls, shared. (Without a pull, MABWiser's inverse is right for a ridge of 1 only; all arms are pulled here.)"""
    arms, scores, contexts = history(60)
    theirs = MAB(list(range(NUM_ARMS)), LearningPolicy.LinUCB(alpha=0.7, l2_lambda=ridge))
    theirs.fit(arms[:NUM_ARMS], scores[:NUM_ARMS], contexts[:NUM_ARMS])
    decisions = set()
    for length in range(NUM_ARMS + 1, 61):
        new = slice(length - 1, length)
        theirs.partial_fit(arms[new], scores[new], contexts[new])
        context = np.random.default_rng(length).normal(size=3)
        known = (arms[:length], scores[:length], contexts[:length])
        parts = [linucb_of(arm, context, known, ridge=ridge) for arm in range(NUM_ARMS)]
        ours = [prediction + 0.7 * width for prediction, width in parts]
        np.testing.assert_allclose(ours, list(theirs.predict_expectations(context[None]).values()), rtol=1e-9)
        assert int(np.argmax(ours)) == theirs.predict(context[None])
        decisions.add(int(np.argmax(ours)))
    assert len(decisions) > 1


def test_linucb_by_hand():
    """One feature, ridge 1, contexts 1 and 2 with scores 3 and 4: V = 6, b = 11; in context 2, 22 / 6 and 2 / sqrt(6)."""
    contexts, scores = np.array([[1.0], [2.0]]), np.array([3.0, 4.0])
    prediction, width = linucb_parts(np.array([2.0]), contexts, scores, np.ones(2))
    assert (prediction, width) == pytest.approx((22 / 6, 2 / np.sqrt(6)))
    prediction, width = linucb_parts(np.array([2.0]), contexts, scores, np.ones(2), pending=np.array([[3.0]]))
    # The waiting pull makes V = 15 for the width; a mean shrunk by what has no score yet would be a wrong one.
    assert (prediction, width) == pytest.approx((22 / 6, 2 / np.sqrt(15)))
    assert linucb_parts(np.array([2.0]), contexts[:0], scores[:0], np.ones(0), ridge=4.0) == pytest.approx((0.0, 1.0))


def test_discounted_linucb_obeys_its_recursion():
    """D-LinUCB: V <- d V + x x' + (1 - d) I, U <- d^2 U + x x' + (1 - d^2) I, b <- d b + score x, all entries one arm's."""
    _, scores, contexts = history(25)
    design, squared, target = np.eye(3), np.eye(3), np.zeros(3)
    for score, one in zip(scores, contexts, strict=True):
        design = 0.9 * design + np.outer(one, one) + 0.1 * np.eye(3)
        squared = 0.81 * squared + np.outer(one, one) + 0.19 * np.eye(3)
        target = 0.9 * target + score * one
    context = np.array([1.0, -2.0, 0.5])
    inverse = np.linalg.inv(design)
    expected = context @ inverse @ target, np.sqrt(context @ inverse @ squared @ inverse @ context)
    ours = linucb_parts(context, contexts, scores, recency_weights(25, discount=0.9))
    assert ours == pytest.approx(expected, rel=1e-10)


def test_the_posterior_is_that_of_one_score_after_another():
    """Conjugate updates of N(0, 1) by scores with noise 0.5, one at a time."""
    scores = np.array([1.0, 0.4, 2.0])
    mean, variance = 0.0, 1.0
    for score in scores:
        gain = variance / (variance + 0.25)
        mean, variance = mean + gain * (score - mean), variance * (1.0 - gain)
    means, deviations = gaussian_posterior(np.array([3.0, 0.0]), np.array([scores.sum(), 0.0]), noise=0.5)
    np.testing.assert_allclose(means, [mean, 0.0])
    np.testing.assert_allclose(deviations, [np.sqrt(variance), 1.0])


def test_exp3s_by_hand():
    """A = 2, exploration 0.5, share 0.1; arm 1 gains 0.8 at probability 0.4, so it grows by exp(0.5 * 2 / 2)."""
    weights = exp3s_weights(np.array([3.0, 1.0]), 1, 0.8, 0.4, exploration=0.5, share=0.1)
    raw = np.array([3.0, np.exp(0.5)]) + np.e * 0.1 / 2 * 4.0
    np.testing.assert_allclose(weights, raw / raw.sum())
    np.testing.assert_allclose(exp3s_probabilities(weights, exploration=0.5), 0.5 * raw / raw.sum() + 0.25)
    assert [exp3s_gain(score) for score in (-3.0, -1.0, 0.0, 0.5, 3.0)] == [0.0, 0.0, 0.5, 0.75, 1.0]


def test_scaled_exp3s_weights_give_the_published_probabilities():
    """50 gains: the published weights, never scaled, give the same probabilities at each step; no share is Exp3."""
    rng = np.random.default_rng(0)
    for share in (0.0, 0.02):
        ours, published = np.full(NUM_ARMS, 1 / NUM_ARMS), np.ones(NUM_ARMS)
        for _ in range(50):
            probabilities = exp3s_probabilities(ours, exploration=0.3)
            np.testing.assert_allclose(probabilities, 0.7 * published / published.sum() + 0.3 / NUM_ARMS, rtol=1e-10)
            arm, gain = int(rng.integers(NUM_ARMS)), float(rng.random())
            ours = exp3s_weights(ours, arm, gain, probabilities[arm], exploration=0.3, share=share)
            estimates = np.where(np.arange(NUM_ARMS) == arm, gain / probabilities[arm], 0.0)
            published = published * np.exp(0.3 * estimates / NUM_ARMS) + np.e * share / NUM_ARMS * published.sum()
        assert exp3s_probabilities(ours, exploration=0.3).sum() == pytest.approx(1.0)


def test_sharing_bounds_how_long_a_change_is_missed():
    """Arm 0 gains 200 times, then arm 1: Exp3's other weight has all but vanished, Exp3.S's is back within 60 gains."""

    def probability_of_1(share: float) -> float:
        weights = np.array([0.5, 0.5])
        for arm, times in ((0, 200), (1, 60)):
            for _ in range(times):
                weights = exp3s_weights(weights, arm, 1.0, 1.0, exploration=0.2, share=share)
        return float(exp3s_probabilities(weights, exploration=0.2)[1])

    assert probability_of_1(0.0) < 0.11
    assert probability_of_1(0.01) > 0.7
