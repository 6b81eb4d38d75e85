"""Fixes what rules by the teacher's scores weigh, and trains ``meta``, on instances of the splits train and validation.

For each instance and seed the grounded score and the mismatch of five ratios are read before anything is trained, and set beside
the held-out accuracy that each ratio ends at, as ``benchmarks.admission`` measured it at the same seeds. A rule is worth the
accuracy that its choices end at; difficulty groups choose apart and count by their own problems.

``meta`` takes the ratio that a weighted sum of both scores is highest at. Its weights are learned: a softmax of the sum draws a ratio, and
what that draw is worth over the instances of the split train, less a penalty on the squared weights, is maximised; all ratios' outcomes
are known, so that the gradient is exact. The penalty is the one that does best on validation instances.

Example: python -m benchmarks.exposure_scores --workers 2
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax

from agents.scored import GRID, META_FILE, SCORES, balance, weighted
from atesd_env.bench.instances import InstanceSet
from atesd_env.envs.contract import ExposureScores
from atesd_env.population.population import Population
from benchmarks.common import RESULTS, provenance, save

WEIGHTS = (0.0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5)
SPLITS = ("train", "validation")
PENALTIES = (1e-2, 1e-3, 1e-4)


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
    by_schedule = {run["schedule"]: run for run in _admitted_runs(instance_id) if run["seed"] == seed}
    found = [by_schedule[f"fixed:{ratio:g}"] for ratio in GRID]
    if groups == 1:
        return np.array([[run["accuracy"]] for run in found])
    return np.array([list(run["by_addends"].values()) for run in found])


@cache
def _admitted_runs(instance_id: str) -> list[dict[str, Any]]:
    """Returns the runs of an instance that ``benchmarks.admission`` made."""
    told: dict[str, Any] = json.loads((RESULTS / "admission" / f"{instance_id}.json").read_text())
    return list(told["runs"])


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


def learned(examples: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], penalty: float) -> NDArray[np.float64]:
    """Returns the weights [2] of grounded score and mismatch that a softmax policy does best with.

    Args:
        examples: For each instance the scores [runs, ratios, 2] and the outcomes [runs, ratios] of all its groups.
        penalty: On the squared weights of scores that are scaled to a standard deviation of 1.
    """
    scale = np.concatenate([scores.reshape(-1, 2) for scores, _ in examples]).std(axis=0)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        total, slope = penalty * float(weights @ weights), 2 * penalty * weights
        for scores, outcomes in examples:
            scaled = scores / scale
            odds = softmax(scaled @ weights, axis=1)
            value = (odds * outcomes).sum(axis=1, keepdims=True)
            total -= float(value.mean()) / len(examples)
            slope = slope - np.einsum("nr,nrf->f", odds * (outcomes - value), scaled) / len(scores) / len(examples)
        return total, slope

    found: NDArray[np.float64] = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B").x
    return found / scale


def examples_of(read: Sequence[dict[str, Any]], instance_id: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns an instance's scores [runs, ratios, 2] and outcomes [runs, ratios], each group as a run of its own."""
    scores = [np.stack([one["grounded"], one["mismatch"]], axis=-1) for one in read]
    outcomes = [outcomes_of(instance_id, one["seed"], scores[0].shape[1]) for one in read]
    return np.concatenate(scores, axis=1).swapaxes(0, 1), np.concatenate(outcomes, axis=1).T


def trained(read: dict[str, list[dict[str, Any]]], by_split: dict[str, list[str]]) -> dict[str, Any]:
    """Returns the weights that are learned on train instances with the penalty that is best on validation, and what each is worth."""
    tried = []
    for penalty in PENALTIES:
        weights = learned([examples_of(read[one], one) for one in by_split["train"]], penalty)
        value = partial(weighted, weights=weights)
        worths = {
            split: float(np.mean([worth(read[one], one, value) for one in ids])) for split, ids in by_split.items()
        }
        tried.append({"penalty": penalty, "weights": weights.tolist(), **worths})
    return {"tried": tried, "chosen": max(tried, key=lambda one: one["validation"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", default="atesd-bench", help="a packaged set, or a .json file")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(8)), help="seeds of the split train")
    parser.add_argument("--workers", type=int, default=1, help="processes, of one thread each")
    arguments = parser.parse_args()
    instances = InstanceSet.load(arguments.instances)
    by_split = {split: [instance.id for instance in instances.of(split)] for split in SPLITS}
    ids = [one for split in SPLITS for one in by_split[split]]
    with ProcessPoolExecutor(arguments.workers) as pool:
        read = dict(zip(ids, pool.map(partial(scores_of, arguments.instances, arguments.seeds), ids), strict=True))
    tables = {
        f"{weight:g}": {one: round(worth(read[one], one, partial(balance, weight=weight)), 4) for one in ids}
        for weight in WEIGHTS
    }
    means = {weight: round(float(np.mean(list(table.values()))), 4) for weight, table in tables.items()}
    meta = trained(read, by_split)
    save(
        "exposure_scores",
        {"ratios": GRID, "scores": read, "balance_by_weight": tables, "balance_mean": means, "meta": meta},
    )
    made = {name: provenance()[name] for name in ("command", "commit")}
    told = {**made, "weights": dict(zip(SCORES, meta["chosen"]["weights"], strict=True))}
    META_FILE.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
