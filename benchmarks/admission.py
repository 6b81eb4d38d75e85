"""Which instances of a set are informative: the written rule of admission, measured on seeds of the split train.

An instance is *informative* where its best fixed reveal ratio ends more than ``LEAST`` of accuracy above its worst, and the interval of
that difference leaves out 0; the intervals of all ratios hold together and know that the best was looked for. A split asks for control
where the one fixed ratio that is best over all its instances ends at least ``LEAST`` below the best one of each. Beside that stands what
four cheap signals of the first window would choose, and how far below the best ratio that choice ends.

Runs are kept one file an instance; those that are there are not made again.

Example: python -m benchmarks.admission --runs admission-runs --workers 2
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.contrasts import to_best
from atesd_env.bench.instances import InstanceSet
from benchmarks.common import RESULTS, kept, mean_with_interval, num_seeds, save
from benchmarks.ratios_side_by_side import RATIOS, trained_side_by_side

LEAST = 0.10
SCHEDULES = (*(f"fixed:{ratio:g}" for ratio in RATIOS), "random")
SIGNALS = {
    "highest grounded score": ("probe/grounded", 1.0),
    "lowest mismatch": ("student/mismatch", -1.0),
    "lowest probe NLL": ("probe/nll", -1.0),
    "longest rollouts": ("rollout/length", 1.0),
}
"""Rules that read one window of each ratio: the column, and which way is up."""


def play(set_name: str, folder: Path, seeds: Sequence[int], num_heldout: int, instance_id: str) -> dict[str, Any]:
    """Returns the runs of an instance at each fixed ratio and at random ones, from its file in ``folder`` where there is one."""
    instances = InstanceSet.load(set_name)
    fields = {**instances.fields, **instances[instance_id].fields}

    def played() -> dict[str, Any]:
        torch.set_num_threads(1)
        started = time.process_time()
        config = instances.config(instance_id).replace(probe_accuracy_every=0)  # measured once, on more problems
        runs = trained_side_by_side(config, SCHEDULES, seeds, num_heldout)
        return {"cpu_sec_a_run": round((time.process_time() - started) / len(runs), 2), "runs": runs}

    asked = {"fields": fields, "seeds": list(seeds), "num_heldout": num_heldout}
    return kept(folder / f"{instance_id}.json", asked, played)


def outcomes(runs: Sequence[dict[str, Any]], schedule: str) -> NDArray[np.float64]:
    """Returns held-out accuracy after the last window, by seed, [seeds]."""
    return np.array([run["accuracy"] for run in runs if run["schedule"] == schedule])


def first_window(runs: Sequence[dict[str, Any]], schedule: str, column: str) -> float:
    """Returns a column's mean over seeds after the first window; a run that has no such number counts as NaN."""
    values = [run[column][0] for run in runs if run["schedule"] == schedule]
    return float(np.mean([np.nan if value is None else value for value in values]))


def admitted(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns an instance's accuracy by ratio, best minus worst with its interval, whether it is informative, and what signals cost."""
    fixed = SCHEDULES[: len(RATIOS)]
    table = np.stack([outcomes(runs, schedule) for schedule in fixed], axis=1)
    contrast, best = to_best(table, higher_is_better=True)
    means = table.mean(axis=0)
    worst = int(means.argmin())
    spread = {"mean": -contrast.difference[worst], "low": -contrast.high[worst], "high": -contrast.low[worst]}
    chosen = {}
    for name, (column, sign) in SIGNALS.items():
        read = sign * np.array([first_window(runs, schedule, column) for schedule in fixed])
        choice = int(np.nanargmax(read))
        chosen[name] = {"ratio": RATIOS[choice], "loss": mean_with_interval(table[:, best] - table[:, choice])}
    return {
        "accuracy": dict(zip((f"{ratio:g}" for ratio in RATIOS), map(mean_with_interval, table.T), strict=True)),
        "random": mean_with_interval(outcomes(runs, "random")),
        "best_fixed": RATIOS[best],
        "worst_fixed": RATIOS[worst],
        "best_minus_worst": {name: float(value) for name, value in spread.items()},
        "is_informative": bool(spread["mean"] > LEAST and spread["low"] > 0),
        "signals": chosen,
    }


def single_ratio(instances: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns which one ratio is best over instances, and how far below the best one of each it ends."""
    means = np.array([[one["accuracy"][f"{ratio:g}"]["mean"] for ratio in RATIOS] for one in instances])
    single = int(means.mean(axis=0).argmax())
    return {
        "ratio": RATIOS[single],
        "accuracy": float(means[:, single].mean()),
        "best_of_each": float(means.max(axis=1).mean()),
        "gap": float((means.max(axis=1) - means[:, single]).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", default="atesd-bench", help="a packaged set, or a .json file")
    parser.add_argument("--runs", type=Path, default=RESULTS / "admission", help="folder of a file for each instance")
    parser.add_argument("--seeds", type=num_seeds, default=8, help="how many, from 0 on")
    parser.add_argument("--heldout", type=int, default=500, help="held-out problems")
    parser.add_argument("--workers", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--sum-up", action="store_true", help="play nothing: take the instances that were played")
    arguments = parser.parse_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    whole = InstanceSet.load(arguments.instances)
    is_played = {instance.id: (arguments.runs / f"{instance.id}.json").exists() for instance in whole}
    instances = [instance for instance in whole if is_played[instance.id] or not arguments.sum_up]
    ids = [instance.id for instance in instances]
    one = partial(play, arguments.instances, arguments.runs, range(arguments.seeds), arguments.heldout)
    found: dict[str, dict[str, Any]] = {}
    with ProcessPoolExecutor(arguments.workers) as pool:
        for instance, played in zip(instances, pool.map(one, ids), strict=True):
            told = {"split": instance.split, "commit": played["commit"], "cpu_sec_a_run": played["cpu_sec_a_run"]}
            found[instance.id] = {**told, **admitted(played["runs"])}
            print(instance.id, json.dumps(found[instance.id]["best_minus_worst"]), flush=True)
    unknown = {instance.split for instance in whole if instance.id not in found}
    splits = {instance.split for instance in whole} - unknown
    save(
        "admission",
        {
            "set": whole.name,
            "version": whole.version,
            "fingerprint": whole.fingerprint,
            "seeds": list(range(arguments.seeds)),
            "num_heldout": arguments.heldout,
            "least": LEAST,
            "instances": found,
            "splits": {
                split: single_ratio([told for told in found.values() if told["split"] == split])
                for split in sorted(splits)
            },
        },
    )


if __name__ == "__main__":
    main()
