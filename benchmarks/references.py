"""Makes the references of a set, what known controllers reach on each instance, and its landscapes from runs of ``atesd bench run``.

Example: python -m benchmarks.references bench/test bench/train
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from analysis import load_runs
from analysis.bench import MEASURES, bench_outcomes, by_instance
from atesd.experiments.bench.plan import read_bench_file
from atesd_env.bench.instances import InstanceSet
from atesd_env.bench.known import COLUMNS, references_file, write_references
from atesd_env.bench.landscapes import landscapes_file, write_landscapes
from benchmarks.common import provenance


def span(seeds: pd.Series) -> str:
    """Returns seeds as text: ``20000-20007`` where they follow each other, else one by one."""
    numbers = sorted(seeds.unique())
    is_span = len(numbers) > 1 and numbers[-1] - numbers[0] == len(numbers) - 1
    return f"{numbers[0]}-{numbers[-1]}" if is_span else " ".join(map(str, numbers))


def frame_of(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Returns the references (``COLUMNS``) of runs: for each instance, agent and measure the mean and its interval, and what it cost.

    Args:
        outcomes: What ``bench_outcomes`` returns.
    """
    runs = outcomes.groupby(["instance", "agent"])
    costs = pd.DataFrame(
        {
            "seeds": runs["seed"].agg(span),
            "num_updates": runs["num_updates"].mean() + runs["branch_updates"].mean(),
            "num_tokens": runs["num_tokens"].mean() + runs["branch_tokens"].mean(),
        }
    )
    means = by_instance(outcomes)
    means = means[means["measure"].isin(MEASURES) & (means["num_seeds"] > 0)].rename(columns={"measure": "metric"})
    told = means.merge(costs.reset_index(), on=["instance", "agent"])
    return told[list(COLUMNS)].sort_values(["instance", "agent", "metric"], ignore_index=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="submissions that atesd bench run made, of one set")
    arguments = parser.parse_args()
    instances = InstanceSet.load(read_bench_file(arguments.folders[0])["instances"])
    for folder in arguments.folders:
        if read_bench_file(folder)["fingerprint"] != instances.fingerprint:
            raise SystemExit(
                f"{folder}: expected runs of {instances.name} {instances.version} as it is now, got others."
            )
    frame = load_runs(arguments.folders)
    finished = frame[frame["run_status"] == "finished"]
    made = {name: provenance()[name] for name in ("command", "commit")} | {"licence": "Apache-2.0"}
    write_references(
        instances,
        frame_of(bench_outcomes(finished)),
        what="What known controllers reach after the last window, branches and all, by instance; means over seeds, 95% t intervals.",
        **made,
    )
    write_landscapes(instances, finished, what="Every window of the runs that the references sum up.", **made)
    for path in (references_file(instances), landscapes_file(instances)):
        print(f"{path}: {finished['run'].nunique()} runs, {path.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
