"""A student that breaks: which columns of the row see it coming, and which controllers avoid it.

Tiny at a learning rate eleven times the preset's, one update a window, at full exposure and at none: a column gives the alarm in the first
window in which it leaves the range that it had in the same seeds' runs at the preset's rate. The student is broken once its probe
NLL is one nat above the base's. And the controllers at this rate, on seeds that nothing was chosen by; and SmolLM2 at full exposure, at a
rate that was chosen on another seed.

Example: python -m benchmarks.collapse --seeds 8 --runs collapse
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd

from atesd import run
from benchmarks.common import differences_to, kept, mean_with_interval, num_seeds, save

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
CONTROLLERS = ("fixed:1", "fixed:0.5", "fixed:0", "random", "beta", "feedback", "grounded", "balance", "lookahead")
"""What is tried at the high rate; the others are compared with the first."""
CONTROLLER_WINDOWS = 8
SMOLLM2_RATE = 0.008
_EACH: dict[str, Any] = {"hold_window": 1, "probe_accuracy_every": 0, "probe_size": 32, "collapse_nll": 100.0}
_TINY = {"id": "atesd_env:ATESD-Tiny-v0", "windows": 12, **_EACH}
_SMOLLM2 = {
    "id": "atesd_env:ATESD-SmolLM2-135M-v0",
    "windows": 8,
    **_EACH,
    "num_rollouts": 2,
    "max_new_tokens": 32,
    "probe_size": 4,
    "probe_max_tokens": 48,
}


def rows_of(seeds: int, ratio: float, **arguments: Any) -> pd.DataFrame:
    """Returns the rows of runs of an update a window at one ratio, a student a seed, all in one population.

    Args:
        seeds: How many, from 0.
        ratio: The reveal ratio.
        **arguments: Of ``gym.make_vec``, ``windows`` among them.
    """
    students: Any = gym.make_vec(num_envs=seeds, **arguments)
    _, first = students.reset(seed=list(range(seeds)))
    rows = []
    for window in range(1, arguments["windows"] + 1):
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


def ends(frame: pd.DataFrame) -> dict[str, Any]:
    """Returns how the runs of each controller went: the window in which each broke (None: it did not), and the final rise of the NLL.

    Args:
        frame: Rows of runs, each controller's on the same seeds (``analysis.load_runs``).

    Returns:
        Name -> ``broke_in_window`` by seed, ``rise`` (last probe NLL minus the base's, nats) and its ``difference`` to the first's.
    """
    base = frame.groupby(["agent", "seed"])["probe/nll_before"].first()
    rise = frame.pivot(index=["agent", "seed"], columns="window", values="probe/nll").sub(base, axis=0)
    # The first window above; where there is none, idxmax would name the first of all.
    above = rise > BROKEN_NATS
    broke: Any = above.idxmax(axis=1).where(above.any(axis=1))
    end = rise.iloc[:, -1].unstack("agent")[list(CONTROLLERS)]
    differences = differences_to(end.to_numpy(), CONTROLLERS, 0)
    return {
        name: {
            "broke_in_window": [None if pd.isna(window) else int(window) for window in broke[name]],
            "rise": mean_with_interval(end[name]),
            "difference": differences.get(name),
        }
        for name in CONTROLLERS
    }


def controlled(seeds: Sequence[int], runs: Path) -> dict[str, Any]:
    """Returns how the controllers fared at the high rate; runs that are there are gone on with."""
    frame = run(
        "ATESD-Tiny-v0",
        CONTROLLERS,
        out=runs,
        seeds=seeds,
        resume=True,
        quiet=True,
        learning_rate=HIGH_RATE,
        windows=CONTROLLER_WINDOWS,
        **_EACH,
    )
    return {"windows": CONTROLLER_WINDOWS, "controllers": ends(frame)}


def signs(
    seeds: Sequence[int], runs: Path, student: dict[str, Any], rate: float, ratios: Sequence[float]
) -> dict[str, Any]:
    """Returns which columns told of students that broke; parts that are there are not made again."""

    def rows(part: str, ratio: float, **fields: Any) -> pd.DataFrame:
        asked = {"seeds": list(seeds), "ratio": ratio, **fields}
        made = kept(
            runs / f"{part}.json",
            asked,
            lambda: {"rows": rows_of(len(seeds), ratio, **student, **fields).to_dict("list")},
        )
        return pd.DataFrame(made["rows"])

    healthy = rows("healthy", 1.0)
    return {
        "signs": {
            f"fixed:{ratio:g}": alarms(rows(f"high-{ratio:g}", ratio, learning_rate=rate), healthy) for ratio in ratios
        }
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--controllers", action="store_true", help="which controllers avoid it, instead of the signs")
    instead.add_argument("--smollm2", action="store_true", help="the signs in SmolLM2-135M, 2 CPU minutes a seed")
    parser.add_argument(
        "--seeds", type=num_seeds, default=8, help="number of seeds, from 0; the controllers have as many after them"
    )
    parser.add_argument(
        "--runs", type=Path, required=True, help="folder of the runs; those that are there are not made again"
    )
    arguments = parser.parse_args()
    (arguments.runs / "smollm2" if arguments.smollm2 else arguments.runs).mkdir(parents=True, exist_ok=True)
    number = arguments.seeds
    seeds = range(number, 2 * number) if arguments.controllers else range(number)
    rate = SMOLLM2_RATE if arguments.smollm2 else HIGH_RATE
    about = {"seeds": list(seeds), "learning_rate": rate, "broken_nats": BROKEN_NATS}
    if arguments.controllers:
        save("collapse_controllers", about | controlled(seeds, arguments.runs / "controlled"))
    elif arguments.smollm2:
        save("collapse_smollm2", about | signs(seeds, arguments.runs / "smollm2", _SMOLLM2, rate, [1.0]))
    else:
        save("collapse", about | signs(seeds, arguments.runs, _TINY, rate, [1.0, 0.0]))


if __name__ == "__main__":
    main()
