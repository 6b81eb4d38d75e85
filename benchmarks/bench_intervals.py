"""How often do the intervals of a bench's scores cover what they claim? Counted on simulated benches, before and after.

A bench is 12 instances of different levels, each with its own runs; the intervals are of the mean over instances and of the
interquartile mean over runs. *Before*: percentiles of a bootstrap over seeds within instances. *After*: `analysis.stratified`.

Example: python -m benchmarks.bench_intervals
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from analysis.intervals import interquartile_mean
from analysis.stratified import NUM_DRAWS, stratified_iqm_interval, stratified_mean_interval
from benchmarks.common import save

SEEDS = (2, 3, 5, 8)
NUM_INSTANCES = 12
LEVELS = np.linspace(0.0, 10.0, NUM_INSTANCES)[:, None]
"""Of the instances, in standard deviations of a run."""

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Array]

KINDS: dict[str, Draw] = {
    "normal": lambda rng, seeds: LEVELS + rng.standard_normal((NUM_INSTANCES, seeds)),
    "skewed": lambda rng, seeds: LEVELS + rng.exponential(size=(NUM_INSTANCES, seeds)),
    "an instance five times as noisy": lambda rng, seeds: (
        LEVELS + rng.standard_normal((NUM_INSTANCES, seeds)) * np.append(np.ones(NUM_INSTANCES - 1), 5.0)[:, None]
    ),
    "a seed alike in all instances": lambda rng, seeds: (
        LEVELS + np.sqrt(0.9) * rng.standard_normal((NUM_INSTANCES, seeds)) + np.sqrt(0.1) * rng.standard_normal(seeds)
    ),
}
"""Runs [instances, seeds]. In the last kind a tenth of a run's variance is its seed's own, the same in all instances."""


def percentile_intervals(runs: Array) -> tuple[tuple[float, float], tuple[float, float]]:
    """Returns the old rule's intervals of the mean and of the interquartile mean."""
    rng = np.random.default_rng(0)
    drawn = [sample[rng.integers(len(sample), size=(NUM_DRAWS, len(sample)))] for sample in runs]
    means = np.mean([part.mean(axis=1) for part in drawn], axis=0)
    middles = interquartile_mean(np.concatenate(drawn, axis=1), axis=1)
    (low, iqm_low), (high, iqm_high) = np.quantile([means, middles], (0.025, 0.975), axis=1)
    return (low, high), (iqm_low, iqm_high)


def measure(draw: Draw, num_seeds: int, num_benches: int) -> dict[str, dict[str, float]]:
    """Returns coverage in percent and mean width of each interval."""
    rng = np.random.default_rng([num_seeds, 17])
    many = draw(rng, 20_000)
    truths = {"mean": float(many.mean()), "iqm": float(interquartile_mean(many.ravel()))}
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(num_benches):
        runs = draw(rng, num_seeds)
        mean, iqm = percentile_intervals(runs)
        for name, interval in (
            ("mean_before", mean),
            ("iqm_before", iqm),
            ("mean_after", stratified_mean_interval(runs)),
            ("iqm_after", stratified_iqm_interval(runs)),
        ):
            found.setdefault(name, []).append(interval)
    result = {}
    for name, intervals in found.items():
        low, high = np.array(intervals).T
        truth = truths[name.partition("_")[0]]
        covered = float(((low <= truth) & (truth <= high)).mean())
        result[name] = {"covered": round(100 * covered, 1), "width": round(float((high - low).mean()), 3)}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benches", type=int, default=2000, help="simulated benches of each kind")
    arguments = parser.parse_args()
    started = time.perf_counter()
    cells = [(kind, seeds) for kind in KINDS for seeds in SEEDS]
    lines: list[dict[str, Any]] = [
        {"runs": kind, "seeds": seeds, **measure(KINDS[kind], seeds, arguments.benches)}
        for kind, seeds in track(cells, description="kinds")
    ]
    save(
        "bench_intervals",
        {
            "benches": arguments.benches,
            "instances": NUM_INSTANCES,
            "standard_error": round(100 * float(np.sqrt(0.05 * 0.95 / arguments.benches)), 2),
            "wall_sec": round(time.perf_counter() - started, 1),
            "lines": lines,
        },
    )


if __name__ == "__main__":
    main()
