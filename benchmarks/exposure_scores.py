"""Fixes what rules by the teacher's scores weigh, and trains ``meta``, on instances of the splits train and validation.

For each instance and seed the grounded score and the mismatch of five ratios are read before anything is trained, and set beside
the held-out accuracy that each ratio ends at, as ``benchmarks.admission`` measured it at the same seeds. A rule is worth the
accuracy that its choices end at; difficulty groups choose apart and count by their own problems.

Example: python -m benchmarks.exposure_scores --workers 2
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agents.scored import GRID, balance
from atesd_env.bench.instances import InstanceSet
from atesd_env.envs.contract import ExposureScores
from atesd_env.population.population import Population
from benchmarks.common import RESULTS, save

WEIGHTS = (0.0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5)
SPLITS = ("train", "validation")


def scores_of(set_name: str, seeds: Sequence[int], instance_id: str) -> list[dict[str, Any]]:
    """Returns what each seed's student is shown of an instance's ratios before anything is trained."""
    torch.set_num_threads(1)
    population = Population(InstanceSet.load(set_name).config(instance_id), len(seeds))
    read = []
    for index, seed in enumerate(seeds):
        population.reset(index, seed)
        scores = population.exposure_scores(index, np.array(GRID), True, None)
        read.append(
            {"seed": seed, **{name: getattr(scores, name).round(5).tolist() for name in ("grounded", "mismatch")}}
        )
    return read


def outcomes_of(instance_id: str, seed: int, groups: int) -> NDArray[np.float64]:
    """Returns held-out accuracy after the last window at each ratio of the grid, [ratios, groups]."""
    runs = json.loads((RESULTS / "admission" / f"{instance_id}.json").read_text())["runs"]
    by_schedule = {run["schedule"]: run for run in runs if run["seed"] == seed}
    found = [by_schedule[f"fixed:{ratio:g}"] for ratio in GRID]
    if groups == 1:
        return np.array([[run["accuracy"]] for run in found])
    return np.array([list(run["by_addends"].values()) for run in found])


def worth(
    read: Sequence[dict[str, Any]], instance_id: str, value: Callable[[ExposureScores], NDArray[np.float64]]
) -> float:
    """Returns the mean accuracy that an instance's runs end at where each group takes the ratio of the highest value."""
    ends = []
    for one in read:
        scores = ExposureScores(np.array(one["grounded"]), np.array(one["mismatch"]), 0, 0)
        accuracy = outcomes_of(instance_id, one["seed"], scores.grounded.shape[1])
        ends.append(np.take_along_axis(accuracy, value(scores).argmax(axis=0)[None], axis=0).mean())
    return float(np.mean(ends))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", default="atesd-bench", help="a packaged set, or a .json file")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(8)), help="seeds of the split train")
    parser.add_argument("--workers", type=int, default=1, help="processes, of one thread each")
    arguments = parser.parse_args()
    instances = InstanceSet.load(arguments.instances)
    ids = [instance.id for split in SPLITS for instance in instances.of(split)]
    with ProcessPoolExecutor(arguments.workers) as pool:
        read = dict(zip(ids, pool.map(partial(scores_of, arguments.instances, arguments.seeds), ids), strict=True))
    tables = {
        f"{weight:g}": {one: round(worth(read[one], one, partial(balance, weight=weight)), 4) for one in ids}
        for weight in WEIGHTS
    }
    means = {weight: round(float(np.mean(list(table.values()))), 4) for weight, table in tables.items()}
    save("exposure_scores", {"ratios": GRID, "scores": read, "balance_by_weight": tables, "balance_mean": means})


if __name__ == "__main__":
    main()
