"""What controllers share that ask the environment what would be, now and then, and keep to the answer in between.

They ask through ``env.unwrapped``, which is a controller's to read: its branches (``atesd_env.envs.branch``) leave the run
bit for bit as it is. What they cost is told with each decision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from agents.base import Agent
from agents.checking import config_of
from agents.options import PassesOptionsOn, checked_count, checked_ratio
from atesd_env.errors import ConfigError


class Planner(PassesOptionsOn, Agent):
    """A controller that plans at some windows and keeps its ratios until the next; a subclass plans in ``plan``.

    It decides for the students of the environment that it was made for and no others, one or K of a vector environment.

    Args:
        env: The environment, one of ours: scalar, or a vector of students for ``predict``.
        seed: Seed of the run.
        every: Windows between two plans; 0 plans once.
        start: Windows before the first plan.
        initial_ratio: Reveal ratio of every group until then, in [0, 1].

    Attributes:
        branch_rows: Rows of the windows that the present decision tried on branches, each with ``decision``, the window decided on,
            and ``branch``, from 0 on; a recorded run keeps them (``branches.jsonl``).

    Raises:
        ConfigError: If an argument is out of range, or the environment is not one of ours.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        seed: int = 0,
        *,
        every: int = 0,
        start: int = 0,
        initial_ratio: float = 0.5,
    ) -> None:
        super().__init__(env, seed)
        self.every = checked_count("every", every, least=0)
        self.start = checked_count("start", start, least=0)
        self.initial_ratio = checked_ratio("initial_ratio", initial_ratio)
        config_of(env)  # refuses what is none of ours
        if not hasattr(env.unwrapped, "population"):
            raise ConfigError(
                f"{type(self).__name__}: expected an environment that can be asked, got a loop of one's own; take a controller that only "
                "observes (`atesd agents` lists them), or make it with the environment."
            )
        self._planned: NDArray[np.float64] | None = None
        self._costs = dict.fromkeys(self.cost_names, 0)
        self.branch_rows: list[dict[str, Any]] = []

    cost_names: tuple[str, ...] = ()
    """Names of what a plan costs, whole numbers that ``count`` adds to."""

    def plan(self, student: int, ratios: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns a student's ratios from here on, [groups]; a subclass must have this.

        Args:
            student: Which student of the environment.
            ratios: Its ratios so far, [groups]; NaN where this is its first plan.
        """
        raise NotImplementedError(
            f"{type(self).__name__}: expected a method plan(student, ratios), got none; define it."
        )

    def count(self, **costs: int) -> None:
        """Adds to what the present decision costs."""
        for name, cost in costs.items():
            self._costs[name] += cost

    def predict(
        self,
        observation: NDArray[np.float32],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.float32], Any]:
        """Returns ratios, float32 [groups] or [K, groups], and what is planned for the next call.

        The state is float64 [groups] or [K, groups], NaN where nothing is planned yet. Where it is None, or
        ``episode_start`` says so, a plan is made, from window ``start`` on.

        Raises:
            ConfigError: If the observations are not the present ones of the environment.
        """
        shape = (*np.shape(observation)[:-1], self.groups)
        observations = np.atleast_2d(np.asarray(observation, dtype=np.float32))
        planned = np.full((len(observations), self.groups), np.nan)
        if state is not None:
            planned[:] = np.reshape(state, planned.shape)
        if episode_start is not None:
            planned[np.broadcast_to(episode_start, len(planned))] = np.nan
        self._costs, self.branch_rows = dict.fromkeys(self.cost_names, 0), []
        for student in self._due(observations, planned):
            planned[student] = self.plan(student, planned[student])
        return self._shown(planned).reshape(shape), planned.reshape(shape)

    def _due(self, observations: NDArray[np.float32], planned: NDArray[np.float64]) -> list[int]:
        """Returns the students that are to be planned for now."""
        env: Any = self.env.unwrapped
        population, is_running = env.population, np.atleast_1d(env.is_running)
        seen = population.observations()
        # Wrappers may show something of another shape. But the same features with other values are another run's.
        is_other = seen.shape == observations.shape and not np.array_equal(seen[is_running], observations[is_running])
        if len(observations) != len(is_running) or is_other:
            raise ConfigError(
                f"observation: expected the present one of each of the {len(is_running)} students of the environment that "
                f"{type(self).__name__} was made for, got others, of shape {observations.shape}; it plans by asking that "
                "environment: make it with the environment that is stepped."
            )
        return [student for student in np.flatnonzero(is_running).tolist() if self._is_due(student, planned[student])]

    def _is_due(self, student: int, planned: NDArray[np.float64]) -> bool:
        since = len(self.env.unwrapped.population.runs[student].rows) - self.start  # type: ignore[attr-defined]
        return since >= 0 and bool(np.isnan(planned).any() or (self.every and since % self.every == 0))

    def begin_episode(self) -> None:
        """Forgets the plan."""
        self._planned = None

    def decide(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the next window's ratios; the plan stays in the agent, so that its file holds it."""
        action, self._planned = self.predict(observation, self._planned)
        return action

    def diagnostics(self) -> dict[str, float]:
        """Returns what the last decision cost, under ``cost_names``; 0 where nothing was asked."""
        return {name: float(cost) for name, cost in self._costs.items()}

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {} if self._planned is None else {"planned": self._planned}

    def set_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._planned = arrays.get("planned")

    def _tried(self) -> NDArray[Any]:
        # To predict would be to ask about an observation that is not there; what a file may spoil are the ratios.
        return self._shown(np.full(self.groups, np.nan) if self._planned is None else self._planned)

    def _shown(self, planned: NDArray[np.float64]) -> NDArray[np.float32]:
        """Returns the ratios of a plan: the initial one where nothing is planned."""
        return np.where(np.isnan(planned), self.initial_ratio, planned).astype(np.float32)


def checked_ratios_to_try(ratios: Sequence[float]) -> tuple[float, ...]:
    """Returns the option ``ratios`` of a controller that tries some.

    Raises:
        ConfigError: If these are not at least two different reveal ratios.
    """
    is_list = isinstance(ratios, Sequence | np.ndarray) and not isinstance(ratios, str)
    checked = tuple(checked_ratio("ratios", ratio) for ratio in ratios) if is_list else ()
    if len(set(checked)) < 2 or len(set(checked)) < len(checked):
        raise ConfigError(
            f"ratios: expected a list of at least two different reveal ratios, such as [0, 0.5, 1], got {ratios!r}; correct it."
        )
    return checked
