"""Evaluations: one run for each seed, in which an agent decides without randomness and learns nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from agents.base import AgentProtocol
from agents.checking import CheckedEnv, check_decisions, check_observation, check_reward

_Values = Sequence[Any] | NDArray[Any]


@dataclass(frozen=True)
class EvaluatedRun:
    """What came of one run.

    Attributes:
        seed: Its seed.
        total_reward: Sum of its rewards, undiscounted.
        probe_nll: Last measured probe NLL, nats a token; NaN if there was none.
        reveal_ratio: Mean reveal ratio over groups and windows.
        windows: Windows made.
        is_broken: Whether the student broke.
    """

    seed: int
    total_reward: float
    probe_nll: float
    reveal_ratio: float
    windows: int
    is_broken: bool


def evaluate(
    agent: AgentProtocol, env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any], seeds: Sequence[int]
) -> list[EvaluatedRun]:
    """Returns a run for each seed, decided by ``predict(..., deterministic=True)``.

    Args:
        agent: The agent. Its ``predict`` must leave it unchanged.
        env: The environment; a run that it is in is given up. K students of a vector environment take K seeds at a time
            (the last few places may stay without use).
        seeds: Seeds of the runs.

    Raises:
        AgentError: If a decision is not one finite ratio in [0, 1] for each group.
        NonFiniteError: If an observation or a reward is not finite.
    """
    if not isinstance(env, VectorEnv):
        return [_single(agent, CheckedEnv(env, type(agent).__name__), seed) for seed in seeds]
    runs: list[EvaluatedRun] = []
    for start in range(0, len(seeds), env.num_envs):
        runs += _population(agent, env, seeds[start : start + env.num_envs])
    return runs


def _single(agent: AgentProtocol, env: gymnasium.Env[Any, Any], seed: int) -> EvaluatedRun:
    record = _Record(1)
    observation, info = env.reset(seed=seed)
    record.nll[0] = info.get("probe/nll", np.nan)
    state = None
    while record.is_running[0]:
        is_start = record.windows == 0
        action, state = agent.predict(observation, state, is_start, deterministic=True)
        observation, reward, terminated, truncated, info = env.step(action)
        record.add([action], [reward], [terminated], [truncated], [info.get("probe/nll")])
    return record.run(0, seed)


def _population(agent: AgentProtocol, env: Any, seeds: Sequence[int]) -> list[EvaluatedRun]:
    record = _Record(env.num_envs)
    record.is_running[len(seeds) :] = False
    # Places without a seed of their own repeat the last one; nobody looks at them.
    observations, infos = env.reset(seed=[*seeds, *[seeds[-1]] * (env.num_envs - len(seeds))])
    names = getattr(env.unwrapped, "feature_names", ())
    check_observation(observations, env.observation_space.shape, "after reset", names)
    record.nll[:] = infos.get("probe/nll", np.nan)
    state = None
    while record.is_running.any():
        # Ended students may start anew meanwhile; their windows are not looked at either.
        actions, state = agent.predict(observations, state, record.windows == 0, deterministic=True)
        window = int(record.windows.max()) + 1
        check_decisions(actions, env.single_action_space.shape[0], type(agent).__name__, f"window {window}")
        observations, rewards, terminations, truncations, infos = env.step(actions)
        check_observation(observations, env.observation_space.shape, f"after window {window}", names)
        check_reward(rewards, f"of window {window}")
        nll = (
            np.where(infos["_probe/nll"], infos["probe/nll"], np.nan) if "probe/nll" in infos else [None] * env.num_envs
        )
        record.add(actions, rewards, terminations, truncations, nll)
    return [record.run(index, seed) for index, seed in enumerate(seeds)]


class _Record:
    """Sums over the runs of K students side by side."""

    def __init__(self, num_students: int) -> None:
        self.is_running = np.ones(num_students, dtype=np.bool_)
        self.is_broken = np.zeros(num_students, dtype=np.bool_)
        self.rewards = np.zeros(num_students)
        self.ratios = np.zeros(num_students)
        self.nll = np.full(num_students, np.nan)
        self.windows = np.zeros(num_students, dtype=np.int64)

    def add(
        self, actions: _Values, rewards: _Values, terminations: _Values, truncations: _Values, nll: _Values
    ) -> None:
        """Adds a window of those that are running: actions [K, groups], everything else [K]; no NLL is None or NaN."""
        going = self.is_running
        self.rewards[going] += np.asarray(rewards)[going]
        self.ratios[going] += np.asarray(actions).mean(axis=-1)[going]
        self.windows[going] += 1
        self.is_broken[going] = np.asarray(terminations)[going]
        measured = np.asarray(nll, dtype=np.float64)
        is_measured = going & np.isfinite(measured)
        self.nll[is_measured] = measured[is_measured]
        self.is_running = going & ~np.logical_or(terminations, truncations)

    def run(self, index: int, seed: int) -> EvaluatedRun:
        num_windows = int(self.windows[index])
        return EvaluatedRun(
            seed=seed,
            total_reward=float(self.rewards[index]),
            probe_nll=float(self.nll[index]),
            reveal_ratio=float(self.ratios[index]) / num_windows,
            windows=num_windows,
            is_broken=bool(self.is_broken[index]),
        )
