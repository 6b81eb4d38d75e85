"""Training of an agent of ours in legs (atesd/experiments/training/legs.py), one student after the other."""

from __future__ import annotations

from typing import Any

import gymnasium

from agents.base import Agent
from agents.checking import CheckedEnv, agent_failures, others_failures
from agents.specs.registry import make as make_agent
from atesd.experiments.training.legs import Between, Report, leg_seed
from atesd_env.files.checkpoint import Checkpoint

_ARRAYS = "agent/"


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
                with others_failures(self.env):
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
