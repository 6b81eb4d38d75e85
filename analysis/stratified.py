"""How sure one is of a mean over instances: intervals from seeds within each instance (strata), whose levels may differ.

The variance of each instance's mean comes from its own seeds, and Student's t has as many degrees of freedom as Welch and Satterthwaite
give their sum (Biometrics Bulletin 2, 1946): 12 instances of 2 seeds have up to 12, where percentiles of a bootstrap cover far less
than they claim. Instances count as independent. What the intervals cover is measured in docs/bench.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.intervals import CONFIDENCE, interquartile_mean

NUM_DRAWS = 2_000
"""Draws of the bootstrap."""

Strata = Sequence[NDArray[np.float64]]
"""One sample for each instance."""


def stratified_mean_interval(strata: Strata, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Returns the t interval of the mean over instances, each of which counts alike; NaN where one has a single run.

    >>> low, high = stratified_mean_interval([np.array([0.0, 2.0]), np.array([10.0, 12.0])])
    >>> round(low, 3), round(high, 3)  # 6 -+ 4.303 (t with 2 degrees of freedom) x sqrt(1 + 1) / 2
    (2.958, 9.042)
    """
    if min(map(len, strata)) < 2:
        return math.nan, math.nan
    error = math.sqrt(sum(_variances(strata))) / len(strata)
    return _around(float(np.mean([sample.mean() for sample in strata])), error, strata, confidence)


def stratified_iqm_interval(strata: Strata, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Returns the t interval of the interquartile mean over all runs; NaN where an instance has a single run.

    Its standard error is that of a bootstrap within instances (arXiv 2108.13264), from a generator of its own with a fixed seed. Of an
    instance's N runs N - 1 are drawn, which gives means the right variance; N would give (N - 1) / N of it (Rao and Wu, JASA 83, 1988).
    """
    if min(map(len, strata)) < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(0)
    drawn = [sample[rng.integers(len(sample), size=(NUM_DRAWS, len(sample) - 1))] for sample in strata]
    error = float(interquartile_mean(np.concatenate(drawn, axis=1), axis=1).std())
    return _around(float(interquartile_mean(np.concatenate(strata))), error, strata, confidence)


def _variances(strata: Strata) -> list[float]:
    """Returns the variance of each instance's mean."""
    return [float(sample.var(ddof=1)) / len(sample) for sample in strata]


def _around(middle: float, error: float, strata: Strata, confidence: float) -> tuple[float, float]:
    variances = np.array(_variances(strata))
    if not variances.any():
        return middle, middle
    freedom = variances.sum() ** 2 / sum(variances**2 / [len(sample) - 1 for sample in strata])
    half = float(stats.t.ppf(0.5 + confidence / 2, freedom)) * error
    return middle - half, middle + half
