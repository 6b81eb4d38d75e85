"""The mathematics of bandits with A arms: pure functions of what has been credited so far, float64.

A history is n credited pulls, oldest first: their arms [n], and their scores [n], which are their returns without unit
and scale (``standard_scores``). Forgetting is a weight for each entry of the history (``recency_weights``), so that
stationary, discounted and sliding-window forms are one formula:

- UCB1 (Auer, Cesa-Bianchi and Fischer 2002); with weights, D-UCB and SW-UCB (Garivier and Moulines 2011, arXiv
  0805.3415).
- Thompson sampling with a Gaussian posterior; with weights, discounted Thompson sampling (Qi, Wang and Zhu 2023, arXiv
  2305.10718).
- LinUCB with one ridge regression for each arm (Li et al. 2010, arXiv 1003.0146, algorithm 1); with weights, D-LinUCB
  (Russac, Vernade and Cappe 2019, arXiv 1909.09146).
- Exp3.S (Auer, Cesa-Bianchi, Freund and Schapire 2002, section 8), which forgets by sharing weight among the arms.

A pull is credited only some windows later. In the UCB rules pulls that wait count where an arm's uncertainty is
computed, and not in its mean (as in GP-BUCB, arXiv 1206.6402); otherwise one arm would be pulled again and again until
its first credit came.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_SCORE = 3.0
"""Scores are cut off at this many robust standard deviations, so that one outlier decides nothing."""

_MAD_TO_DEVIATION = 1.482602218505602  # of a normal distribution: 1 / (75% quantile)
_MEAN_TO_DEVIATION = 1.2533141373155001  # of a normal distribution: sqrt(pi / 2)


def recency_weights(num_entries: int, *, discount: float = 1.0, window: int | None = None) -> NDArray[np.float64]:
    """Returns the weight of each entry of a history, oldest first: ``discount^age`` inside the window, 0 before it.

    The newest entry has age 0.

    Args:
        num_entries: n.
        discount: In (0, 1]; 1 forgets nothing.
        window: Newest entries that count; None is all of them.

    Returns:
        [n].

    >>> recency_weights(4, discount=0.5, window=3)
    array([0.  , 0.25, 0.5 , 1.  ])
    """
    ages = np.arange(num_entries - 1, -1, -1)
    weights = np.asarray(np.power(discount, ages), dtype=np.float64)
    return weights if window is None else np.where(ages < window, weights, 0.0)


def location_and_scale(returns: NDArray[np.float64]) -> tuple[float, float]:
    """Returns median and robust standard deviation (1.48 times the median absolute deviation) of returns [n].

    Where more than half of the returns are equal, the mean absolute deviation stands in; the scale is 0 only if all are.

    >>> location_and_scale(np.array([1.0, 2.0, 3.0, 900.0]))
    (2.5, 1.482602218505602)
    """
    median = float(np.median(returns))
    deviations = np.abs(returns - median)
    scale = _MAD_TO_DEVIATION * float(np.median(deviations))
    return median, scale if scale > 0.0 else _MEAN_TO_DEVIATION * float(deviations.mean())


def standard_scores(returns: NDArray[np.float64], *, scale_window: int) -> NDArray[np.float64]:
    """Returns the returns without unit: ``(R - median) / deviation``, both of the newest ones, within +-``MAX_SCORE``.

    Scores do not change when all returns are multiplied by a positive number or shifted, and the whole history is
    scored anew at each decision: an entry is judged by what is known now, not by what was known when it was credited.
    The median is of the newest, since learning progress shrinks over a run.

    Args:
        returns: R of each credited decision, [n].
        scale_window: Newest entries that median and deviation (``location_and_scale``) are of.

    Returns:
        [n]; zeros where all the newest are equal and so is the entry.
    """
    if not len(returns):
        return np.zeros(0)
    median, scale = location_and_scale(returns[-scale_window:])
    differences = returns - median
    if scale == 0.0:
        return MAX_SCORE * np.sign(differences)
    return np.clip(differences / scale, -MAX_SCORE, MAX_SCORE)


def arm_sums(
    arms: NDArray[np.int64], scores: NDArray[np.float64], weights: NDArray[np.float64], *, num_arms: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the weighted pulls and the weighted sum of scores of each arm, [A] each, from a history [n].

    >>> arm_sums(np.array([0, 1, 1]), np.array([1.0, 2.0, 4.0]), np.array([0.5, 0.5, 1.0]), num_arms=2)
    (array([0.5, 1.5]), array([0.5, 5. ]))
    """
    # One row for each arm: bincount would make whole numbers of an empty history.
    pulled = np.where(arms == np.arange(num_arms)[:, None], weights, 0.0)
    return pulled.sum(axis=1), pulled @ scores


def ucb_indices(
    counts: NDArray[np.float64],
    sums: NDArray[np.float64],
    *,
    pending: NDArray[np.float64] | None = None,
    exploration: float = 1.0,
) -> NDArray[np.float64]:
    """Returns ``mean + exploration * sqrt(2 log(N) / N_arm)`` of each arm, N the sum of all N_arm.

    ``exploration`` 1 is UCB1's for noise of variance 1 (for rewards in [0, 1], Hoeffding's bound asks for 1/2).

    Args:
        counts: Weighted pulls that were credited, [A].
        sums: Weighted sum of scores, [A].
        pending: Pulls that wait for their credit, [A]; they count in N, not in the mean.
        exploration: Weight of the bonus, at least 0.

    Returns:
        [A]; infinite for an arm that was not pulled, and mean 0 for one of which nothing is credited.
    """
    pulls = counts if pending is None else counts + pending
    means = sums / np.where(counts > 0.0, counts, 1.0)
    log_total = np.log(max(float(pulls.sum()), 1.0))
    bonuses = exploration * np.sqrt(2.0 * log_total / np.where(pulls > 0.0, pulls, 1.0))
    return np.where(pulls > 0.0, means + bonuses, np.inf)


def gaussian_posterior(
    counts: NDArray[np.float64], sums: NDArray[np.float64], *, noise: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns mean and standard deviation of each arm's mean score, [A] each, after a prior N(0, 1).

    With v = noise^2: mean ``sum / (count + v)``, variance ``v / (count + v)``.

    Args:
        counts: Weighted pulls, [A].
        sums: Weighted sum of scores, [A].
        noise: Standard deviation of a score around its arm's mean, above 0.

    >>> gaussian_posterior(np.array([0.0, 3.0]), np.array([0.0, 6.0]))
    (array([0. , 1.5]), array([1. , 0.5]))
    """
    precision = counts + noise**2
    return sums / precision, noise / np.sqrt(precision)


def linucb_parts(
    context: NDArray[np.float64],
    contexts: NDArray[np.float64],
    scores: NDArray[np.float64],
    weights: NDArray[np.float64],
    *,
    pending: NDArray[np.float64] | None = None,
    ridge: float = 1.0,
) -> tuple[float, float]:
    """Returns (predicted score, width) of one arm in a context: ``x theta`` and ``sqrt(x V^-1 U V^-1 x)``.

    V = ridge I + sum of w x x', U the same with w^2 for w, theta = V^-1 (sum of w x score). Without forgetting U = V, and
    the width is LinUCB's ``sqrt(x V^-1 x)``.

    Args:
        context: x, [d].
        contexts: Contexts of the arm's credited decisions, [n, d].
        scores: Their scores, [n].
        weights: Their weights, [n].
        pending: Contexts of the arm's decisions that wait, [m, d]; they count in V and U, not in theta.
        ridge: The regression's penalty, above 0.
    """
    weighted = contexts * weights[:, None]
    identity = ridge * np.eye(len(context))
    design = identity + weighted.T @ contexts
    theta = np.linalg.solve(design, weighted.T @ scores)
    squared = identity + weighted.T @ weighted
    if pending is not None:
        design, squared = design + pending.T @ pending, squared + pending.T @ pending
    direction = np.linalg.solve(design, context)
    return float(context @ theta), float(np.sqrt(direction @ squared @ direction))


def exp3s_probabilities(weights: NDArray[np.float64], *, exploration: float) -> NDArray[np.float64]:
    """Returns the probability of each arm: ``(1 - exploration) * w / sum(w) + exploration / A``, [A].

    >>> exp3s_probabilities(np.array([3.0, 1.0]), exploration=0.2)
    array([0.7, 0.3])
    """
    return np.asarray((1.0 - exploration) * weights / weights.sum() + exploration / len(weights), dtype=np.float64)


def exp3s_gain(score: float) -> float:
    """Returns a score as a gain in [0, 1], which Exp3.S asks for: one robust deviation below the median is 0, above it 1.

    >>> exp3s_gain(0.5)
    0.75
    """
    return 0.5 + 0.5 * float(np.clip(score, -1.0, 1.0))


def exp3s_weights(
    weights: NDArray[np.float64], arm: int, gain: float, probability: float, *, exploration: float, share: float
) -> NDArray[np.float64]:
    """Returns Exp3.S's weights after a gain, scaled to sum 1 (the rule ignores their scale).

    ``w_j <- w_j exp(exploration * ghat_j / A) + e * share / A * sum(w)``, with ``ghat = gain / probability`` for the arm
    that was pulled and 0 for the others. ``share`` 0 is Exp3.

    Args:
        weights: [A].
        arm: The arm that was pulled.
        gain: In [0, 1].
        probability: That it was pulled with, when it was.
        exploration: In (0, 1].
        share: Share of the weight that is spread over all arms, at least 0; 1/T suits a horizon of T pulls.
    """
    num_arms = len(weights)
    grown = weights.copy()
    grown[arm] *= np.exp(exploration * gain / probability / num_arms)
    grown += np.e * share / num_arms * weights.sum()
    return np.asarray(grown / grown.sum(), dtype=np.float64)
