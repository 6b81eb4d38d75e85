"""Numbers that say how sure one can be: bootstrap intervals, interquartile means, improvement, seeds needed.

Pure functions of arrays. All resampling is scipy's, from a generator made of the seed that is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.errors import AnalysisError

CONFIDENCE = 0.95
"""Default confidence level of intervals."""

NUM_RESAMPLES = 2000
"""Default number of bootstrap resamples."""


def interquartile_mean(values: ArrayLike, axis: int = 0) -> Any:
    """Returns the mean without the lowest and the highest quarter (arXiv 2108.13264, section 4.3).

    A quarter of N values is rounded down: with fewer than 4 values it is the plain mean.

    >>> float(interquartile_mean([0.0, 1.0, 2.0, 100.0]))
    1.5
    """
    return stats.trim_mean(np.asarray(values, dtype=np.float64), 0.25, axis=axis)


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[..., Any] = np.mean,
    *,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the percentile bootstrap interval of a statistic over the first axis.

    Resampled are whole rows: what one run says of several windows stays together.

    Args:
        values: A sample of N numbers or vectors without NaN, [N] or [N, W].
        statistic: A function of an array and ``axis``.
        num_resamples: Bootstrap resamples.
        confidence: Confidence level, in (0, 1).
        seed: Seed of the resampling.

    Returns:
        Lower and upper bound, [] or [W]; NaN for fewer than two. Below about 8 rows such intervals are too narrow.
    """
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) < 2:
        nothing = np.full(sample.shape[1:], math.nan)
        return nothing, nothing.copy()
    interval = stats.bootstrap(
        (sample,),
        statistic,
        axis=0,
        vectorized=True,
        n_resamples=num_resamples,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return np.asarray(interval.low), np.asarray(interval.high)


def probability_of_improvement(ours: ArrayLike, theirs: ArrayLike, *, higher_is_better: bool = True) -> float:
    """Returns the probability that a run of ours beats a run of theirs: P(ours better) + P(tie) / 2, over all pairs.

    0.5 is no difference. It is Mann-Whitney's U divided by the number of pairs (arXiv 2108.13264, section 4.3).

    >>> probability_of_improvement([1.0, 3.0], [0.0, 3.0])
    0.625
    """
    first, second = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if not first.size or not second.size:
        return math.nan
    difference = first[:, None] - second[None, :]
    if not higher_is_better:
        difference = -difference
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def improvement_interval(
    ours: ArrayLike,
    theirs: ArrayLike,
    *,
    higher_is_better: bool = True,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of ``probability_of_improvement``, both samples resampled; NaN below two."""
    first, second = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if len(first) < 2 or len(second) < 2:
        return math.nan, math.nan

    def statistic(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return probability_of_improvement(a, b, higher_is_better=higher_is_better)

    interval = stats.bootstrap(
        (first, second),
        statistic,
        vectorized=False,
        n_resamples=num_resamples,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def power_of_paired_test(num_seeds: int, effect: float, deviation: float, *, confidence: float = CONFIDENCE) -> float:
    """Returns the probability that a two-sided paired t-test over seeds finds an effect.

    Args:
        num_seeds: Pairs, at least 2.
        effect: True mean of the paired differences.
        deviation: Their standard deviation, above 0.
        confidence: 1 minus the odds of a false alarm.
    """
    freedom = num_seeds - 1
    limit = stats.t.ppf(0.5 + confidence / 2, freedom)
    shift = abs(effect) / deviation * math.sqrt(num_seeds)
    if shift > 100.0 * limit:
        return 1.0  # where scipy's noncentral t has no numbers any more
    # scipy's tail of the noncentral t beyond any probability is NaN; it is 0 there.
    far_side = stats.nct.cdf(-limit, freedom, shift)
    return float(stats.nct.sf(limit, freedom, shift) + np.nan_to_num(far_side))


def num_seeds_for(
    effect: float, deviation: float, *, power: float = 0.8, confidence: float = CONFIDENCE, most: int = 100_000
) -> int:
    """Returns the fewest seeds with which a two-sided paired t-test finds an effect with the given power.

    Args:
        effect: Mean paired difference to be found, not 0.
        deviation: Standard deviation of the paired differences.
        power: Wanted probability of finding it, in (0, 1).
        confidence: 1 minus the odds of a false alarm, in (0, 1).
        most: Where to stop; an effect that needs more is refused.

    Raises:
        AnalysisError: If the effect is 0 or needs more than ``most`` seeds, or another number is out of range.

    >>> num_seeds_for(1.0, 1.0)
    10
    """
    if effect == 0 or not math.isfinite(effect):
        raise AnalysisError(
            f"effect: expected a difference other than 0, got {effect!r}; no number of seeds finds none."
        )
    if not (deviation >= 0 and 0 < power < 1 and 0 < confidence < 1):
        raise AnalysisError(
            "deviation, power, confidence: expected a deviation of at least 0 and the others between 0 and 1, got "
            f"{deviation!r}, {power!r} and {confidence!r}; "
            "correct these arguments."
        )
    if deviation == 0:
        return 2

    def is_enough(number: int) -> bool:
        return power_of_paired_test(number, effect, deviation, confidence=confidence) >= power

    upper = 2
    while not is_enough(upper):
        upper *= 2
        if upper > most:
            raise AnalysisError(
                f"effect: expected one that {most} seeds can find, got {effect!r} with a deviation of {deviation!r}; look "
                "for a larger one, or measure on more problems."
            )
    lower = upper // 2
    while upper - lower > 1:
        middle = (lower + upper) // 2
        lower, upper = (lower, middle) if is_enough(middle) else (middle, upper)
    return upper
