"""Does every agent find what can be found? Agents on the closed-form learners, whose optimum is known.

An agent learns over many runs (of Stable-Baselines3's, several students side by side; the number of windows is the same),
and then decides in one fresh run without exploring and without learning. Reported is the share of the optimal policy's way
that the student went in that run (`toy/reached_rate`), and the mean of that share over the runs of learning, which is what
learning cost. Means over seeds with 95% t intervals. `random` explores in its fresh run too: its mean ratio, 0.5,
would say nothing.

No problem has its best ratio near 0.5, where an agent that has learned nothing would pass for a good one.

Example: python -m benchmarks.agents_on_toy --seeds 10
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import gymnasium
import numpy as np
import torch
from rich.progress import track

import agents
from atesd_env.config import ToyConfig, preset
from atesd_env.simulated.toy_dynamics import next_levels
from atesd_env.simulated.toy_optimum import optimum
from atesd_env.simulated.toy_population import initial_state
from benchmarks.common import mean_with_interval, num_seeds, save

WINDOWS = 50
PROBLEMS: dict[str, dict[str, Any]] = {
    "constant": {"toy_best_ratio": 0.2},
    "noisy": {"toy_best_ratio": 0.2, "toy_noise": 0.05},
    "drift": {"toy_kind": "drift", "toy_best_ratio": 0.1, "toy_final_ratio": 0.9},
    "delayed": {"toy_kind": "delayed", "toy_best_ratio": 0.2, "toy_tempting_ratio": 0.8},
    "groups": {"toy_best_ratio": 0.3, "groups": 3, "toy_group_spread": 0.6},
}
"""Fields of the configuration beside ``windows`` and ``hold_window``."""
SIDE_BY_SIDE = ("ppo", "a2c", "sac", "td3", "dqn", "recurrent_ppo", "tqc")
EVERYWHERE = ("random", "beta", "ucb", "thompson", "exp3s", "linucb", "ppo", "a2c", "td3", "dqn")
BESIDE = {
    "constant": ("sac", "tqc", "recurrent_ppo"),
    "noisy": (),
    "drift": ("ucb:discount=0.95", "thompson:discount=0.95", "linucb:discount=0.95"),
    "delayed": ("beta:credit=one-step", "ucb:credit=one-step", "thompson:credit=one-step", "exp3s:credit=one-step"),
    "groups": ("beta:batch_size=8",),
}
"""Agents on one problem only: the slowest, and what the problem is about."""


def configuration(problem: str) -> ToyConfig:
    """Returns a problem's configuration."""
    return preset("ATESD-Toy-v0", windows=WINDOWS, hold_window=2, **PROBLEMS[problem])


def reached_by_fixed(config: ToyConfig, ratio: float) -> float:
    """Returns the share of the optimal way that one fixed ratio goes, the same for all groups, without noise."""
    state = initial_state(config, seed=0)
    nll, skill = np.array([state.nll]), np.array([state.skill])
    for _ in range(config.windows):
        nll, skill = next_levels(nll, skill, np.full(nll.shape, ratio), config)
    return float(optimum(config).reached_rate(nll)[0])


def measure(job: tuple[str, str, int, int, int]) -> dict[str, float]:
    """Returns what one agent with one seed reached: (problem, spec, seed, windows of learning, students side by side)."""
    problem, spec, seed, total, num_envs = job
    torch.set_num_threads(1)
    fields = {"windows": WINDOWS, "hold_window": 2, **PROBLEMS[problem]}
    is_population = spec.partition(":")[0] in SIDE_BY_SIDE
    env: Any = (
        gymnasium.make_vec("ATESD-Toy-v0", num_envs=num_envs, **fields)
        if is_population
        else gymnasium.make("ATESD-Toy-v0", disable_env_checker=True, **fields)
    )
    agent = agents.make(spec, env, seed=seed)
    reached: list[float] = []

    def record(names: dict[str, Any], _: dict[str, Any]) -> bool:
        reached.extend(
            info["toy/reached_rate"] for info, done in zip(names["infos"], names["dones"], strict=True) if done
        )
        return True

    started = time.perf_counter()
    if hasattr(agent, "learn"):
        agent.learn(total, callback=record)
    learning_sec = time.perf_counter() - started
    return {
        "reached_rate": play(agent, fields, seed=10**6 + seed, is_deterministic=spec != "random"),
        "reached_rate_while_learning": float(np.mean(reached)),
        "learning_sec": learning_sec,
    }


def play(agent: Any, fields: dict[str, Any], seed: int, *, is_deterministic: bool) -> float:
    """Returns what an agent reaches in a run in which it learns nothing."""
    env = gymnasium.make("ATESD-Toy-v0", disable_env_checker=True, **fields)
    observation, info = env.reset(seed=seed)
    state, is_over = None, False
    is_start = np.array([True])
    while not is_over:
        action, state = agent.predict(observation, state, is_start, deterministic=is_deterministic)
        observation, _, terminated, truncated, info = env.step(action)
        is_over, is_start = terminated or truncated, np.array([False])
    return float(info["toy/reached_rate"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=num_seeds, default=10, help="number of seeds, counted from 0")
    parser.add_argument("--total-windows", type=int, default=1200, help="windows of learning")
    parser.add_argument("--num-envs", type=int, default=4, help="students side by side, for Stable-Baselines3's agents")
    parser.add_argument("--agents", nargs="+", help="specs, instead of those of the table")
    parser.add_argument("--problems", nargs="+", default=tuple(PROBLEMS), choices=tuple(PROBLEMS))
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    started = time.perf_counter()
    jobs = [
        (problem, spec, seed, arguments.total_windows, arguments.num_envs)
        for problem in arguments.problems
        for spec in (arguments.agents or (*EVERYWHERE, *BESIDE[problem]))
        for seed in range(arguments.seeds)
    ]
    with ProcessPoolExecutor(arguments.processes) as pool:
        measured = list(track(pool.map(measure, jobs), total=len(jobs), description="agents"))
    results: dict[str, Any] = {}
    for problem in arguments.problems:
        ratios = np.linspace(0.0, 1.0, 101)
        fixed = [reached_by_fixed(configuration(problem), ratio) for ratio in ratios]
        results[problem] = {
            "fields": PROBLEMS[problem],
            "best_fixed": {"ratio": float(ratios[int(np.argmax(fixed))]), "reached_rate": max(fixed)},
            "fixed_0.5": fixed[50],
            "agents": {},
        }
    for index in range(0, len(jobs), arguments.seeds):
        problem, spec, *_ = jobs[index]
        runs = measured[index : index + arguments.seeds]
        rates = [run["reached_rate"] for run in runs]
        results[problem]["agents"][spec] = {
            "reached_rate": {**mean_with_interval(rates), "by_seed": [round(rate, 4) for rate in rates]},
            "reached_rate_while_learning": mean_with_interval([run["reached_rate_while_learning"] for run in runs]),
            "learning_sec": round(float(np.median([run["learning_sec"] for run in runs])), 2),
        }
    save(
        "agents_on_toy",
        {
            "seeds": list(range(arguments.seeds)),
            "windows": WINDOWS,
            "hold_window": 2,
            "windows_of_learning": arguments.total_windows,
            "students_side_by_side": arguments.num_envs,
            "wall_sec": round(time.perf_counter() - started, 1),
            "problems": results,
        },
    )


if __name__ == "__main__":
    main()
