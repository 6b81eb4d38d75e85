"""A student that breaks: which columns of the row see it coming.

Tiny at a learning rate eleven times the preset's, one update a window, at full exposure and at none: a column gives the alarm in the first
window in which it leaves the range that it had in the same seeds' runs at the preset's rate. The student is broken once its probe
NLL is one nat above the base's.

Example: python -m benchmarks.collapse --seeds 8 --runs collapse
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd

from benchmarks.common import kept, mean_with_interval, num_seeds, save

SIGNS = (
    "student/grad_norm",
    "student/mismatch",
    "student/entropy",
    "teacher/entropy",
    "student/top1_disagreement",
    "rollout/truncation_rate",
    "rollout/length_p90",
    "rollout/repetition",
    "rollout/loop_rate",
)
"""Columns that rise when a student breaks."""
BROKEN_NATS = 1.0
HIGH_RATE = 0.022
_PROBE = {"probe_size": 32, "collapse_nll": 100.0}


def rows_of(seeds: int, ratio: float, **fields: Any) -> pd.DataFrame:
    """Returns the rows of twelve updates at one ratio, a student a seed, all in one population."""
    students = gym.make_vec(
        "atesd_env:ATESD-Tiny-v0", num_envs=seeds, windows=12, hold_window=1, probe_accuracy_every=0, **_PROBE, **fields
    )
    _, first = students.reset(seed=list(range(seeds)))
    rows = []
    for window in range(1, 13):
        *_, infos = students.step(np.full((seeds, 1), ratio, dtype=np.float32))
        rows += [
            {"run": seed, "window": window} | {name: float(infos[name][seed]) for name in (*SIGNS, "probe/nll")}
            for seed in range(seeds)
        ]
    return pd.DataFrame(rows).assign(before=lambda frame: frame["run"].map(dict(enumerate(first["probe/nll"]))))


def alarms(broken: pd.DataFrame, healthy: pd.DataFrame) -> dict[str, Any]:
    """Returns when each column of runs that broke left the range of healthy runs, against the window in which they broke.

    Args:
        broken: Rows of the runs that may have broken.
        healthy: Rows of as many windows that did not.
    """
    lead: dict[str, list[int]] = {name: [] for name in SIGNS}
    silent = dict.fromkeys(SIGNS, 0)
    ends = []
    for _, rows in broken.groupby("run"):
        late = rows["window"][rows["probe/nll"] > rows["before"].iloc[0] + BROKEN_NATS]
        if late.empty:
            continue
        ends.append(int(late.iloc[0]))
        for name in SIGNS:
            seen = rows["window"][(rows[name] > healthy[name].max()) & (rows["window"] <= ends[-1])]
            if seen.empty:
                silent[name] += 1
            else:
                lead[name].append(ends[-1] - int(seen.iloc[0]))
    columns = {
        name: {"lead": mean_with_interval(lead[name]) if len(lead[name]) > 1 else None, "silent": silent[name]}
        for name in SIGNS
    }
    return {"runs": int(broken["run"].nunique()), "broke_in_window": ends, "columns": columns}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=num_seeds, default=8, help="number of seeds, counted from 0")
    parser.add_argument(
        "--runs", type=Path, required=True, help="folder of the runs; those that are there are not made again"
    )
    arguments = parser.parse_args()

    seeds = range(arguments.seeds)
    arguments.runs.mkdir(parents=True, exist_ok=True)

    def rows(part: str, ratio: float, **fields: Any) -> pd.DataFrame:
        asked = {"seeds": list(seeds), "ratio": ratio, **fields}
        made = kept(
            arguments.runs / f"{part}.json",
            asked,
            lambda: {"rows": rows_of(len(seeds), ratio, **fields).to_dict("list")},
        )
        return pd.DataFrame(made["rows"])

    healthy = rows("healthy", 1.0)
    signs = {
        f"fixed:{ratio:g}": alarms(rows(f"high-{ratio:g}", ratio, learning_rate=HIGH_RATE), healthy)
        for ratio in (1.0, 0.0)
    }
    save(
        "collapse",
        {
            "seeds": list(seeds),
            "learning_rate": HIGH_RATE,
            "broken_nats": BROKEN_NATS,
            "signs": signs,
        },
    )


if __name__ == "__main__":
    main()
