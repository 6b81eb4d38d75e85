"""Training of a Stable-Baselines3 agent on a population, in legs (atesd/experiments/training/legs.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from agents.checking import agent_failures, others_failures
from agents.sb3.agent import SB3Agent
from agents.sb3.state import state_arrays
from atesd.experiments.training.legs import Between, Report, leg_seed
from atesd_env.files.checkpoint import Checkpoint


class SideBySide:
    """An algorithm that learns from K students side by side.

    A leg ends with the first stretch between two updates that fills it. Students that are in the middle of a run then give it
    up; with PPO's defaults none is, unless one broke.
    """

    suffix = ".zip"

    def __init__(self, agent: SB3Agent, seed: int) -> None:
        self.agent = agent
        self.env: Any = agent.env
        self.seed = seed

    @property
    def num_windows(self) -> int:
        return self.agent.num_timesteps

    def learn(self, total: int, leg: int, between: Between, report: Report, *, goes_on: bool) -> None:
        """Learns until ``total`` windows are made.

        All legs are one call of the algorithm's ``learn``, so that its schedules (DQN's exploration, say) run over the whole
        training.
        """
        if self.num_windows >= total:
            if not goes_on:
                between()
            return
        legs = _Legs(self, leg, between, report, is_first_announced=goes_on)
        self.agent.vec_env.num_windows = self.num_windows
        with agent_failures(self.agent.vec_env):
            self.agent.learn(total - self.num_windows, legs, reset_num_timesteps=False)
        between()

    def checkpoint(self) -> Checkpoint:
        """Returns the agent's state: weights, optimizers, counters, replay buffer and random generators."""
        return Checkpoint(state_arrays(self.agent), {})

    def start_runs(self) -> None:
        """Starts new runs of all students, with the seeds of the leg that begins here."""
        self.agent.vec_env.seed(leg_seed(self.seed, self.num_windows))
        algorithm = self.agent.algorithm
        algorithm._last_obs = self.agent.vec_env.reset()
        algorithm._last_episode_starts = np.ones(self.agent.vec_env.num_envs, dtype=bool)


class _Legs(BaseCallback):
    """Ends a leg before the next stretch of windows, when the algorithm has learned from all that were made."""

    def __init__(
        self, trainer: SideBySide, leg: int, between: Between, report: Report, *, is_first_announced: bool
    ) -> None:
        super().__init__()
        self._trainer = trainer
        self._leg = leg
        self._between = between
        self._report = report
        self._is_announced = is_first_announced
        self._next = trainer.num_windows

    def _on_rollout_start(self) -> None:
        if self._trainer.num_windows < self._next:
            return
        if not self._is_announced:
            with others_failures(self._trainer.agent.vec_env):
                self._between()
        self._is_announced = False
        self._trainer.start_runs()
        self._next = self._trainer.num_windows + self._leg

    def _on_step(self) -> bool:
        with others_failures(self._trainer.agent.vec_env):
            self._report(self._trainer.num_windows)
        return True
