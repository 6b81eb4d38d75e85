"""Learning over many runs, cut into legs: between two legs nothing is in progress, and everything can be saved.

Each leg starts new runs, with seeds that follow from the training's seed and the windows made so far, and from nothing else:
a training that goes on after an interruption starts its next leg as it would have without one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from atesd_env.files.checkpoint import Checkpoint
from atesd_env.streams import stream_seed

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


def leg_seed(seed: int, num_windows: int) -> int:
    """Returns the seed of the runs of the leg that begins after some windows, below 2^31.

    >>> leg_seed(0, 100) == leg_seed(0, 100), leg_seed(0, 100) == leg_seed(0, 200)
    (True, False)
    """
    return stream_seed(seed, "leg", num_windows) >> 1
