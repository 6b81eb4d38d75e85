"""Saved agents: a file becomes an agent again (whose code may run on the way: `trust`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium

from agents.base import Agent, AgentProtocol
from agents.files import read_agent_file
from agents.specs.trust import saved_class
from atesd_env.errors import ConfigError

SUFFIXES = (".safetensors", ".zip")
"""Endings of the files of saved agents: ours, and Stable-Baselines3's."""


@dataclass(eq=False)
class Frozen:
    """An agent that only decides: what it knows stays as it is.

    Attributes:
        agent: The agent.
        deterministic: Leave the randomness of its decisions out.
    """

    agent: AgentProtocol
    deterministic: bool = True

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Returns the agent's (reveal ratios, next state)."""
        return self.agent.predict(observation, state, episode_start, deterministic=deterministic or self.deterministic)


def load_own(
    path: Path,
    env: gymnasium.Env[Any, Any],
    seed: int = 0,
    *,
    agent_class: type[Agent] | None = None,
    installed: Mapping[str, Callable[[], Any]] | None = None,
) -> Agent:
    """Returns the agent of a file of ours, ready for a new run: it keeps what it has learned.

    Args:
        path: A file that ``Agent.save`` wrote.
        env: The environment to decide in.
        seed: Seed of the new run and of the agent's decisions in it. (To go on inside the saved agent's run, use its
            class's ``load``.)
        agent_class: Its class; None finds it (`trust.saved_class`).
        installed: Classes that may be imported, beside our own: full name -> how to import it.

    Raises:
        RunFilesError: If the file is missing, cut off or damaged.
        ConfigError: If its class may not be imported, or it was saved for other spaces.
    """
    if agent_class is not None and not (isinstance(agent_class, type) and issubclass(agent_class, Agent)):
        raise ConfigError(
            f"agent_class: expected a class that derives from agents.base.Agent, got {agent_class!r}; "
            "name the class that saved the agent."
        )
    arrays, description = read_agent_file(path)
    if agent_class is not None and description.get("class") == f"__main__.{agent_class.__qualname__}":
        # A script calls its own classes so; whoever loads its file can only name them by their module.
        description["class"] = f"{agent_class.__module__}.{agent_class.__qualname__}"
    kind = agent_class or saved_class(path, str(description.get("class")), installed or {})
    agent = kind.from_state(arrays, description, env, source=str(path))
    agent.reseed(seed)
    return agent
