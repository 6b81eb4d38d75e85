"""How many windows a second does a surrogate make, beside the learner that it was fitted to?

Runs of the closed-form learner (random, linear, fixed) are made and a surrogate is fitted to them. Both environments then make
windows at random reveal ratios, in vector form and alone, interleaved: one block of each in every repetition. Windows a
second are medians over repetitions. The speed of a surrogate does not depend on what it was fitted to, only on its family, on
the number of groups and on how many students stand in a batch.

Example: python -m benchmarks.surrogate_speed --repetitions 5
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import gymnasium
import numpy as np

from atesd.experiments.run import execute
from atesd.experiments.specs import plan_runs
from atesd.experiments.surrogate.data import find_runs, read_windows
from atesd.experiments.surrogate.fitting import FAMILIES, fit
from atesd_env.config import preset
from benchmarks.common import save

AGENTS = ["random", "linear:0:1", "linear:1:0", "fixed:0", "fixed:0.25", "fixed:0.5", "fixed:0.75", "fixed:1"]
CONFIG = preset("ATESD-Toy-v0", windows=20, hold_window=5)
WINDOWS = 4096
SCALAR_WINDOWS = 512


def vector_rate(envs: Any) -> float:
    """Returns windows a second of a vector environment; steps that only start new runs count as none."""
    rng = np.random.default_rng(0)
    envs.reset(seed=0)
    num_steps = WINDOWS // envs.num_envs
    actions = rng.random((num_steps, envs.num_envs, 1)).astype(np.float32)
    num_windows = 0
    started = time.perf_counter()
    for action in actions:
        infos = envs.step(action)[-1]
        num_windows += int(infos["_window"].sum()) if "_window" in infos else 0
    return num_windows / (time.perf_counter() - started)


def scalar_rate(env: Any) -> float:
    """Returns windows a second of a scalar environment."""
    actions = np.random.default_rng(0).random((SCALAR_WINDOWS, 1)).astype(np.float32)
    started = time.perf_counter()
    env.reset(seed=0)
    for action in actions:
        *_, truncated, _ = env.step(action)
        if truncated:
            env.reset()
    return SCALAR_WINDOWS / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5, help="blocks of each environment")
    parser.add_argument("--num-envs", type=int, nargs="+", default=[16, 64, 256], help="students in a batch")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for spec in plan_runs("ATESD-Toy-v0", CONFIG, AGENTS, range(6), Path(folder)):
            execute(spec)
        windows, config, env_id = read_windows(find_runs([folder]))
    surrogates = {family: fit(windows, config, env_id, families=[family]) for family in FAMILIES}
    rates: dict[str, list[float]] = {}
    for _ in range(arguments.repetitions):
        for num_envs in arguments.num_envs:
            toy = gymnasium.make_vec("ATESD-Toy-v0", num_envs, windows=CONFIG.windows, hold_window=CONFIG.hold_window)
            rates.setdefault(f"toy, {num_envs} students", []).append(vector_rate(toy))
            for family, surrogate in surrogates.items():
                envs = gymnasium.make_vec("ATESD-Surrogate-v0", num_envs, file=surrogate)
                rates.setdefault(f"{family}, {num_envs} students", []).append(vector_rate(envs))
        chosen = gymnasium.make("ATESD-Surrogate-v0", file=surrogates["varying"]).unwrapped
        rates.setdefault("varying, scalar", []).append(scalar_rate(chosen))
    save(
        "surrogate_speed",
        {
            "repetitions": arguments.repetitions,
            "windows_a_second": {
                name: {"median": round(median(values)), "lowest": round(min(values)), "highest": round(max(values))}
                for name, values in rates.items()
            },
        },
    )


if __name__ == "__main__":
    main()
