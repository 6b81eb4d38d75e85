"""Every agent finds what can be found, on closed-form learners whose optimum is known (atesd_env/toy_optimum.py).

How each test is made. An agent learns over some runs of 50 windows; then it decides in one fresh run, without exploring and
without learning. What counts is ``toy/reached_rate``: the share of the optimal policy's way that the student went. The
best ratios lie far from 0.5, where an agent that has learned nothing would pass for a good one.

All seeds are fixed, so a test that passes goes on passing as long as nothing changes. The odds in the docstrings are those
of a false alarm after a change of the random streams; they come from more seeds than the test uses, as said there. The
table with all agents, problems and intervals is docs/results/agents_on_toy.md.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import agents
from atesd_env.config import preset
from atesd_env.toy_dynamics import next_levels
from atesd_env.toy_optimum import optimum
from atesd_env.toy_population import initial_state

FIELDS = {"windows": 50, "hold_window": 2}
LOW = {**FIELDS, "toy_best_ratio": 0.2}
HIGH = {**FIELDS, "toy_best_ratio": 0.8}
DELAYED = {**FIELDS, "toy_kind": "delayed", "toy_best_ratio": 0.2, "toy_tempting_ratio": 0.8}
DRIFT = {"windows": 200, "toy_kind": "drift", "toy_best_ratio": 0.1, "toy_final_ratio": 0.9}
GROUPS = {**FIELDS, "toy_best_ratio": 0.3, "groups": 3, "toy_group_spread": 0.6}

SIDE_BY_SIDE = ("ppo", "a2c", "sac", "td3", "dqn", "recurrent_ppo", "tqc")


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    """Small networks are slower on several threads, and the sums would be other ones."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def learned(spec: str, fields: dict[str, Any], *, total: int, seed: int, num_envs: int = 4) -> Any:
    """Returns an agent that has learned over ``total`` windows; Stable-Baselines3's from several students."""
    env: Any = (
        gymnasium.make_vec("ATESD-Toy-v0", num_envs=num_envs, **fields)
        if spec.partition(":")[0] in SIDE_BY_SIDE
        else gymnasium.make("ATESD-Toy-v0", disable_env_checker=True, **fields)
    )
    return agents.make(spec, env, seed=seed).learn(total)


def last_info(agent: Any, fields: dict[str, Any], *, seed: int = 10**6, is_deterministic: bool = True) -> dict[str, Any]:
    """Returns the last window's ``info`` of a run in which the agent learns nothing."""
    env = gymnasium.make("ATESD-Toy-v0", disable_env_checker=True, **fields)
    observation, info = env.reset(seed=seed)
    state, is_over, is_start = None, False, np.array([True])
    while not is_over:
        action, state = agent.predict(observation, state, is_start, deterministic=is_deterministic)
        observation, _, terminated, truncated, info = env.step(action)
        is_over, is_start = terminated or truncated, np.array([False])
    return info


def reached(spec: str, fields: dict[str, Any], *, total: int, seed: int) -> float:
    return float(last_info(learned(spec, fields, total=total, seed=seed), fields)["toy/reached_rate"])


def reached_while_learning(spec: str, fields: dict[str, Any], *, seed: int) -> float:
    """Returns what the student reached in the first run, in which the agent learned."""
    rates: list[float] = []

    def record(names: dict[str, Any], _: dict[str, Any]) -> bool:
        rates.append(names["infos"][0]["toy/reached_rate"])
        return True

    env = gymnasium.make("ATESD-Toy-v0", disable_env_checker=True, **fields)
    agents.make(spec, env, seed=seed).learn(fields["windows"], callback=record)
    return rates[-1]


def best_fixed(fields: dict[str, Any]) -> float:
    """Returns the highest share that one fixed ratio reaches, the same for all groups, without noise."""
    config = preset("ATESD-Toy-v0", **fields)
    rates = []
    for ratio in np.linspace(0.0, 1.0, 101):
        state = initial_state(config, seed=0)
        nll, skill = np.array([state.nll]), np.array([state.skill])
        for _ in range(config.windows):
            nll, skill = next_levels(nll, skill, np.full(nll.shape, ratio), config)
        rates.append(float(optimum(config).reached_rate(nll)[0]))
    return max(rates)
