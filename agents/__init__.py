"""Controllers: who chooses the reveal ratios. ``make`` builds one from a spec, ``available`` lists the specs.

``Agent`` is what to derive one's own from.

Importing this package loads no controller, and neither torch nor Stable-Baselines3.
"""

from agents.base import Agent
from agents.specs.registry import available, make

__all__ = ["Agent", "available", "make"]
