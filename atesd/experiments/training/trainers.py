"""Learning over many runs, cut into legs: between two legs nothing is in progress, and everything can be saved.

Each leg starts new runs, with seeds that follow from the training's seed and the windows made so far, and from nothing else:
a training that goes on after an interruption starts its next leg as it would have without one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import gymnasium
from gymnasium.vector import VectorEnv

from agents.base import Agent
from agents.checking import CheckedEnv, agent_failures, callers_failures
from agents.specs.registry import make as make_agent
from agents.specs.registry import resolve
from atesd_env.config import RunConfig
from atesd_env.errors import ConfigError
from atesd_env.files.checkpoint import Checkpoint
from atesd_env.streams import stream_seed

DEFAULT_NUM_ENVS = 8
"""Students side by side where nobody says how many, for an agent that learns from a population."""

_ARRAYS = "agent/"

Between = Callable[[], None]
"""Called between two legs: first before any, unless the training goes on there, and last after all."""
Report = Callable[[int], None]
"""Called with the windows made so far, over all students."""


class Trainer(Protocol):
    """An agent and its environment.

    Attributes:
        agent: The agent.
        env: The environment, which may be used between legs.
        suffix: Of the agent's files.
    """

    agent: Any
    env: Any
    suffix: str

    @property
    def num_windows(self) -> int:
        """Windows made, over all students."""
        ...

    def learn(self, total: int, leg: int, between: Between, report: Report, *, goes_on: bool) -> None:
        """Learns until ``total`` windows are made, in legs of about ``leg``."""
        ...

    def checkpoint(self) -> Checkpoint:
        """Returns everything that the next leg depends on; only between legs."""
        ...


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
    from agents.sb3.agent import SB3Agent
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


def leg_seed(seed: int, num_windows: int) -> int:
    """Returns the seed of the runs of the leg that begins after some windows, below 2^31.

    >>> leg_seed(0, 100) == leg_seed(0, 100), leg_seed(0, 100) == leg_seed(0, 200)
    (True, False)
    """
    return stream_seed(seed, "leg", num_windows) >> 1


class RunAfterRun:
    """An agent of ours, which learns from one student after the other. A leg ends with the first run that fills it.

    Args:
        env: A scalar environment.
        spec: The agent's spec.
        seed: Its seed.
        checkpoint: Where to go on.
    """

    suffix = ".safetensors"

    def __init__(self, env: gymnasium.Env[Any, Any], spec: str, seed: int, checkpoint: Checkpoint | None) -> None:
        self.env = CheckedEnv(env, spec)
        self.seed = seed
        with agent_failures(self.env):
            self.agent: Agent = make_agent(spec, _DrawnSeeds(self.env), seed=seed)
        if checkpoint is not None:
            arrays = {name.removeprefix(_ARRAYS): array for name, array in checkpoint.arrays.items()}
            self.agent = type(self.agent).from_state(arrays, checkpoint.description["agent"], self.agent.env)

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
                with callers_failures(self.env):
                    report(self.num_windows)
                return not (names["dones"][0] and self.num_windows >= end)

            windows = self.env.unwrapped.config.windows  # type: ignore[attr-defined]
            with agent_failures(self.env):
                self.agent.learn(end - self.num_windows + windows, is_not_over, reset_num_timesteps=False)
            between()

    def checkpoint(self) -> Checkpoint:
        """Returns the agent's state."""
        arrays, description = self.agent.state()
        return Checkpoint({f"{_ARRAYS}{name}": array for name, array in arrays.items()}, {"agent": description})


class _DrawnSeeds(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Lets every run have a seed that the environment draws; the leg has seeded that."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return super().reset(seed=None, options=options)
