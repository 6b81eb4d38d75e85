"""Whose code may run when a saved agent is opened.

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
from pathlib import Path
from typing import Any

from agents.base import Agent
from atesd_env.errors import ConfigError


def saved_class(path: Path, name: str, installed: Mapping[str, Callable[[], Any]]) -> type[Agent]:
    """Returns the class that a file of ours names.

    Args:
        path: The file, for messages.
        name: The class's full name.
        installed: Classes that may be imported, beside our own: full name -> how to import it.

    Raises:
        ConfigError: If it may not be imported, or is none of an agent.
    """
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
