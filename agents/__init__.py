"""Controllers: who chooses the reveal ratios. ``make`` builds one from a spec, ``available`` lists the specs.

Importing this package loads no controller, and neither torch nor Stable-Baselines3.
"""

from agents.specs.registry import available, make

__all__ = ["available", "make"]
