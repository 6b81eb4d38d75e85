"""What all bandits share: the grid of arms, the delayed credit, the history of credited pulls, and the file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import gymnasium
import numpy as np
from numpy.typing import NDArray

from agents.bandits.rules import arm_sums, recency_weights, standard_scores
from agents.base import Agent, Transition
from agents.credit import Credit, PendingDecisions, decision_arrays, decisions_of, pending_decisions
from agents.options import PassesOptionsOn, checked_count, checked_number
from atesd_env.errors import ConfigError

GRID_SIZE = 5
"""Arms of the default grid: 0, 0.25, 0.5, 0.75, 1, the paper's fixed sweep."""
MAX_MEMORY = 10_000
"""Credited pulls that are remembered at most, also by a bandit that forgets nothing."""

_PARTS = ("arms", "contexts")  # names of a pull's arrays in files


class Pull(NamedTuple):
    """A decision.

    Attributes:
        arms: The arm of each group, int64 [groups].
        context: What else the rule needs of the moment of the decision, float64 [c].
    """

    arms: NDArray[np.int64]
    context: NDArray[np.float64]


class GridBandit(PassesOptionsOn, Agent):
    """A bandit on a grid of reveal ratios; a subclass says which arms it prefers.

    Args:
        env: An environment of ours (its configuration is read from ``env.unwrapped.config``).
        seed: Seed of the decisions and the run.
        grid: The reveal ratios to choose from, rising, in [0, 1]; None takes an even grid.
        grid_size: Ratios of an even grid from 0 to 1, at least 2; None is ``GRID_SIZE``.
        credit: What a decision is credited with (``credit_settings``).
        scale_window: Newest returns that the scores' median and deviation are of, at least 2 (``standard_scores``).

    Attributes:
        grid: The ratios, float64 [A].
        history: The credited pulls, oldest first: "arms" [n, groups], "returns" [n], "contexts" [n, c]; a subclass with
            contexts says how long they are.

    Raises:
        ConfigError: If an argument is out of range, or the environment is not one of ours.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        seed: int = 0,
        *,
        grid: Sequence[float] | None = None,
        grid_size: int | None = None,
        credit: Credit = "grounded",
        scale_window: int = 20,
    ) -> None:
        super().__init__(env, seed)
        self.grid = _checked_grid(grid, grid_size)
        self.credit = credit
        self.scale_window = checked_count("scale_window", scale_window, least=2)
        self._pending: PendingDecisions[Pull] = pending_decisions(env, credit)
        self.history: dict[str, NDArray[Any]] = {
            "arms": np.zeros((0, self.groups), dtype=np.int64),
            "returns": np.zeros(0),
            "contexts": np.zeros((0, 0)),
        }
        self._last_pull: Pull | None = None

    def preferences(self, observation: NDArray[np.float64], group: int, *, deterministic: bool) -> NDArray[np.float64]:
        """Returns a number for each arm, [A]: the arm with the highest is pulled. A subclass must have this.

        Args:
            observation: [num_features].
            group: The group that the decision is for.
            deterministic: Prefer what is best by what is known, without exploring.
        """
        raise NotImplementedError(
            f"{type(self).__name__}: expected a method preferences(observation, group, deterministic=), got none; define it."
        )

    def context(self, observation: NDArray[np.float64], arms: NDArray[np.int64]) -> NDArray[np.float64]:
        """Hook: returns what a pull must remember of its moment, [c]."""
        return np.zeros(0)

    def learn_from(self, pull: Pull) -> None:
        """Hook: learns from a pull that was just credited, the newest of ``history``."""

    def predict(
        self,
        observation: NDArray[np.float32],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.float32], Any]:
        """Returns ratios of the grid, float32 [groups] or [n, groups]; those of the greedy arms if deterministic."""
        observations = np.atleast_2d(np.asarray(observation, dtype=np.float64))
        arms = np.stack([self._arms(one, deterministic=deterministic) for one in observations])
        return self.grid[arms].astype(np.float32).reshape(*np.shape(observation)[:-1], self.groups), state

    def decide(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the next window's ratios, and remembers the pull."""
        observed = np.asarray(observation, dtype=np.float64)
        arms = self._arms(observed, deterministic=False)
        self._last_pull = Pull(arms, self.context(observed, arms))
        return self.grid[arms].astype(np.float32)

    def begin_episode(self) -> None:
        """Drops the pulls of the episode before whose returns never became known; what was credited stays."""
        self._pending.clear()

    def observe(self, transition: Transition) -> None:
        """Credits the pulls whose return is now known."""
        for pull, returned in self._pending.observe(cast(Pull, self._last_pull), transition):
            newest = {"arms": pull.arms, "returns": np.asarray(returned), "contexts": pull.context}
            self.history = {
                name: np.concatenate([column, newest[name][None]])[-MAX_MEMORY:]
                for name, column in self.history.items()
            }
            self.learn_from(pull)

    def scores(self) -> NDArray[np.float64]:
        """Returns the history's returns as scores, [n]."""
        return standard_scores(self.history["returns"], scale_window=self.scale_window)

    def weights(self) -> NDArray[np.float64]:
        """Returns how much each entry of the history counts, [n]: all the same, unless a subclass forgets."""
        return np.ones(len(self.history["returns"]))

    def sums(self, group: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns the weighted pulls and the weighted sum of scores of each arm, [A] each."""
        return arm_sums(self.history["arms"][:, group], self.scores(), self.weights(), num_arms=len(self.grid))

    def pending_pulls(self, group: int) -> list[tuple[int, NDArray[np.float64]]]:
        """Returns arm and context of the pulls that wait for their return, oldest first."""
        return [(int(pull.arms[group]), pull.context) for pull, *_ in self._pending.entries]

    def shares(self, group: int) -> NDArray[np.float64]:
        """Returns how the pulls that count are spread over the arms, [A], sum 1; evenly before any is credited."""
        counts, _ = self.sums(group)
        return counts / counts.sum() if len(self.history["returns"]) else np.full_like(counts, 1.0 / len(counts))

    def _arms(self, observation: NDArray[np.float64], *, deterministic: bool) -> NDArray[np.int64]:
        """Returns each group's preferred arm, [groups]; among equals a random one, or the lowest if deterministic."""
        arms = []
        for group in range(self.groups):
            preferred = self.preferences(observation, group, deterministic=deterministic)
            equals = np.flatnonzero(preferred == preferred.max())
            # Random: in one order, the groups' bandits would try their arms in step, and no credit could tell them apart.
            arms.append(equals[0] if deterministic or len(equals) == 1 else self.rng.choice(equals))
        return np.asarray(arms, dtype=np.int64)

    def diagnostics(self) -> dict[str, float]:
        """Returns numbers about the last decision and what is known; nothing before the first decision.

        ``arm`` is the arm that was pulled, ``count_<arm>`` the credited pulls that count, ``entropy`` that of ``shares``
        in nats; with several groups these end with the group's number: ``arm_0``, ``count_2_0``, ``entropy_0``.
        ``pending`` pulls wait for their return, ``num_credited`` are remembered, and ``last_credit`` is the return that
        became known last (0 before any).
        """
        if self._last_pull is None:
            return {}
        numbers: dict[str, float] = {}
        for group in range(self.groups):
            suffix = f"_{group}" if self.groups > 1 else ""
            counts, shares = self.sums(group)[0].tolist(), self.shares(group).tolist()
            numbers[f"arm{suffix}"] = float(self._last_pull.arms[group])
            numbers |= {f"count_{arm}{suffix}": count for arm, count in enumerate(counts)}
            numbers[f"entropy{suffix}"] = -sum(share * math.log(share) for share in shares if share > 0.0)
        returns = self.history["returns"].tolist()
        return {
            **numbers,
            "pending": float(len(self._pending.entries)),
            "num_credited": float(len(returns)),
            "last_credit": returns[-1] if returns else 0.0,
        }

    def options(self) -> dict[str, Any]:
        return {**super().options(), "grid": self.grid.tolist()}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Returns the history, and the pulls that wait for their return."""
        history = {f"history/{name}": column for name, column in self.history.items()}
        return {**history, **decision_arrays("pending", _PARTS, self._pending.entries)}

    def set_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        history = {name: arrays[f"history/{name}"] for name in self.history}
        pending = decisions_of("pending", _PARTS, Pull, arrays)
        pulls = [*history["arms"], *(pull.arms for pull, *_ in pending)]
        shapes = {name: (len(history["returns"]), *column.shape[1:]) for name, column in self.history.items()}
        if (
            any(history[name].shape != shape for name, shape in shapes.items())
            or any(
                np.shape(pull) != shapes[name][1:]
                for row, *_ in pending
                for name, pull in zip(_PARTS, row, strict=True)
            )
            or not all(
                np.isfinite(array).all() for name, array in arrays.items() if name.startswith(("history/", "pending/"))
            )
            or any(not 0 <= arm < len(self.grid) for arms in pulls for arm in arms)
        ):
            raise ValueError("a history or waiting pulls that such an agent has not")
        self.history = history
        self._pending.clear()
        self._pending.entries.extend(pending)


class ForgettingBandit(GridBandit):
    """A bandit on a grid that may forget what was credited long ago.

    Args:
        env: The environment.
        seed: Seed of the decisions and the run.
        discount: Weight of a credited pull relative to the next one's, in (0, 1]; 1 forgets nothing.
        window: Newest credited pulls that count; None is all.
        **options: Those of ``GridBandit``.

    Raises:
        ConfigError: If an argument is out of range, or the environment is not one of ours.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        seed: int = 0,
        *,
        discount: float = 1.0,
        window: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(env, seed, **options)
        self.discount = checked_number("discount", discount, above=0.0, most=1.0)
        self.window = None if window is None else checked_count("window", window, least=1)

    def weights(self) -> NDArray[np.float64]:
        """Returns what discount and window leave of each entry of the history, [n]."""
        return recency_weights(len(self.history["returns"]), discount=self.discount, window=self.window)


def _checked_grid(grid: Sequence[float] | None, grid_size: int | None) -> NDArray[np.float64]:
    """Returns the ratios, float64 [A]."""
    if grid is None:
        return np.linspace(0.0, 1.0, GRID_SIZE if grid_size is None else checked_count("grid_size", grid_size, least=2))
    if grid_size is not None:
        raise ConfigError(
            f"grid: expected either grid or grid_size, got both ({grid!r} and {grid_size!r}); leave one out."
        )
    is_list = isinstance(grid, Sequence | np.ndarray) and not isinstance(grid, str)
    are_ratios = is_list and all(isinstance(ratio, int | float | np.number) and 0.0 <= ratio <= 1.0 for ratio in grid)
    if not are_ratios or len(grid) < 2 or not all(np.diff(np.asarray(grid, dtype=np.float64)) > 0.0):
        raise ConfigError(
            f"grid: expected at least two reveal ratios in [0, 1], rising, such as [0, 0.5, 1], got {grid!r}; "
            "correct the list."
        )
    return np.array(grid, dtype=np.float64)
