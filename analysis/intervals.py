"""Numbers that say how sure one can be: intervals of means, interquartile means, improvement, seeds needed.

Pure functions of arrays. Several agents against each other are in ``analysis.contrasts``. What the intervals cover at few seeds is
measured in docs/results/comparisons.md.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from analysis.errors import AnalysisError

CONFIDENCE = 0.95
"""Default confidence level of intervals."""

_NUM_DRAWS = 40_000
_LARGEST_SIMULATED = 64


def require_confidence(confidence: float) -> None:
    """Raises AnalysisError if a confidence level is none."""
    if not 0 < confidence < 1:
        raise AnalysisError(f"confidence: expected a level between 0 and 1, got {confidence!r}; pass 0.95, say.")


def mean_interval(values: ArrayLike, *, confidence: float = CONFIDENCE) -> tuple[Any, Any, Any]:
    """Returns the mean over the first axis and its Student's t interval.

    Of paired differences it covers what it claims from two seeds on where they are about normal or symmetric; of one agent's
    own outcomes, where these are skewed, a point or two less than it claims.

    Args:
        values: A sample of N numbers or vectors, [N] or [N, W]; in a sample of numbers, NaN is left out.
        confidence: Confidence level, in (0, 1).

    Returns:
        Mean, lower and upper bound, [] or [W]; bounds of fewer than two are NaN.

    >>> tuple(round(float(number), 3) for number in mean_interval([1.0, 2.0, 3.0]))
    (2.0, -0.484, 4.484)
    """
    require_confidence(confidence)
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim == 1:
        sample = sample[~np.isnan(sample)]
    if not len(sample):
        nothing = np.full(sample.shape[1:], math.nan)[()]
        return nothing, nothing, nothing
    mean = sample.mean(axis=0)
    if len(sample) < 2:
        return mean, np.full_like(mean, math.nan)[()], np.full_like(mean, math.nan)[()]
    half = stats.t.ppf(0.5 + confidence / 2, len(sample) - 1) * sample.std(axis=0, ddof=1) / math.sqrt(len(sample))
    return mean, mean - half, mean + half


def interquartile_mean(values: ArrayLike, axis: int = 0) -> Any:
    """Returns the mean without the lowest and the highest quarter (arXiv 2108.13264, section 4.3).

    A quarter of N values is rounded down: with fewer than 4 values it is the plain mean.

    >>> float(interquartile_mean([0.0, 1.0, 2.0, 100.0]))
    1.5
    """
    return stats.trim_mean(np.asarray(values, dtype=np.float64), 0.25, axis=axis)


def interquartile_interval(values: ArrayLike, *, confidence: float = CONFIDENCE) -> tuple[Any, Any]:
    """Returns the interval of the interquartile mean that winsorised deviations give (Yuen, Biometrika 61, 1974); NaN below two.

    Its limit is that of normal samples (``interquartile_limit``). Four seeds leave two values, and it is wide.

    Args:
        values: A sample of N numbers or vectors, [N] or [N, W].
        confidence: Confidence level, in (0, 1).

    Returns:
        Lower and upper bound, [] or [W].
    """
    sample = np.sort(np.asarray(values, dtype=np.float64), axis=0)
    if len(sample) < 2:
        return math.nan, math.nan
    half = interquartile_limit(len(sample), confidence) * _interquartile_error(sample)
    middle = interquartile_mean(sample)
    return middle - half, middle + half


@lru_cache(maxsize=256)
def interquartile_limit(num_values: int, confidence: float) -> float:
    """Returns how many standard errors an interquartile mean of normal values is off by at most, with a confidence.

    Student's t with one degree of freedom fewer than values kept, which Yuen takes, is exact where none is left out; below 64
    values it is up to 1.5 points of coverage short, and the limit is simulated, once for each number from a fixed seed.
    """
    if 4 <= num_values <= _LARGEST_SIMULATED:
        samples = np.sort(np.random.default_rng(num_values).standard_normal((num_values, _NUM_DRAWS)), axis=0)
        distances = np.abs(interquartile_mean(samples)) / _interquartile_error(samples)
        return float(np.quantile(distances, confidence))
    return float(stats.t.ppf(0.5 + confidence / 2, num_values - 2 * (num_values // 4) - 1))


def _interquartile_error(ordered: NDArray[np.float64]) -> Any:
    """Returns Yuen's standard error of the interquartile mean of a sample, sorted along its first axis."""
    num_values = len(ordered)
    left_out = num_values // 4
    kept = num_values - 2 * left_out
    winsorised = np.clip(ordered, ordered[left_out], ordered[-1 - left_out])
    return np.sqrt(num_values * winsorised.var(axis=0) / (kept * (kept - 1)))


def probability_of_improvement(ours: ArrayLike, theirs: ArrayLike, *, higher_is_better: bool) -> float:
    """Returns the probability that a run of ours beats a run of theirs: P(ours better) + P(tie) / 2, over all pairs.

    0.5 is no difference. It is Mann-Whitney's U divided by the number of pairs (arXiv 2108.13264, section 4.3).

    >>> probability_of_improvement([1.0, 3.0], [0.0, 3.0], higher_is_better=True)
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
    ours: ArrayLike, theirs: ArrayLike, *, higher_is_better: bool, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Returns an interval of ``probability_of_improvement``; NaN below two.

    It is Newcombe's (his method 5, Statistics in Medicine 25, 2006) with Student's t of both samples' degrees of freedom for his
    normal limit, which is too small at three seeds; so it covers what it claims or more. It takes the samples as independent:
    runs that share seeds are more alike, which makes it wider than it need be.
    """
    first, second = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if len(first) < 2 or len(second) < 2:
        return math.nan, math.nan
    found = probability_of_improvement(first, second, higher_is_better=higher_is_better)
    limit = float(stats.t.ppf(0.5 + confidence / 2, len(first) + len(second) - 2))
    return newcombe_interval(found, len(first), len(second), limit)


def newcombe_interval(found: float, num_ours: int, num_theirs: int, limit: float) -> tuple[float, float]:
    """Returns the probabilities of improvement that lie within ``limit`` standard errors of the one that was found.

    Args:
        found: Among all pairs of ``num_ours`` and ``num_theirs`` runs.
        num_ours: At least 1.
        num_theirs: At least 1.
        limit: In Newcombe's standard errors, those of the true probability.
    """
    pairs, more = num_ours * num_theirs, (num_ours + num_theirs) / 2 - 1

    def excess(true: float) -> float:
        variance = true * (1 - true) * (1 + more * ((1 - true) / (2 - true) + true / (1 + true))) / pairs
        return float((true - found) ** 2 - limit**2 * variance)

    # At 0 and 1 the variance is 0, so that these are roots themselves, and not the ones that are looked for.
    low = 0.0 if found == 0.0 else optimize.brentq(excess, 0.0, min(found, 1 - 1e-9))
    high = 1.0 if found == 1.0 else optimize.brentq(excess, max(found, 1e-9), 1.0)
    return float(low), float(high)


def performance_profile(scores: ArrayLike, thresholds: ArrayLike, *, higher_is_better: bool) -> NDArray[np.float64]:
    """Returns the share of scores beyond each threshold (arXiv 2108.13264, section 4.2).

    Args:
        scores: Of all runs (and tasks), any shape; NaN is left out.
        thresholds: Where to look, [T].
        higher_is_better: Beyond is above, else below.

    Returns:
        Shares in [0, 1], [T].

    >>> performance_profile([0.2, 0.6, 0.9], [0.0, 0.6], higher_is_better=True).round(2).tolist()
    [1.0, 0.33]
    """
    sample = np.asarray(scores, dtype=np.float64).ravel()
    sample = sample[~np.isnan(sample)]
    edges = np.asarray(thresholds, dtype=np.float64)
    is_beyond = sample[None, :] > edges[:, None] if higher_is_better else sample[None, :] < edges[:, None]
    return np.asarray(is_beyond.mean(axis=1)) if sample.size else np.full(edges.shape, math.nan)


def optimality_gap(scores: ArrayLike, target: float, *, higher_is_better: bool) -> float:
    """Returns by how much scores fall short of a target on average; what is beyond it counts as reached (arXiv 2108.13264).

    >>> optimality_gap([0.5, 2.0], 1.0, higher_is_better=True)
    0.25
    """
    sample = np.asarray(scores, dtype=np.float64).ravel()
    sample = sample[~np.isnan(sample)]
    short = target - sample if higher_is_better else sample - target
    return float(np.maximum(short, 0.0).mean()) if sample.size else math.nan


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
