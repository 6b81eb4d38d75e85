"""Weights that are learned from what ratios end at: on scores of which one decides, and against a slope by differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from benchmarks.exposure_scores import learned


def examples(seed: int, right: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Two instances of 40 runs and 5 ratios, whose outcome is one of the two scores, with its sign."""
    scores = np.random.default_rng(seed).normal(size=(2, 40, 5, 2))
    return [(one, (1.0 if right == 0 else -1.0) * one[..., right]) for one in scores]


@pytest.mark.parametrize("right", [0, 1])
def test_the_score_that_decides_gets_the_weight(right: int):
    weights = learned(examples(0, right), penalty=1e-4)
    assert abs(weights[right]) > 20 * abs(weights[1 - right])
    assert np.sign(weights[right]) == (1.0 if right == 0 else -1.0)


def test_they_are_where_the_penalised_worth_is_greatest():
    known = [(scores, scores[..., 0] - 0.5 * scores[..., 1]) for scores, _ in examples(1, 0)]
    scale = np.concatenate([scores.reshape(-1, 2) for scores, _ in known]).std(axis=0)

    def worth(weights: np.ndarray) -> float:
        values = [(softmax(scores @ weights, axis=1) * outcomes).sum(axis=1).mean() for scores, outcomes in known]
        return float(np.mean(values)) - 0.05 * float(((weights * scale) ** 2).sum())

    found = learned(known, penalty=0.05)
    for step in np.eye(2) * 1e-3:
        assert abs(worth(found + step) - worth(found - step)) / 2e-3 < 1e-3
