"""Searches for the oracle's schedule of every instance of a set and writes them beside it.

Found on seeds of the split train; what they are worth on other seeds is measured like any controller's: ``atesd bench run --agent oracle``.
What was found is kept one file an instance, so that a search which was broken off goes on where it stopped.

With ``--check`` nothing is searched for but what schedules drawn at random reach with the oracle's own windows, on its seeds, and how far
the best of them ends from the oracle's on seeds of the split test.

Example: python -m benchmarks.oracle --found oracle-runs --workers 2
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.bench import bench_outcomes
from atesd.experiments.bench.plan import default_seeds
from atesd_env.bench.environments import BenchEnv
from atesd_env.bench.instances import InstanceSet
from atesd_env.bench.landscapes import landscape
from atesd_env.bench.oracle import best_schedule, followed_to_the_end, grid_of_actions, random_schedule
from atesd_env.bench.schedules import CARD, oracle_schedules, schedules_file, write_schedules
from atesd_env.envs.contract import Students
from benchmarks.common import kept, mean_with_interval, save
from benchmarks.ratios_side_by_side import RATIOS

COARSE = (0.0, 0.5, 1.0)
"""Ratios of each group where there are several: nine pairs instead of twenty-five."""


def space(instances: InstanceSet, instance_id: str) -> tuple[Students, list[tuple[float, ...]], int]:
    """Returns students of an instance, what may be shown in a stage, and how many stages there are."""
    torch.set_num_threads(1)
    config = instances.config(instance_id)
    env = BenchEnv(instances, split=instances[instance_id].split, instance=instance_id)
    env.reset(options={"instance": instance_id})
    # A change within a run needs an end of a stage near it.
    stages = 3 if getattr(config, "phases", None) is None else 4
    return env.population, grid_of_actions(RATIOS if config.groups == 1 else COARSE, config.groups), stages


def search(set_name: str, folder: Path, seeds: Sequence[int], width: int, instance_id: str) -> dict[str, Any]:
    """Returns what was found for an instance, from its file in ``folder`` where there is one."""
    instances = InstanceSet.load(set_name)

    def found() -> dict[str, Any]:
        students, actions, stages = space(instances, instance_id)
        schedule, spent = best_schedule(students, actions, seeds, stages=stages, width=width)
        return {"ratios": schedule.ratios, "windows_spent": spent}

    asked = {"fields": {**instances.fields, **instances[instance_id].fields}, "seeds": list(seeds), "width": width}
    told = kept(folder / f"{instance_id}.json", asked, found)
    return {name: told[name] for name in ("ratios", *CARD)}


def check(set_name: str, instance_id: str) -> dict[str, Any]:
    """Returns what random search over the same schedules reaches with the oracle's windows, and the oracle, both on other seeds."""
    instances = InstanceSet.load(set_name)
    told = oracle_schedules(instances)[instance_id]
    students, actions, stages = space(instances, instance_id)
    budget = {"stages": stages, "budget": told["windows_spent"], "rng": np.random.default_rng(0)}
    schedule, spent = random_schedule(students, actions, told["seeds"], **budget)
    seeds = default_seeds(instances[instance_id].split)
    drawn = np.array([followed_to_the_end(students, [schedule.ratios], [seed])[0].accuracy for seed in seeds])
    runs = bench_outcomes(landscape(instances, instance_id)).query("agent == 'oracle'").set_index("seed")
    oracle = runs["probe/accuracy"].loc[list(seeds)].to_numpy()
    return {
        "windows_of_the_oracle": told["windows_spent"],
        "windows_spent": spent,
        "ratios": schedule.ratios,
        "oracle": mean_with_interval(100.0 * oracle),
        "random_search": mean_with_interval(100.0 * drawn),
        "difference": mean_with_interval(100.0 * (oracle - drawn)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", default="atesd-bench", help="a packaged set, or a .json file")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--found", type=Path, help="folder that gets a file for each instance")
    group.add_argument("--check", nargs="+", metavar="INSTANCE", help="search at random on these instead")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds to search on, of the split train"
    )
    parser.add_argument("--width", type=int, default=4, help="prefixes that go on from stage to stage")
    parser.add_argument("--splits", nargs="+", default=["test", "train", "validation"], help="which, in this order")
    parser.add_argument("--workers", type=int, default=1, help="processes, of one thread each")
    arguments = parser.parse_args()
    if arguments.check:
        checked: dict[str, Any] = {}
        for instance_id in arguments.check:
            checked[instance_id] = check(arguments.instances, instance_id)
            save("random_search", {"instances": checked})
    else:
        search_all(arguments)


def search_all(arguments: argparse.Namespace) -> None:
    """Searches on the instances of some splits, and writes what was found beside the set; schedules of others stay."""
    arguments.found.mkdir(parents=True, exist_ok=True)
    instances = InstanceSet.load(arguments.instances)
    ids = [instance.id for split in arguments.splits for instance in instances.of(split)]
    one = partial(search, arguments.instances, arguments.found, arguments.seeds, arguments.width)
    found = oracle_schedules(instances)
    with ProcessPoolExecutor(arguments.workers) as pool:
        for instance_id, told in zip(ids, pool.map(one, ids), strict=True):
            found[instance_id] = told
            print(instance_id, told["ratios"], told["windows_spent"], flush=True)
    write_schedules(instances, found)
    print(schedules_file(instances))


if __name__ == "__main__":
    main()
