"""Saved agents: a file becomes an agent again, and whose code may run on the way.

Our own files are safetensors with JSON in the metadata: reading one runs nothing. But the metadata names the agent's
class, and importing a module runs it, so a file from a stranger must not choose what is imported. The rule: the class is

- the one that the caller names (``agent_class``), or
- one of our own package ``agents``, or
- the target of an entry point in the group ``atesd.agents``, which an installed package declares, or
- in a module that the program has imported already;

and it derives from ``agents.base.Agent``. Anything else is refused, with a message that says how to name it.
Stable-Baselines3's zip files are pickles inside: loading one can run any code, so it is refused unless ``trust=true`` is said.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium

from agents.base import Agent, AgentProtocol
from agents.files import read_agent_file
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
        agent_class: Its class; None finds it by the rule above.
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
    kind = agent_class or _saved_class(path, str(description.get("class")), installed or {})
    agent = kind.from_state(arrays, description, env, source=str(path))
    agent.reseed(seed)
    return agent


def _saved_class(path: Path, name: str, installed: Mapping[str, Callable[[], Any]]) -> type[Agent]:
    module_name, _, attribute = name.rpartition(".")
    found = getattr(sys.modules.get(module_name), attribute, None)
    if found is not None:
        pass
    elif name in installed:
        found = installed[name]()
    elif name.startswith("agents."):
        try:
            found = getattr(importlib.import_module(module_name), attribute, None)
        except ModuleNotFoundError:
            found = None
    else:
        raise ConfigError(
            f"{path}: expected an agent of our own or of an installed package, got the class {name}, which is not imported "
            f"because a file says so; if you trust it, name it: {path}:agent_class={module_name}:{attribute}"
        )
    if not (isinstance(found, type) and issubclass(found, Agent)):
        raise ConfigError(
            f"{path}: expected a class that derives from agents.base.Agent, got {name}; check versions, or load the file "
            "with the class that saved it."
        )
    return found
