"""Every agent finds what can be found, on closed-form learners whose optimum is known (atesd_env/simulated/toy_optimum.py).

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
from atesd_env.simulated.toy_dynamics import next_levels
from atesd_env.simulated.toy_optimum import optimum
from atesd_env.simulated.toy_population import initial_state
from tests.agents.playing import transitions_of

FIELDS = {"windows": 50, "hold_window": 2}
LOW = {**FIELDS, "toy_best_ratio": 0.2}
HIGH = {**FIELDS, "toy_best_ratio": 0.8}
DELAYED = {**FIELDS, "toy_kind": "delayed", "toy_best_ratio": 0.2, "toy_tempting_ratio": 0.8}
DRIFT = {"windows": 200, "toy_kind": "drift", "toy_best_ratio": 0.1, "toy_final_ratio": 0.9}
GROUPS = {**FIELDS, "toy_best_ratio": 0.3, "groups": 3, "toy_group_spread": 0.6}

IN_RUN_AGENTS = [
    ("beta", 2000, 0.95),
    ("ucb", 500, 0.9),
    ("thompson", 1000, 0.9),
    ("linucb", 500, 0.9),
    ("exp3s", 2000, 0.9),
]
"""(spec, windows of learning, share of the optimum)"""
POPULATION_AGENTS = [
    ("ppo", 0.85),
    ("a2c", 0.9),
    ("dqn", 0.85),
    ("td3", 0.9),
    ("sac", 0.9),
    ("tqc", 0.9),
    ("recurrent_ppo", 0.9),
]
"""(spec, share of the optimum)"""
SIDE_BY_SIDE = {spec for spec, _ in POPULATION_AGENTS}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    """Small networks are slower on several threads, and the sums would be other ones."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def single(fields: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    return gymnasium.make("ATESD-Toy-v0", disable_env_checker=True, **fields)


def learned(spec: str, fields: dict[str, Any], *, total: int, seed: int, num_envs: int = 4) -> Any:
    """Returns an agent that has learned over ``total`` windows; Stable-Baselines3's from several students."""
    env: Any = (
        gymnasium.make_vec("ATESD-Toy-v0", num_envs=num_envs, **fields)
        if spec.partition(":")[0] in SIDE_BY_SIDE
        else single(fields)
    )
    return agents.make(spec, env, seed=seed).learn(total)


def last_info(
    agent: Any, fields: dict[str, Any], *, seed: int = 10**6, is_deterministic: bool = True
) -> dict[str, Any]:
    """Returns the last window's ``info`` of a run in which the agent learns nothing."""
    env = single(fields)
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
    agent = agents.make(spec, single(fields), seed=seed)
    return float(transitions_of(agent, fields["windows"])[-1].info["toy/reached_rate"])


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


@pytest.mark.parametrize(("spec", "total", "share"), IN_RUN_AGENTS)
@pytest.mark.parametrize("fields", [LOW, HIGH], ids=["best 0.2", "best 0.8"])
def test_an_agent_that_learns_within_runs_finds_the_best_ratio(
    spec: str, total: int, share: float, fields: dict[str, Any]
):
    """Two seeds each; a ratio 0.5 would reach 0.27.

    With ten seeds none was below: beta from 0.97, the bandits always at the nearest arm, 0.982. Beta needs its 2000 windows:
    after 1000, one of two seeds was at 0.93.
    """
    for seed in (0, 1):
        assert reached(spec, fields, total=total, seed=seed) > share


@pytest.mark.parametrize(("spec", "share"), POPULATION_AGENTS)
def test_an_agent_of_stable_baselines3_finds_the_best_ratio(spec: str, share: float):
    """Seed 0 of the table's ten, none of which was below: the worst are ppo 0.924, dqn 0.922, sac 0.927, tqc 0.928."""
    assert reached(spec, LOW, total=1200, seed=0) > share


def test_random_and_an_untrained_agent_do_not():
    """One run each; random: ten seeds of the table reached 0.51 to 0.65. The mean of a fresh policy is 0.5: 0.27."""
    env = single(LOW)
    info = last_info(agents.make("random", env, seed=0), LOW, is_deterministic=False)
    assert info["toy/reached_rate"] < 0.7
    assert info["toy/regret"] > 0.5
    for spec in ("beta", "ppo"):
        assert last_info(agents.make(spec, env, seed=0), LOW)["toy/reached_rate"] < 0.5


def test_regret_falls_while_an_agent_learns():
    """``toy/regret`` of the Beta controller's runs: the last three of forty lose less than a quarter of the first three."""
    seen = transitions_of(agents.make("beta", single(LOW), seed=0), 40 * FIELDS["windows"])
    regrets = [one.info["toy/regret"] for one in seen if one.truncated]
    assert len(regrets) == 40
    assert np.mean(regrets[-3:]) < 0.25 * np.mean(regrets[:3])


@pytest.mark.parametrize("name", ["beta", "thompson", "exp3s"])
def test_one_step_credit_is_tempted_where_the_discounted_one_is_not(name: str):
    """Kind "delayed": the best immediate drop is at 0.8, the optimum at 0.2. Two seeds for each credit.

    Over ten seeds thompson and exp3s ended at the arm 0.75 with one-step credit (0.40), always, and near the optimum with the
    discounted one (0.975), always. Beta's discounted credit ended above 0.92 with nine seeds of ten, and at 0.40 with one: it
    can be tempted too, so with other streams this test fails for beta about once in five times.

    UCB with one-step credit is no such proof: its bonus makes it practise the best ratio too, and the skill of earlier windows
    is then credited to whatever it pulls. In the table it reaches 0.86 on average, 0.6 with the worst seed.
    """
    for seed in (0, 1):
        assert reached(f"{name}:credit=one-step", DELAYED, total=2000, seed=seed) < 0.6
        assert reached(f"{name}:credit=discounted", DELAYED, total=2000, seed=seed) > 0.85


@pytest.mark.parametrize("name", ["ucb", "thompson"])
def test_a_bandit_that_forgets_nothing_loses_where_the_best_ratio_drifts(name: str):
    """Kind "drift", one run of 200 windows, six pairs of runs with the same seed: the discounted bandit wins them all.

    Sign test: (1/2)^6 = 0.016 if forgetting made no difference. Over thirty pairs the discounted one won all, by 0.075 (ucb;
    standard deviation 0.029) and 0.096 (thompson; 0.041).
    """
    for seed in range(6):
        stationary = reached_while_learning(name, DRIFT, seed=seed)
        assert reached_while_learning(f"{name}:discount=0.95", DRIFT, seed=seed) > stationary


@pytest.mark.parametrize("spec", ["beta:batch_size=8", "thompson", "ppo"])
def test_a_ratio_for_each_group_beats_the_best_single_ratio(spec: str):
    """Three groups whose best ratios are 0, 0.3 and 0.6; the best single ratio reaches 0.55.

    One seed each. Over eight seeds: ppo from 0.95, beta with batches of 8 from 0.98; thompson 0.97 with six, 0.86 and 0.60 with
    one each, so with other streams this test fails for thompson about once in eight times. With its default of 4 decisions
    to a batch, beta beats the single ratio too, but in about one seed of four a group is pushed to the wrong end by the
    other groups' luck and stays there (0.66).
    """
    assert 0.5 < best_fixed(GROUPS) < 0.6
    assert reached(spec, GROUPS, total=4000, seed=0) > 0.8
