"""Which trainer an agent gets: its spec tells whether it learns from a population or from one student after the other."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from agents.base import Agent
from atesd.experiments.baselines.registry import make as make_agent
from atesd.experiments.baselines.registry import resolve
from atesd.experiments.training.legs import Trainer
from atesd.experiments.training.own_trainer import RunAfterRun
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
    """Returns a trainer for an agent's spec.

    Args:
        env_id: Environment id.
        config: Its configuration.
        spec: The agent.
        num_envs: Students side by side; None is ``DEFAULT_NUM_ENVS``, or one for an agent that takes one.
        seed: Seed of the agent and of the legs.
        checkpoint: Where to go on; None begins.
        source: What messages call the checkpoint's file.

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
    from atesd.experiments.training.sb3_trainer import SideBySide

    env: VectorEnv[Any, Any, Any] = gymnasium.make_vec(
        env_id, num_envs=DEFAULT_NUM_ENVS if num_envs is None else num_envs, **fields
    )
    if checkpoint is not None:
        return SideBySide.restored(env, seed, checkpoint, source)
    agent = make_agent(spec, env, seed=seed)  # type: ignore[arg-type]
    if not isinstance(agent, SB3Agent):
        raise ConfigError(
            f"agent {spec!r}: expected one that learns over many runs (a class derived from agents.base.Agent, an algorithm of "
            f"Stable-Baselines3, or a saved one with learn=true), got a {type(agent).__name__}; choose another."
        )
    agent.algorithm.num_timesteps = 0  # a saved agent's windows were those of another training
    return SideBySide(agent, seed)
