"""How often do the intervals of one agent, and of two, cover what they claim? Counted on simulated seeds, before and after.

- ``mean``: an agent's own mean (Student's t).
- ``iqm``, ``iqm_of_differences``: its interquartile mean, and that of its paired differences to an equal agent. *Before*: Yuen's, with
  Student's t. *After*: with the limit of normal samples.
- ``improvement``, ``improvement_of_better``: the probability of improvement, over an equal agent and over one that is a standard deviation
  worse. *Before*: Newcombe's, with the normal limit. *After*: with Student's t.

Outcomes are those of ``benchmarks.comparisons_on_nulls``.

Example: python -m benchmarks.intervals_at_few_seeds
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from rich.progress import track
from scipy import stats

from analysis.intervals import (
    CONFIDENCE,
    improvement_interval,
    interquartile_interval,
    interquartile_limit,
    mean_interval,
    newcombe_interval,
    probability_of_improvement,
)
from benchmarks.common import save
from benchmarks.comparisons_on_nulls import KINDS, SEEDS, Array

GAMMA = stats.gamma(4, scale=0.5)
TRUTHS = {
    "normal": (0.0, 0.0),
    "skewed": (GAMMA.mean(), 2 * GAMMA.expect(lambda one: one, lb=GAMMA.ppf(0.25), ub=GAMMA.ppf(0.75))),
    "ties": (0.0, 0.0),
}
"""Outcomes -> mean and interquartile mean, exact: intervals in ties may have no width."""
_MANY = 1_000_000


def covered(intervals: list[tuple[float, float]], truth: float) -> float:
    """Returns the share of intervals that hold the truth, in percent."""
    low, high = np.array(intervals).T
    return round(100 * float(((low <= truth) & (truth <= high)).mean()), 1)


def interquartile(samples: Array, truth: float) -> dict[str, float]:
    """Returns what intervals of interquartile means cover.

    Args:
        samples: Outcomes, [num_samples, num_seeds].
        truth: Of the population.
    """
    num_seeds = samples.shape[1]
    kept = num_seeds - 2 * (num_seeds // 4)
    share = stats.t.ppf(0.5 + CONFIDENCE / 2, kept - 1) / interquartile_limit(num_seeds, CONFIDENCE)
    after = [interquartile_interval(sample) for sample in samples]
    middles = [((high + low) / 2, (high - low) / 2 * share) for low, high in after]
    before = [(middle - half, middle + half) for middle, half in middles]
    return {"before": covered(before, truth), "after": covered(after, truth)}


def improvement(ours: Array, theirs: Array, truth: float) -> dict[str, float]:
    """Returns the same of the probability that a run of ours, [num_samples, num_seeds], beats one of theirs."""
    num_seeds, normal = ours.shape[1], float(stats.norm.ppf(0.5 + CONFIDENCE / 2))
    pairs = list(zip(ours, theirs, strict=True))
    found = [probability_of_improvement(*pair, higher_is_better=True) for pair in pairs]
    before = [newcombe_interval(one, num_seeds, num_seeds, normal) for one in found]
    after = [improvement_interval(*pair, higher_is_better=True) for pair in pairs]
    return {"before": covered(before, truth), "after": covered(after, truth)}


def measure(kind: str, num_seeds: int, num_samples: int) -> dict[str, Any]:
    """Returns what each interval covers of one kind of outcomes, in percent."""
    draw, (mean, iqm) = KINDS[kind], TRUTHS[kind]
    rng = np.random.default_rng([num_seeds, 18])
    many, others = draw(rng, (2, _MANY))
    better = float(np.mean((many + 1 > others) + 0.5 * (many + 1 == others)))
    ours, theirs = draw(rng, (2, num_samples, num_seeds))
    _, low, high = mean_interval(ours.T)
    return {
        "mean": {"after": covered(list(zip(low, high, strict=True)), mean)},
        "iqm": interquartile(ours, iqm),
        "iqm_of_differences": interquartile(ours - theirs, 0.0),
        "improvement": improvement(ours, theirs, 0.5),
        "improvement_of_better": improvement(ours + 1, theirs, better),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000, help="simulated samples of each kind")
    arguments = parser.parse_args()
    started = time.process_time()
    cells = [(kind, seeds) for kind in KINDS for seeds in SEEDS]
    lines = [
        {"outcomes": kind, "seeds": seeds, **measure(kind, seeds, arguments.samples)}
        for kind, seeds in track(cells, description="kinds")
    ]
    save(
        "intervals_at_few_seeds",
        {
            "samples": arguments.samples,
            "standard_error": round(100 * float(np.sqrt(0.05 * 0.95 / arguments.samples)), 2),
            "cpu_sec": round(time.process_time() - started, 1),
            "lines": lines,
        },
    )


if __name__ == "__main__":
    main()
