"""Searches for the oracle's schedule of every instance of a set and writes them beside it.

Found on seeds of the split train; what they are worth on other seeds is measured like any controller's: ``atesd bench run --agent oracle``.
What was found is kept one file an instance, so that a search which was broken off goes on where it stopped.

Example: python -m benchmarks.oracle --found oracle-runs --workers 2
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

from atesd_env.bench.environments import BenchEnv
from atesd_env.bench.instances import InstanceSet
from atesd_env.bench.oracle import best_schedule, grid_of_actions
from atesd_env.bench.schedules import CARD, schedules_file, write_schedules
from benchmarks.common import kept
from benchmarks.landscapes import RATIOS

COARSE = (0.0, 0.5, 1.0)
"""Ratios of each group where there are several: nine pairs instead of twenty-five."""


def search(set_name: str, folder: Path, seeds: Sequence[int], width: int, instance_id: str) -> dict[str, Any]:
    """Returns what was found for an instance, from its file in ``folder`` where there is one."""
    instances = InstanceSet.load(set_name)

    def found() -> dict[str, Any]:
        torch.set_num_threads(1)
        config = instances.config(instance_id)
        env = BenchEnv(instances, split=instances[instance_id].split, instance=instance_id)
        env.reset(options={"instance": instance_id})
        stages = (
            3 if getattr(config, "phases", None) is None else 4
        )  # a change within a run needs an end of a stage near it
        actions = grid_of_actions(RATIOS if config.groups == 1 else COARSE, config.groups)
        schedule, spent = best_schedule(env.population, actions, seeds, stages=stages, width=width)
        return {"ratios": schedule.ratios, "windows_spent": spent}

    asked = {"fields": {**instances.fields, **instances[instance_id].fields}, "seeds": list(seeds), "width": width}
    told = kept(folder / f"{instance_id}.json", asked, found)
    return {name: told[name] for name in ("ratios", *CARD)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", default="atesd-bench", help="a packaged set, or a .json file")
    parser.add_argument("--found", type=Path, required=True, help="folder that gets a file for each instance")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds to search on, of the split train"
    )
    parser.add_argument("--width", type=int, default=4, help="prefixes that go on from stage to stage")
    parser.add_argument("--splits", nargs="+", default=["test", "train", "validation"], help="which, in this order")
    parser.add_argument("--workers", type=int, default=1, help="processes, of one thread each")
    arguments = parser.parse_args()
    arguments.found.mkdir(parents=True, exist_ok=True)
    instances = InstanceSet.load(arguments.instances)
    ids = [instance.id for split in arguments.splits for instance in instances.of(split)]
    one = partial(search, arguments.instances, arguments.found, arguments.seeds, arguments.width)
    found: dict[str, Any] = {}
    with ProcessPoolExecutor(arguments.workers) as pool:
        for instance_id, told in zip(ids, pool.map(one, ids), strict=True):
            found[instance_id] = told
            print(instance_id, told["ratios"], told["windows_spent"], flush=True)
    write_schedules(instances, found)
    print(schedules_file(instances))


if __name__ == "__main__":
    main()
