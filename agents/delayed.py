"""Delayed credit inside a run: decisions wait until L windows have passed, and their return (agents/credit.py) is known.

At the end of a run the last L - 1 decisions, whose measurements never come, are dropped, unless the student broke.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from agents.base import Transition
from agents.checking import config_of
from agents.credit import Credit, CreditSettings, credit_settings, decision_returns

Decision = TypeVar("Decision")
"""What is remembered of a decision until its return is known."""


class PendingDecisions(Generic[Decision]):
    """Decisions that wait for their return, in a run that is still going on; arguments and numbers of ``decision_returns``.

    Attributes:
        entries: (decision, progress, grounded) of the windows whose decision waits, oldest first; at most L - 1.
    """

    def __init__(self, *, gamma: float, lookahead: int, grounded_weight: float) -> None:
        self._settings: CreditSettings = {"gamma": gamma, "lookahead": lookahead, "grounded_weight": grounded_weight}
        self.entries: deque[tuple[Decision, float, float]] = deque()

    def add(self, decision: Decision, progress: float, grounded: float) -> list[tuple[Decision, float]]:
        """Adds a window and the decision that it was made under.

        Returns:
            The decision that is now complete, with its R: one, or none while fewer than L windows have been made.
        """
        self.entries.append((decision, progress, grounded))
        if len(self.entries) < self._settings["lookahead"]:
            return []
        (returned,) = self._returns(with_tail=False)
        return [(self.entries.popleft()[0], returned)]

    def observe(self, decision: Decision, transition: Transition) -> list[tuple[Decision, float]]:
        """Adds a window as an agent sees it, and the decision that it was made under.

        Where a student broke, nothing more would come, so the waiting decisions are credited with what did. That window may
        have no measurements; its reward, a penalty, stands for its own part of R, so that L = 1 charges it as it is.

        Returns:
            The decisions that are now complete, each with its R, oldest first.
        """
        progress, grounded = transition.info["reward/progress"], transition.info["probe/grounded"]
        if not transition.terminated:
            return self.add(decision, progress, grounded)
        grounded = grounded if grounded is not None and math.isfinite(grounded) else 0.0
        penalty = transition.reward - self._settings["grounded_weight"] * grounded
        return self.add(decision, penalty, grounded) + self.finish()

    def finish(self) -> list[tuple[Decision, float]]:
        """Ends the run: returns the waiting decisions with the R of the windows that were made (``with_tail``)."""
        if not self.entries:
            return []
        returns = self._returns(with_tail=True)
        decisions = [decision for decision, _, _ in self.entries]
        self.clear()
        return list(zip(decisions, returns, strict=True))

    def clear(self) -> None:
        """Forgets the waiting decisions: they get no credit."""
        self.entries.clear()

    def _returns(self, *, with_tail: bool) -> list[float]:
        _, progress, grounded = zip(*self.entries, strict=True)
        returns: list[float] = decision_returns(progress, grounded, with_tail=with_tail, **self._settings).tolist()
        return returns


def pending_decisions(env: gymnasium.Env[Any, Any], credit: Credit) -> PendingDecisions[Any]:
    """Returns no decisions yet, credited as an environment's configuration and a row of the ablation say.

    Raises:
        ConfigError: If there is no such row, or the environment is not one of ours.
    """
    config = config_of(env)
    return PendingDecisions(
        **credit_settings(
            credit, gamma=config.gamma, lookahead=config.lookahead, grounded_weight=config.grounded_weight
        )
    )


def decision_arrays(name: str, parts: Sequence[str], entries: Iterable[tuple[Any, ...]]) -> dict[str, NDArray[Any]]:
    """Returns decisions and the numbers that go with each, such as ``PendingDecisions.entries``, as arrays ``<name>/<part>``.

    ``parts`` names the arrays that a decision is a tuple of. Without a decision there are no arrays.
    """
    rows = list(entries)
    if not rows:
        return {}
    columns = zip(*(decision for decision, *_ in rows), strict=True)
    arrays = {f"{name}/{part}": np.stack(column) for part, column in zip(parts, columns, strict=True)}
    return {**arrays, f"{name}/numbers": np.asarray([numbers for _, *numbers in rows], dtype=np.float64)}


def decisions_of(
    name: str, parts: Sequence[str], kind: Callable[..., Decision], arrays: Mapping[str, NDArray[Any]]
) -> list[tuple[Any, ...]]:
    """Returns the entries that ``decision_arrays`` was given; ``kind`` makes a decision of its arrays."""
    if f"{name}/numbers" not in arrays:
        return []
    rows = zip(*(arrays[f"{name}/{part}"] for part in parts), strict=True)
    return [(kind(*row), *numbers) for row, numbers in zip(rows, arrays[f"{name}/numbers"].tolist(), strict=True)]
