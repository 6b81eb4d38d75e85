"""What samples of a benchmark say: Average@k, pass@k, majority vote, and how sure one can be of each. Pure functions.

Two errors are kept apart. *Sampling error*: had the same problems been answered once more, with other random numbers, the
average would differ by about so much. *Problem error*: had other problems of the same kind been asked, it would differ by so
much; with 30 problems this is by far the larger. A comparison of two students on the same problems cancels most of the second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atesd_env.errors import ConfigError

NUM_RESAMPLES = 4000
"""Bootstrap samples of the problems."""
_BOOTSTRAP_SEED = 20_260_511


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Returns the unbiased estimate of pass@k from ``num_samples`` samples (arXiv 2107.03374, eq. 1).

    >>> pass_at_k(4, 1, 2)
    0.5
    """
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def equivalence_classes(answers: Sequence[str | None], same: Callable[[str, str], bool]) -> list[list[int]]:
    """Returns the samples whose answers mean the same, as lists of indices in order of first appearance.

    ``same`` need not be transitive (29 = 29 dollars, 29 = 29 cents), but the classes are: all answers of one match each other, and
    the order of the samples does not matter. The most frequent texts choose first.

    Args:
        answers: One a sample; None (no answer) is in no class.
        same: Whether two answers mean the same. It is asked once for equal texts because it may be costly.

    >>> same = lambda first, second: len({*first.split()} ^ {*second.split()}) < 2
    >>> equivalence_classes(["29 cents", "29", "29 dollars", "29 dollars"], same)
    [[0], [1, 2, 3]]
    """
    indices_of: dict[str, list[int]] = {}
    for index, answer in enumerate(answers):
        if answer is not None:
            indices_of.setdefault(answer, []).append(index)
    classes: list[list[str]] = []
    for text in sorted(indices_of, key=lambda text: (-len(indices_of[text]), text)):
        found = next((texts for texts in classes if all(same(text, other) for other in texts)), None)
        if found is None:
            classes.append([text])
        else:
            found.append(text)
    return sorted(sorted(index for text in texts for index in indices_of[text]) for texts in classes)


def majority_vote(classes: Sequence[Sequence[int]], is_correct: Sequence[bool]) -> float:
    """Returns the probability, 0..1, that the vote over classes of answers is correct; a tie is broken by chance.

    Args:
        classes: As ``equivalence_classes`` gives them.
        is_correct: One a sample. A class is as correct as the share of its members that is (all or none, unless grading is
            not transitive).

    >>> majority_vote([[0, 1], [2]], [True, True, False])
    1.0
    """
    if not classes:
        return 0.0
    largest = max(len(members) for members in classes)
    winners = [members for members in classes if len(members) == largest]
    return float(np.mean([np.mean([is_correct[index] for index in members]) for members in winners]))


@dataclass(frozen=True)
class Estimate:
    """A mean over problems and its two errors, as shares (not percent).

    Attributes:
        mean: The estimate.
        sampling_error: Standard error from drawing k samples of each problem, the problems being fixed; NaN if k is 1.
        low: Lower end of the 95% interval from resampling the problems.
        high: Upper end.
    """

    mean: float
    sampling_error: float
    low: float
    high: float


def estimate(scores: NDArray[np.float64]) -> Estimate:
    """Returns the mean of scores [N problems, k samples] and its errors.

    For correctness (0 or 1) this is Average@k; for paired differences it is their mean.

    Raises:
        ConfigError: If there is no problem or no sample.
    """
    if scores.ndim != 2 or 0 in scores.shape:
        raise ConfigError(
            f"scores: expected [problems, samples] with at least one each, got shape {scores.shape}; "
            "pass one line for each problem."
        )
    num_problems, num_samples = scores.shape
    by_problem = scores.mean(axis=1)
    sampling_error = math.nan
    if num_samples > 1:
        sampling_error = float(np.sqrt((scores.var(axis=1, ddof=1) / num_samples).sum()) / num_problems)
    # A generator of its own: the same scores give the same interval.
    rng = np.random.default_rng(_BOOTSTRAP_SEED)
    means = by_problem[rng.integers(num_problems, size=(NUM_RESAMPLES, num_problems))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(by_problem.mean()), sampling_error, float(low), float(high))


@dataclass(frozen=True)
class Comparison:
    """One method against another on the same problems.

    Attributes:
        by_problem: [N], difference of the shares solved, first minus second.
        difference: Their mean and its errors.
        seed_error: Standard error from the training seeds; NaN unless both methods have at least two, or the second is
            untrained.
        num_better: Problems on which the first solves more.
        num_worse: Problems on which the second solves more.
    """

    by_problem: NDArray[np.float64]
    difference: Estimate
    seed_error: float
    num_better: int
    num_worse: int


def compare(
    first: Sequence[NDArray[np.float64]], second: Sequence[NDArray[np.float64]], *, is_second_untrained: bool = False
) -> Comparison:
    """Returns the paired comparison of two methods.

    Args:
        first: Correctness [N, k] of each training seed.
        second: The same of the other method; row i is the same problem, column j was drawn with the same random numbers.
        is_second_untrained: The other is the base model, which no training seed changes.

    Raises:
        ConfigError: If the shapes differ, or there is none.
    """
    shapes = {scores.shape for scores in (*first, *second)}
    if not first or not second or len(shapes) != 1:
        raise ConfigError(
            f"compare: expected the same problems and samples of both methods, got shapes {shapes}; "
            "evaluate both on the same problems, equally often."
        )
    # Sample by sample, because common random numbers make the two methods' samples depend on each other.
    differences = np.mean(np.stack(first), axis=0) - np.mean(np.stack(second), axis=0)
    by_problem = differences.mean(axis=1)
    seed_error = math.nan
    trained = (first,) if is_second_untrained else (first, second)
    if min(len(seeds) for seeds in trained) > 1:
        variances = [np.var([scores.mean() for scores in seeds], ddof=1) / len(seeds) for seeds in trained]
        seed_error = math.sqrt(sum(variances))
    return Comparison(
        by_problem, estimate(differences), seed_error, int((by_problem > 0).sum()), int((by_problem < 0).sum())
    )
