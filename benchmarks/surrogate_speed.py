"""How many windows do the simulated students make in a second of CPU time, here and in another checkout of this repository?

Measured are whole episodes, resets included: of the closed form as it is by default (100 windows) and of surrogates fitted to runs
of it (random, linear, fixed ratios), alone and as populations of ``--num-envs``; and PPO that learns on 16 closed forms, training
of its networks included. "sync" and "async" are Gymnasium's own vectors of scalar environments; the processes of "async" are started
and counted too, over ten episodes. With ``--before`` everything is measured there too, in alternating processes on the same surrogates, and
ratios are given. Numbers are medians over repetitions. A surrogate's speed depends on its family, the groups, and the batch.

Example: python -m benchmarks.surrogate_speed --before ../clone-of-an-earlier-commit
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import gymnasium
import numpy as np
import torch

import agents
import atesd_env  # (registers the ids)
from atesd.experiments.run import execute
from atesd.experiments.specs import plan_runs
from atesd.experiments.surrogate.data import find_runs, read_windows
from atesd.experiments.surrogate.fitting import FAMILIES, fit
from atesd_env.config import preset
from benchmarks.common import kept, save

AGENTS = ["random", "linear:0:1", "linear:1:0", "fixed:0", "fixed:0.25", "fixed:0.5", "fixed:0.75", "fixed:1"]
CONFIG = preset("ATESD-Toy-v0", windows=20, hold_window=5)
PARTS = ("alone", "together", "learning")  # a process each
SURROGATE = {"id": "ATESD-Surrogate-v0", "on_extrapolation": "warn"}  # so that whole episodes are made


def vector_rate(num_envs: int, windows: int = 100, **keywords: Any) -> float:
    """Returns windows a CPU second of a population over its second episode, the reset before it included."""
    env: Any = gymnasium.make_vec(num_envs=num_envs, **keywords)
    actions = np.random.default_rng(0).random((windows, num_envs, 1)).astype(np.float32)
    env.reset(seed=0)
    for action in actions:
        env.step(action)
    started = time.process_time()
    for action in (actions[0], *actions):
        env.step(action)
    return windows * num_envs / (time.process_time() - started)


def processes_rate(num_envs: int, windows: int = 1000) -> float:
    """Returns windows a CPU second of Gymnasium's vector of one process each, these and their start counted."""
    started = sum(os.times()[:4])
    env: Any = gymnasium.make_vec("ATESD-Toy-v0", num_envs, vectorization_mode="async")
    actions = np.random.default_rng(0).random((windows, num_envs, 1)).astype(np.float32)
    env.reset(seed=0)
    for action in actions:
        env.step(action)
    env.close()
    return windows * num_envs / (sum(os.times()[:4]) - started)


def scalar_rate(**keywords: Any) -> float:
    """Returns windows a CPU second of a scalar environment over ten episodes."""
    env: Any = gymnasium.make(disable_env_checker=True, **keywords).unwrapped
    windows: int = env.config.windows
    actions = np.random.default_rng(0).random((windows, 1)).astype(np.float32)
    env.reset(seed=0)
    env.step(actions[0])
    started = time.process_time()
    for _ in range(10):
        env.reset()
        for action in actions:
            env.step(action)
    return 10 * windows / (time.process_time() - started)


def ppo_rate(num_windows: int) -> float:
    """Returns windows a CPU second of PPO that learns on 16 closed forms."""
    torch.set_num_threads(1)
    env: Any = gymnasium.make_vec("ATESD-Toy-v0", 16)
    agent = agents.make("ppo", env, seed=0)
    started = time.process_time()
    agent.learn(num_windows)
    return num_windows / (time.process_time() - started)


def rates(part: str, folder: Path, num_envs: list[int], num_ppo_windows: int) -> dict[str, float]:
    """Returns windows a CPU second by name, with the surrogates of a folder: one of ``PARTS``."""
    warnings.simplefilter("ignore")
    files = {path.stem: str(path) for path in sorted(folder.iterdir())}
    if part == "learning":
        return {"PPO on 16 closed forms": ppo_rate(num_ppo_windows)}
    if part == "alone":
        return {
            "closed form, alone": scalar_rate(id="ATESD-Toy-v0"),
            "varying, alone": scalar_rate(**SURROGATE, file=files["varying"]),
            "closed form, 16 students, sync": vector_rate(16, id="ATESD-Toy-v0", vectorization_mode="sync"),
            "closed form, 16 students, async": processes_rate(16),
        }
    found = {}
    for number in num_envs:
        found[f"closed form, {number} students"] = vector_rate(number, id="ATESD-Toy-v0")
        for family, file in files.items():
            found[f"{family}, {number} students"] = vector_rate(number, CONFIG.windows, **SURROGATE, file=file)
    return found


def measured(name: str, tree: Path, number: int, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Returns the ``rates`` of a checkout, a process for each part; what the folder holds already is taken from there."""
    asked = {"num_envs": arguments.num_envs, "ppo_windows": arguments.ppo_windows}
    found: dict[str, float] = {}
    for part in PARTS:
        make = partial(in_process, part, tree, folder / "surrogates", arguments)
        found |= kept(folder / f"{name}-{number}-{part}.json", asked, make)["rates"]
    return found


def in_process(part: str, tree: Path, surrogates: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns ``{"rates": rates(...)}`` of another process, which imports the packages of a checkout."""
    command = [sys.executable, "-P", __file__, "--measure", part, str(surrogates)]
    command += ["--num-envs", *map(str, arguments.num_envs), "--ppo-windows", str(arguments.ppo_windows)]
    environment = os.environ | {"PYTHONPATH": str(tree)} | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {"rates": json.loads(output.splitlines()[-1])}


def fit_surrogates(folder: Path) -> None:
    """Fits a surrogate of each family to runs of the closed form."""
    with tempfile.TemporaryDirectory() as runs:
        for spec in plan_runs("ATESD-Toy-v0", CONFIG, AGENTS, range(6), Path(runs)):
            execute(spec)
        windows, config, env_id = read_windows(find_runs([runs]))
    folder.mkdir(parents=True)
    for family in FAMILIES:
        fit(windows, config, env_id, families=[family]).save(folder / f"{family}.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2, help="processes of each checkout")
    parser.add_argument("--num-envs", type=int, nargs="+", default=[16, 256, 4096], help="students in a population")
    parser.add_argument("--ppo-windows", type=int, default=100_000, help="windows that PPO learns from")
    parser.add_argument("--before", type=Path, help="another checkout, to compare with")
    parser.add_argument("--folder", type=Path, help="keeps what is measured; what was broken off goes on there")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)  # what the other processes are asked
    arguments = parser.parse_args()
    if arguments.measure:
        part, folder = arguments.measure
        assert Path(atesd_env.__file__).parents[1] == Path(os.environ["PYTHONPATH"]), (
            "expected the checkout's own packages"
        )
        print(json.dumps(rates(part, Path(folder), arguments.num_envs, arguments.ppo_windows)))
        return
    trees = {"after": Path(__file__).parents[1]} | ({"before": arguments.before.resolve()} if arguments.before else {})
    found: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    with ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not (folder / "surrogates").exists():
            fit_surrogates(folder / "surrogates")
        for number in range(arguments.repetitions):
            for name, tree in trees.items():
                found[name].append(measured(name, tree, number, folder, arguments))
    medians = {
        name: {what: median(one[what] for one in repetitions) for what in repetitions[0]}
        for name, repetitions in found.items()
    }
    result: dict[str, Any] = {"repetitions": arguments.repetitions, "ppo_windows": arguments.ppo_windows}
    for name, values in medians.items():
        result[f"windows_a_cpu_second_{name}"] = {what: round(value) for what, value in values.items()}
    if arguments.before:
        head = ["git", "-C", str(arguments.before), "rev-parse", "HEAD"]
        result["commit_before"] = subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
        after, before = medians["after"], medians["before"]
        result["times_as_fast"] = {what: round(after[what] / before[what], 2) for what in after}
    save("surrogate_speed", result)


if __name__ == "__main__":
    main()
