"""Differences between agents over shared seeds, with intervals that hold for a whole table at once.

Outcomes are arrays of N seeds and K agents, [N, K], complete: every agent has every seed. The statistic is the paired t of two
agents, difference / standard error of the mean of their differences. How large the largest of a table's statistics gets when
the agents are equal (max-t) is simulated once for each N and K, with normal outcomes, from a seed that is fixed; what was
selected (the best agent, the best fixed ratio) is selected inside of the simulation too. So a table of equal agents says that
some differ in 5% of cases, whatever its size, and in about 4% where outcomes are skewed; docs/results/comparisons.md shows it.

With very few seeds some of many pairs agree by chance (0.50 and 0.50, 0.75 and 0.75), and a standard error near 0 makes
anything significant: no pair's standard error counts as less than half of the table's lower quartile, in the simulation as
in the data. With two agents there is no other pair, and all of this is the plain paired t-test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.intervals import CONFIDENCE

NUM_DRAWS = 20_000
"""Simulated tables of equal agents: the odds of a false alarm are met to 0.15 points (one standard error)."""

ROUNDING = 1e-6
"""Differences of this share of the larger mean, the same on every seed, are those of float32 actions and not of agents."""
LEAST_SHARE = 0.5
"""Least standard error of a pair / the lower quartile of the table's pairs."""

_LARGEST_CHUNK = 2**20  # numbers of an array while simulating: 8 MB

Array = NDArray[np.float64]
"""Numbers, float64; shapes stand where one is passed."""


@dataclass(frozen=True)
class Contrast:
    """What each agent differs by from another one, all [K]; NaN where there is nothing to compare.

    Attributes:
        difference: Mean over seeds, agent minus the other.
        low: Lower bounds; all intervals of the table hold together with the confidence asked for.
        high: Upper bounds.
        p_value: Adjusted for the table: below 1 - confidence exactly where the interval leaves out 0. NaN throughout for the
            best fixed ratio, whose two bounds have odds of their own.
    """

    difference: Array
    low: Array
    high: Array
    p_value: Array


def to_reference(outcomes: Array, reference: int, *, confidence: float = CONFIDENCE) -> Contrast:
    """Compares every agent with one that was named beforehand.

    Args:
        outcomes: Outcomes without NaN, [N, K].
        reference: Column of the reference.
        confidence: Confidence level of all intervals together, in (0, 1).
    """
    num_seeds, num_agents = outcomes.shape
    differences, errors = (matrix[:, reference] for matrix in paired(outcomes))
    if num_seeds < 2 or num_agents < 2:
        return _without_intervals(differences, reference)
    return _two_sided(differences, errors, reference, "to_reference", num_seeds, confidence)


def to_best(outcomes: Array, *, higher_is_better: bool, confidence: float = CONFIDENCE) -> tuple[Contrast, int]:
    """Compares every agent with the one whose mean is best in these very outcomes (Hsu's unconstrained comparison with the best).

    That the best was found on the seeds that it is judged by is part of the simulation. An agent whose interval reaches 0 may
    be as good as the best; the best is beyond doubt where no other may be.

    Args:
        outcomes: Outcomes without NaN, [N, K].
        higher_is_better: Of the outcomes.
        confidence: Confidence level of all intervals together, in (0, 1).

    Returns:
        The comparison, and the best agent's column.
    """
    num_seeds, num_agents = outcomes.shape
    best = int(np.argmax(outcomes.mean(axis=0) * (1 if higher_is_better else -1)))
    differences, errors = (matrix[:, best] for matrix in paired(outcomes))
    if num_seeds < 2 or num_agents < 2:
        return _without_intervals(differences, best), best
    return _two_sided(differences, errors, best, "to_best", num_seeds, confidence), best


def to_best_fixed(
    outcomes: Array, fixed: Sequence[int], *, higher_is_better: bool, confidence: float = CONFIDENCE
) -> Contrast:
    """Compares every agent with the best of the fixed ratios (for a fixed ratio: with the best of the others).

    The difference is to the one with the best mean. An agent counts as better only if it is better than *each* fixed ratio, so
    that nothing is gained by the choice; it counts as worse if it is worse than any, with odds that allow for their number.

    Args:
        outcomes: Outcomes without NaN, [N, K].
        fixed: Columns of the fixed ratios; without any (for a lone fixed ratio: without another), NaN.
        higher_is_better: Of the outcomes.
        confidence: Confidence level of all intervals together, in (0, 1).
    """
    num_seeds, num_agents = outcomes.shape
    sign = 1.0 if higher_is_better else -1.0
    differences, errors = paired(sign * outcomes)
    differences, errors = differences[:, fixed], errors[:, fixed]
    is_itself = np.arange(num_agents)[:, None] == np.asarray(fixed, dtype=int)[None, :]
    nothing = np.full(num_agents, math.nan)
    has_other = (~is_itself).any(axis=1)
    if not has_other.any():
        return Contrast(nothing, nothing, nothing, nothing)
    nearest = np.where(is_itself, math.inf, differences).min(axis=1)  # to the best of the others
    if num_seeds < 2:
        return Contrast(np.where(has_other, sign * nearest, math.nan), nothing, nothing, nothing)
    if num_agents == 2:  # no simulation where there is a formula
        above = below = float(stats.t.ppf(0.5 + confidence / 2, num_seeds - 1))
    else:
        above, below = _limits_to_best_fixed(num_seeds, num_agents, len(fixed), confidence)
    low = np.where(is_itself, math.inf, differences - above * errors).min(axis=1)
    high = np.where(is_itself, math.inf, differences + below * errors).min(axis=1)
    low, high = (low, high) if higher_is_better else (-high, -low)
    nearest, low, high = (np.where(has_other, values, math.nan) for values in (sign * nearest, low, high))
    return Contrast(nearest, low, high, nothing)


def paired(outcomes: Array) -> tuple[Array, Array]:
    """Returns the mean differences of all pairs, row minus column, and their standard errors; [..., K, K].

    Args:
        outcomes: Outcomes, [..., N, K]; with fewer than two seeds, errors are NaN.
    """
    num_seeds, num_agents = outcomes.shape[-2:]
    mean = outcomes.mean(axis=-2)
    differences = mean[..., :, None] - mean[..., None, :]
    if num_seeds < 2:
        return differences, np.full(differences.shape, math.nan)
    deviations = outcomes - mean[..., None, :]
    covariance = np.swapaxes(deviations, -1, -2) @ deviations / (num_seeds - 1)
    variance = np.diagonal(covariance, axis1=-2, axis2=-1)
    squares = np.maximum(variance[..., :, None] + variance[..., None, :] - 2 * covariance, 0.0)
    # What is left of two equal columns is rounding, which must not count as a deviation.
    squares[squares <= 1e-14 * (variance[..., :, None] + variance[..., None, :])] = 0.0
    is_rounding = (np.abs(differences) <= rounding(mean)) & (squares <= rounding(mean) ** 2)
    differences, squares = np.where(is_rounding, 0.0, differences), np.where(is_rounding, 0.0, squares)
    if num_agents > 2:
        first, second = np.triu_indices(num_agents, 1)
        quartile = np.quantile(squares[..., first, second], 0.25, axis=-1)
        squares = np.maximum(squares, LEAST_SHARE**2 * quartile[..., None, None])
    return differences, np.sqrt(squares / num_seeds)


def rounding(mean: Array) -> Array:
    """Returns below what a difference of two agents is rounding, [..., K, K]: reveal ratios have seven digits (float32)."""
    return ROUNDING * np.maximum(np.abs(mean)[..., :, None], np.abs(mean)[..., None, :])


def _two_sided(differences: Array, errors: Array, other: int, kind: str, num_seeds: int, confidence: float) -> Contrast:
    num_agents = len(differences)
    statistic = _statistics(np.abs(differences), errors)
    if num_agents == 2:  # no simulation where there is a formula
        limit = float(stats.t.ppf(0.5 + confidence / 2, num_seeds - 1))
        p_value = 2 * stats.t.sf(statistic, num_seeds - 1)
    else:
        null: Array = getattr(_null(num_seeds, num_agents), kind)
        limit = _limit(kind, num_seeds, num_agents, confidence)
        p_value = (1 + len(null) - np.searchsorted(null, statistic)) / (1 + len(null))
    contrast = Contrast(differences.copy(), differences - limit * errors, differences + limit * errors, p_value)
    for values in (contrast.low, contrast.high, contrast.p_value):
        values[other] = math.nan
    return contrast


def _without_intervals(differences: Array, other: int) -> Contrast:
    nothing = np.full(len(differences), math.nan)
    return Contrast(differences.copy(), nothing, nothing, nothing)


def _statistics(differences: Array, errors: Array) -> Array:
    """Returns difference / standard error; 0 where both are 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(differences == 0, 0.0, differences / errors)


@dataclass(frozen=True)
class _Null:
    """Statistics of tables of equal agents, each [NUM_DRAWS].

    Attributes:
        to_reference: Largest absolute statistic against the first agent, sorted.
        to_best: Largest statistic of the best agent against the others, sorted.
        above_one: Largest statistic of an agent above one fixed ratio, which all others may lie far below.
        above_all: Largest over the agents of their least statistic above the fixed ratios.
        below_any: Largest statistic of a fixed ratio above an agent.
    """

    to_reference: Array
    to_best: Array
    above_one: Array
    above_all: Array
    below_any: Array


@lru_cache(maxsize=1024)
def _limit(kind: str, num_seeds: int, num_agents: int, confidence: float) -> float:
    """Returns the limit of the statistics of ``to_reference`` or ``to_best``."""
    return float(np.quantile(getattr(_null(num_seeds, num_agents), kind), confidence))


@lru_cache(maxsize=1024)
def _limits_to_best_fixed(num_seeds: int, num_agents: int, num_fixed: int, confidence: float) -> tuple[float, float]:
    """Returns the limits of statistics above all fixed ratios, and below any of them.

    The first holds whichever the fixed ratios are, so that it is met where one is better than the others; the second takes
    what is left of the odds where all are equal.
    """
    null = _null(num_seeds, num_agents, num_fixed)
    above = float(np.quantile(null.above_one, 0.5 + confidence / 2))
    either = np.where(null.above_all > above, math.inf, null.below_any)
    return above, float(np.quantile(either, confidence, method="higher"))


@lru_cache(maxsize=128)
def _null(num_seeds: int, num_agents: int, num_fixed: int = 0) -> _Null:
    """Simulates tables of equal agents whose outcomes are normal; the first ``num_fixed`` are the fixed ratios."""
    rng = np.random.default_rng([num_seeds, num_agents])
    chunk = max(1, _LARGEST_CHUNK // (num_agents * max(num_seeds, num_agents)))
    parts: list[list[Array]] = []
    fixed = np.arange(num_fixed)
    for start in range(0, NUM_DRAWS, chunk):
        tables = rng.standard_normal((min(chunk, NUM_DRAWS - start), num_seeds, num_agents))
        statistics = _statistics(*paired(tables))
        best = tables.mean(axis=1).argmax(axis=1)
        part = [
            np.abs(statistics[:, 1:, 0]).max(axis=1),
            np.take_along_axis(statistics, best[:, None, None], axis=1)[:, 0].max(axis=1),
        ]
        if num_fixed:
            to_fixed = statistics[:, :, :num_fixed]
            part.append(to_fixed[:, 1:, 0].max(axis=1))
            for empty, sign in ((math.inf, 1.0), (-math.inf, -1.0)):
                others = sign * to_fixed
                others[:, fixed, fixed] = empty
                least = others.min(axis=2) if sign > 0 else others.max(axis=2)
                part.append(np.where(np.isinf(least), -math.inf, least).max(axis=1))
        parts.append(part)
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    columns += [np.zeros(0)] * (5 - len(columns))
    return _Null(np.sort(columns[0]), np.sort(columns[1]), *columns[2:])
