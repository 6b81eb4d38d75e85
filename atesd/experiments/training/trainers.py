"""Who trains an agent: its spec tells whether it learns from a population or from one student after the other."""

from __future__ import annotations

from typing import Any

import gymnasium

from agents.base import Agent
from agents.checking import CheckedEnv, agent_failures, others_failures
from atesd.experiments.baselines.registry import make as make_agent
from atesd.experiments.baselines.registry import resolve
from atesd.experiments.resuming import agent_arrays, resumed_agent
from atesd.experiments.training.legs import Between, Report, Trainer, leg_seed
from atesd_env.config import RunConfig
from atesd_env.errors import ConfigError
from atesd_env.files.checkpoint import Checkpoint

DEFAULT_NUM_ENVS = 8
"""Students side by side where nobody says how many, for an agent that learns from a population."""


def make_trainer(
    env_id: str,
    config: RunConfig,
    spec: str,
    num_envs: int | None,
    seed: int,
    checkpoint: Checkpoint | None,
    source: str,
) -> Trainer:
    """Returns a trainer for an agent's spec, at a checkpoint (whose file messages call ``source``) or, without, at the beginning.

    ``num_envs`` students stand side by side; None is ``DEFAULT_NUM_ENVS``, or one for an agent that takes one.

    Raises:
        ConfigError: If the agent cannot be trained over many runs, or not with so many students.
    """
    factory, _ = resolve(spec)
    fields = config.keywords()
    if isinstance(factory, type) and issubclass(factory, Agent):
        if num_envs not in (None, 1):
            raise ConfigError(
                f"num_envs: expected 1 for {spec}, which learns from one student after the other, got {num_envs}; leave it out."
            )
        return RunAfterRun(gymnasium.make(env_id, **fields, disable_env_checker=True), spec, seed, checkpoint)
    from agents.sb3.agent import SB3Agent  # torch, which an agent of ours may do without
    from agents.sb3.state import restored_agent
    from atesd.experiments.training.sb3_trainer import SideBySide

    env: Any = gymnasium.make_vec(env_id, num_envs=num_envs or DEFAULT_NUM_ENVS, **fields)
    agent = make_agent(spec, env, seed=seed)
    if not isinstance(agent, SB3Agent):
        raise ConfigError(
            f"agent {spec!r}: expected one that learns over many runs (a class derived from agents.base.Agent, an algorithm of "
            f"Stable-Baselines3, or a saved one with learn=true), got a {type(agent).__name__}; choose another."
        )
    if checkpoint is not None:
        return SideBySide(restored_agent(checkpoint.arrays, agent, source), seed)
    agent.algorithm.num_timesteps = 0  # a saved agent's windows were those of another training
    return SideBySide(agent, seed)


class RunAfterRun:
    """An agent of ours, which learns from one student after the other. A leg ends with the first run that fills it."""

    suffix = ".safetensors"

    def __init__(self, env: gymnasium.Env[Any, Any], spec: str, seed: int, checkpoint: Checkpoint | None) -> None:
        self.env = CheckedEnv(env, spec)
        self.seed = seed
        with agent_failures(self.env):
            self.agent: Agent = make_agent(spec, _DrawnSeeds(self.env), seed=seed)
        if checkpoint is not None:
            self.agent = resumed_agent(self.agent, checkpoint, self.agent.env)

    @property
    def num_windows(self) -> int:
        return self.agent.num_timesteps

    def learn(self, total: int, leg: int, between: Between, report: Report, *, goes_on: bool) -> None:
        """Learns until ``total`` windows are made, and to the end of the run that this falls into."""
        if not goes_on:
            between()
        while self.num_windows < total:
            self.env.reset(seed=leg_seed(self.seed, self.num_windows))
            self.env.num_windows = self.num_windows  # those of evaluations do not count
            end = min(total, self.num_windows + leg)

            def is_not_over(names: dict[str, Any], _: dict[str, Any], end: int = end) -> bool:
                with others_failures(self.env):
                    report(self.num_windows)
                return not (names["dones"][0] and self.num_windows >= end)

            windows = self.env.unwrapped.config.windows  # type: ignore[attr-defined]
            with agent_failures(self.env):
                self.agent.learn(end - self.num_windows + windows, is_not_over, reset_num_timesteps=False)
            between()

    def checkpoint(self) -> Checkpoint:
        """Returns the agent's state."""
        arrays, description = agent_arrays(self.agent)
        return Checkpoint(arrays, {"agent": description})


class _DrawnSeeds(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Lets every run have a seed that the environment draws; the leg has seeded that."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return super().reset(seed=None, options=options)
