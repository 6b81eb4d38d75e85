"""An agent that only decides: what it knows stays as it is."""

from __future__ import annotations

from typing import Any

from agents.base import AgentProtocol


class Frozen:
    """An agent that only decides: what it knows stays as it is.

    Args:
        agent: The agent.
        deterministic: Leave the randomness of its decisions out.
    """

    def __init__(self, agent: AgentProtocol, *, deterministic: bool = True) -> None:
        self.agent = agent
        self.deterministic = deterministic

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Returns the agent's (reveal ratios, next state)."""
        return self.agent.predict(observation, state, episode_start, deterministic=deterministic or self.deterministic)
