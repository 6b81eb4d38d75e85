"""Makes the references of a set, what known controllers reach on each instance, and its landscapes from runs of ``atesd bench run``.

Agents that lack a run which others of their split have are left out and named; fixed ratios that show as many steps of every problem of
an instance are run once, and stand for each other. On instances of the splits train and validation the fixed ratios and
random ones have the admission's seeds and held-out problems too (``benchmarks.admission``); ``best_fixed`` is, for each instance, the
fixed ratio that was best there, on seeds of the split train.

Example: python -m benchmarks.references bench/test bench/train
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import load_runs
from analysis.bench import AREA, BRANCHES, MEASURES, SCORING, bench_outcomes, by_instance
from atesd.experiments.bench.plan import read_bench_file
from atesd_env.bench.instances import InstanceSet
from atesd_env.bench.known import COLUMNS, references_file, write_references
from atesd_env.bench.landscapes import landscapes_file, write_landscapes
from atesd_env.exposure import num_shown_steps
from atesd_env.files.run_folder import BRANCHES_FILE, read_rows
from benchmarks.common import RESULTS, provenance

BEST_FIXED = "best_fixed"
"""The fixed ratio that was best on seeds of the split train, for each instance."""
GRID = (0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0)
"""Fixed ratios that are known: eleven, and those of the admission."""
HELDOUT = "heldout/accuracy"
"""What the admission measured after the last window, on more problems than the probe has."""
SEARCH_WITHIN = "lookahead:ratios=[0,0.25,0.5,0.75,1]:windows=99:every=2:race=null"
"""A search within each run: branches to its end, every other window. It costs so much that it has fewer seeds than others, and
only some instances."""


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


def admitted_outcomes(instances: InstanceSet) -> pd.DataFrame:
    """Returns the runs of the admission on instances of the splits train and validation, as ``bench_outcomes`` has them."""
    lines = []
    for instance in (*instances.of("train"), *instances.of("validation")):
        config: Any = instances.config(instance.id)
        path = RESULTS / "admission" / f"{instance.id}.json"
        for run in json.loads(path.read_text())["runs"] if path.exists() else ():
            nll = run["probe/nll"]
            tokens = sum(round(length * config.num_rollouts * config.hold_window) for length in run["rollout/length"])
            lines.append(
                {
                    "instance": instance.id,
                    "agent": run["schedule"],
                    "seed": run["seed"],
                    MEASURES[0]: run["accuracy"],
                    MEASURES[1]: nll[-1],
                    AREA: np.trapezoid(nll) / (len(nll) - 1),
                    "num_updates": len(nll) * config.hold_window,
                    "num_tokens": tokens,
                    **dict.fromkeys((*BRANCHES, *SCORING), 0),
                }
            )
    return pd.DataFrame(lines)


def with_best_fixed(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns rows of runs and, once more under the name ``BEST_FIXED``, those of each instance's best ratio among the agents, if any."""
    told = json.loads((RESULTS / "admission.json").read_text())["instances"]
    parts = [frame]
    for instance, rows in frame.groupby("instance", observed=True):
        means = {f"fixed:{ratio}": one["mean"] for ratio, one in told[str(instance)]["accuracy"].items()}
        there = [agent for agent in means if (rows["agent"] == agent).any()]
        best = rows[rows["agent"] == max(there, key=means.__getitem__, default=None)]
        parts.append(best.assign(agent=BEST_FIXED, run=best["run"] + f" as {BEST_FIXED}"))
    return pd.concat(parts, ignore_index=True)


def references_of(instances: InstanceSet, finished: pd.DataFrame) -> pd.DataFrame:
    """Returns the references of a set: of the admission's runs on the splits train and validation, and of finished ones.

    Where both have an agent's number the admission's is taken, which has more seeds.
    """
    admitted = frame_of(admitted_outcomes(instances))
    admitted["metric"] = admitted["metric"].replace(MEASURES[0], HELDOUT)
    own = frame_of(bench_outcomes(with_best_fixed(with_grid(instances, finished))))
    told = pd.concat([admitted, own], ignore_index=True).drop_duplicates(["instance", "agent", "metric"])
    return told.sort_values(["instance", "agent", "metric"], ignore_index=True)


def complete(instances: InstanceSet, finished: pd.DataFrame, *, may_lack: tuple[str, ...] = ()) -> pd.DataFrame:
    """Returns the runs of agents that have every instance of a split at every seed that any agent has; says which it leaves out.

    Args:
        instances: The set.
        finished: Rows of finished runs; those of ``SEARCH_WITHIN`` stay as they are.
        may_lack: How the names of agents begin that may have some instances only.
    """
    frame = finished.copy().assign(
        agent=finished["agent"].astype(str)
    )  # in one piece: runs of three splits come column by column
    there = frame[_is_most(frame, ["instance"], "seed") | (frame["agent"] == SEARCH_WITHIN)]
    may_lack = (*may_lack, SEARCH_WITHIN)
    split = there["instance"].map({instance.id: instance.split for instance in instances})
    kept: pd.DataFrame = there[
        _is_most(there.assign(split=split), ["split"], "instance") | there["agent"].str.startswith(may_lack)
    ]
    for left_out in sorted(set(frame["agent"]) - set(kept["agent"])):
        print(f"left out: {left_out}, which lacks runs that another agent has")
    return kept


def _is_most(frame: pd.DataFrame, within: list[str], what: str) -> Any:
    """Returns for each row whether its agent has as many different values of a column as any agent, within groups of rows."""
    number = frame.groupby([*within, "agent"])[what].transform("nunique")
    return number == number.groupby([frame[name] for name in within]).transform("max")


def with_grid(instances: InstanceSet, frame: pd.DataFrame) -> pd.DataFrame:
    """Returns rows of runs with every fixed ratio of ``GRID``; what was not run is a run that shows as many steps of every problem.

    Such runs are the same bit for bit. A ratio that lacks an instance all the same is left out, and named.
    """
    parts = [frame]
    for instance, rows in frame.groupby("instance"):
        config = instances.config(str(instance))
        measured = {name: float(name[6:]) for name in rows["agent"].unique() if name.startswith("fixed:")}
        there = {shown_steps(config, ratio): name for name, ratio in measured.items()}
        for ratio in GRID:
            name, alike = f"fixed:{ratio:g}", there.get(shown_steps(config, ratio))
            if name not in measured and alike is not None:
                runs = rows[rows["agent"] == alike]
                parts.append(runs.assign(agent=name, run=runs["run"] + f" as {name}"))
    return complete(instances, pd.concat(parts, ignore_index=True))


def shown_steps(config: Any, ratio: float) -> tuple[int, ...]:
    """Returns how many steps a ratio shows of a solution of each length that a run of sums has: one less than its addends."""
    return tuple(num_shown_steps(ratio, n - 1) for n in range(config.min_addends, config.max_addends + 1))


def branch_windows(folders: Sequence[Path], finished: pd.DataFrame) -> pd.DataFrame:
    """Returns the windows on branches that these runs kept, with what the rows of their runs say of them."""
    root = Path(os.path.commonpath(folders))
    own = ["instance", "run", "env_id", "agent", "seed", "run_status", "version"]
    parts = []
    for told in finished[own].drop_duplicates("run").to_dict("records"):
        path = root / told["run"] / BRANCHES_FILE
        if path.exists():
            parts.append(pd.DataFrame(read_rows(path)).assign(**{str(name): value for name, value in told.items()}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


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
    finished = complete(instances, frame[frame["run_status"] == "finished"], may_lack=("fixed:",))
    tried = branch_windows(arguments.folders, finished)
    made = {name: provenance()[name] for name in ("command", "commit")} | {"licence": "Apache-2.0"}
    write_references(
        instances,
        references_of(instances, finished),
        what="What known controllers reach after the last window, branches and all, by instance; means over seeds, 95% t intervals. "
        "Fixed ratios that were not run are runs of one that shows as many steps of every problem. heldout/accuracy, and the NLL of the "
        "same agents, on instances of the splits train and validation: runs of benchmarks.admission, 500 held-out problems.",
        **made,
    )
    keeping = ", ".join(sorted(set(tried["agent"]))) if len(tried) else "no agent yet"
    write_landscapes(
        instances,
        pd.concat([finished, tried], ignore_index=True),
        what="Every window of the runs of atesd bench run that the references sum up: rows as atesd bench run writes them, without wall "
        f"times. Windows on branches were kept by the runs of: {keeping}.",
        **made,
    )
    for path in (references_file(instances), landscapes_file(instances)):
        print(f"{path}: {finished['run'].nunique()} runs, {path.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
