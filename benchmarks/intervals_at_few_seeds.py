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


def covered(low: Array, high: Array, truth: float, counts: Array | None = None) -> float:
    """Returns the share of intervals that hold the truth, in percent; each counts once, or so many times."""
    return round(100 * float(np.average((low <= truth) & (truth <= high), weights=counts)), 1)


def interquartile(samples: Array, truth: float) -> dict[str, float]:
    """Returns what intervals of interquartile means cover.

    Args:
        samples: Outcomes, [num_seeds, num_samples].
        truth: Of the population.
    """
    num_seeds = len(samples)
    kept = num_seeds - 2 * (num_seeds // 4)
    share = stats.t.ppf(0.5 + CONFIDENCE / 2, kept - 1) / interquartile_limit(num_seeds, CONFIDENCE)
    low, high = interquartile_interval(samples)
    middle, half = (high + low) / 2, (high - low) / 2 * share
    return {"before": covered(middle - half, middle + half, truth), "after": covered(low, high, truth)}


def improvement(ours: Array, theirs: Array, truth: float) -> dict[str, float]:
    """Returns the same of the probability that a run of ours beats one of theirs, both [num_seeds, num_samples]."""
    num_seeds, normal = len(ours), float(stats.norm.ppf(0.5 + CONFIDENCE / 2))
    shares = np.mean([(one > theirs) + 0.5 * (one == theirs) for one in ours], axis=(0, 1))
    # An interval depends on the share of pairs alone, of which there are few.
    found, places, counts = np.unique(shares, return_index=True, return_counts=True)
    before = np.array([newcombe_interval(float(one), num_seeds, num_seeds, normal) for one in found])
    after = np.array([improvement_interval(ours[:, k], theirs[:, k], higher_is_better=True) for k in places])
    return {name: covered(*one.T, truth, counts) for name, one in (("before", before), ("after", after))}


def measure(kind: str, num_seeds: int, num_samples: int) -> dict[str, Any]:
    """Returns what each interval covers of one kind of outcomes, in percent."""
    draw, (mean, iqm) = KINDS[kind], TRUTHS[kind]
    rng = np.random.default_rng([num_seeds, 18])
    many, others = draw(rng, (2, _MANY))
    better = float(np.mean((many + 1 > others) + 0.5 * (many + 1 == others)))
    ours, theirs = draw(rng, (2, num_seeds, num_samples))
    _, low, high = mean_interval(ours)
    return {
        "mean": {"after": covered(low, high, mean)},
        "iqm": interquartile(ours, iqm),
        "iqm_of_differences": interquartile(ours - theirs, 0.0),
        "improvement": improvement(ours, theirs, 0.5),
        "improvement_of_better": improvement(ours + 1, theirs, better),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000, help="simulated samples of each kind")
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
