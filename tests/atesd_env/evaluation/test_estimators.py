"""Estimators of an evaluation, against enumeration and known cases."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from atesd_env.errors import ConfigError
from atesd_env.evaluation.estimators import compare, equivalence_classes, estimate, majority_vote, pass_at_k


def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample():
    correct = [True, False, False, True, False]
    for k in range(1, 6):
        subsets = list(combinations(correct, k))
        assert pass_at_k(5, 2, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_votes_are_counted_over_classes_of_answers_and_no_answer_never_wins():
    asked = []

    def same(first: str, second: str) -> bool:
        asked.append((first, second))
        return float(first) == float(second)

    classes = equivalence_classes([None, "2", "0.5", "2.0", None, None, "2", ".5"], same)
    assert classes == [[1, 3, 6], [2, 7]]
    assert len(asked) == 4, "equal texts are compared once"
    assert majority_vote(classes, [False, True, False, True, False, False, True, False]) == 1.0
    assert majority_vote([], [False, False]) == 0.0


def test_a_tied_vote_counts_by_chance():
    assert majority_vote([[0, 1], [2, 3], [4]], [True, True, False, False, True]) == 0.5


def test_sampling_and_problem_error_are_apart():
    certain = np.repeat([[1.0], [0.0]], 12, axis=1).repeat(15, axis=0)  # problems differ, samples of one do not
    result = estimate(certain)
    assert (result.mean, result.sampling_error) == (0.5, 0.0)
    assert 0.25 < result.low < 0.4 < 0.6 < result.high < 0.75
    alike = np.tile([0.0, 1.0], (30, 6))  # every problem is a coin
    result = estimate(alike)
    assert (result.low, result.high) == (0.5, 0.5)
    assert result.sampling_error == pytest.approx(np.sqrt(0.25 * 12 / 11 / 12 / 30))


def test_the_sampling_error_is_the_spread_of_repeated_evaluations():
    """2000 evaluations of 30 coins x 12 samples; seed 0: the spread's own standard error is 1.6%, so 10% is over 6 of them."""
    rng = np.random.default_rng(0)
    chances = rng.uniform(size=(30, 1))
    runs = [(rng.uniform(size=(30, 12)) < chances).astype(float) for _ in range(2000)]
    spread = np.std([run.mean() for run in runs])
    assert np.sqrt(np.mean([estimate(run).sampling_error ** 2 for run in runs[:200]])) == pytest.approx(spread, rel=0.1)
    assert 0.01 < spread < 0.03, "about 2 points, as the output says"


def test_a_comparison_is_paired_and_cancels_how_hard_problems_are():
    hard = np.repeat([[0.0] * 4, [1.0] * 4], 10, axis=0)
    better = hard.copy()
    better[0] = 1.0
    result = compare([better], [hard])
    assert result.difference.mean == pytest.approx(0.05)
    assert (result.num_better, result.num_worse) == (1, 0)
    assert result.difference.high - result.difference.low < 0.2 < estimate(hard).high - estimate(hard).low
    assert np.isnan(result.seed_error)
    several = compare([better, hard], [hard, hard])
    assert several.difference.mean == pytest.approx(0.025)
    assert several.seed_error == pytest.approx(0.025)
    against_base = compare([better, hard], [hard], is_second_untrained=True)
    assert (against_base.difference.mean, against_base.seed_error) == (pytest.approx(0.025), pytest.approx(0.025))
    assert np.isnan(compare([better, hard], [hard]).seed_error)


def test_other_problems_cannot_be_compared():
    with pytest.raises(ConfigError, match="same problems and samples"):
        compare([np.zeros((2, 3))], [np.zeros((3, 3))])
