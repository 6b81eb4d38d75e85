"""A controller in a training loop of one's own: it is asked for ratios and told what came of them; no environment steps."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from agents.base import Agent, Transition
from atesd_env.config import RunConfig
from atesd_env.envs.actions import checked_ratios
from atesd_env.envs.observation import observation_bounds
from atesd_env.envs.own_loop import LoopStatistics
from atesd_env.errors import ConfigError


class NoEnvironment(gymnasium.Env[Any, Any]):
    """The spaces of an environment, and nothing behind them: what a controller without one is made in.

    Args:
        space: Actions, ``Box(0, 1, (groups,))``.
        config: What agents read of an environment: windows, and how it pays.
    """

    def __init__(self, space: spaces.Box[Any], config: RunConfig) -> None:
        self.action_space = space
        self.config = config
        self.observation_space = spaces.Box(*observation_bounds(), dtype=np.float32)

    def reset(self, **_: Any) -> Any:
        """Refuses."""
        raise ConfigError(
            "controller: expected one that decides from statistics, got one that steps an environment itself (a search, or "
            "Stable-Baselines3's learning); choose another, or let it play in an environment."
        )

    def step(self, action: Any) -> Any:
        """Refuses."""
        return self.reset()


class OwnLoop:
    """A controller that a loop of one's own asks and tells, turn by turn.

    Args:
        agent: Made in ``NoEnvironment``.
        groups: Reveal ratios of a decision.

    Attributes:
        agent: The controller.
    """

    def __init__(self, agent: Any, groups: int) -> None:
        self.agent = agent
        self._asked: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        self._state: Any = None
        self._groups = groups

    def decide(self, statistics: LoopStatistics) -> NDArray[np.float64]:
        """Returns the next window's reveal ratios, [groups] in [0, 1].

        Raises:
            ConfigError: If the controller needs an environment, or decides something else.
        """
        seen, is_first = statistics.observation, statistics.row is None
        if isinstance(self.agent, Agent):
            if is_first:
                self.agent.begin_episode()
            action = self.agent.decide(seen)
        else:
            action, self._state = self.agent.predict(seen, self._state, np.asarray([is_first]), deterministic=False)
        ratios = checked_ratios(action, self._groups)
        self._asked = seen, np.asarray(action, dtype=np.float32)
        return ratios

    def observe(self, statistics: LoopStatistics) -> None:
        """Lets the controller learn from the window that it decided on.

        Args:
            statistics: Those after the window (``LoopStatistics.after``).

        Raises:
            ConfigError: If no decision came before.
        """
        if self._asked is None:
            raise ConfigError(
                "observe: expected a decision before it, got none; call decide first, once for each window."
            )
        (seen, action), self._asked = self._asked, None
        if isinstance(self.agent, Agent):
            info = dict(statistics.row or {})
            reward, is_last = statistics.reward, statistics.is_last
            self.agent.observe(Transition(seen, action, reward, statistics.observation, False, is_last, info))

    def diagnostics(self) -> dict[str, float]:
        """Returns numbers about the last decision, where the controller tells any."""
        return self.agent.diagnostics() if hasattr(self.agent, "diagnostics") else {}
