"""Going on with an agent that cannot tell its state: it lives through the recorded windows again, without their cost.

What costs time in a run are the student's windows; an agent's own share is small. So a run of an agent that has no state of
ours (Stable-Baselines3's, a class with ``predict`` alone, one whose ``predict`` passes a state on) keeps what the agent was
shown, and a resumed run shows it again to a new agent with the same seed. It decides and learns as before, window by window,
and meets the student where the checkpoint left it. Nothing is pickled, and every decision is compared with the recorded one:
an agent that decides otherwise the second time is found out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from atesd_env.errors import AgentError
from atesd_env.files.reading import reading

_PREFIX = "replay/"


class ReplayedEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Keeps what the first episode shows an agent, and shows it again in a resumed run.

    Args:
        env: The environment; in a resumed run it stands after the last recorded window.
        agent_name: What messages call the agent.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], agent_name: str) -> None:
        super().__init__(env)
        self._agent_name = agent_name
        self._observations: list[NDArray[Any]] = []  # of the reset and of each window: [num_features]
        self._rewards: list[float] = []
        self._actions: list[NDArray[Any]] = []
        self._infos: Sequence[dict[str, Any]] = ()
        self._source: object = "checkpoint"
        self._position: int | None = None  # the next window to be shown again; None where everything is new

    @property
    def is_replaying(self) -> bool:
        """Whether recorded windows are still to be shown."""
        return self._position is not None

    @property
    def is_whole(self) -> bool:
        """Whether everything since the run's reset was shown through here: an agent that came with its own state saw the rest."""
        return len(self._observations) == len(self._actions) + 1

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Returns what was shown and decided, for a checkpoint: W windows, observations [W + 1, num_features]."""
        return {
            f"{_PREFIX}observations": np.stack(self._observations),
            f"{_PREFIX}rewards": np.asarray(self._rewards, dtype=np.float64),
            f"{_PREFIX}actions": np.stack(self._actions),
        }

    def replay(
        self, arrays: Mapping[str, NDArray[Any]], infos: Sequence[dict[str, Any]], source: object = "checkpoint"
    ) -> None:
        """Shows recorded windows before new ones are made.

        Args:
            arrays: What ``arrays`` returned; others are ignored.
            infos: What stands for the windows' ``info``: their rows, W of them.
            source: Whose arrays they are, for messages.

        Raises:
            RunFilesError: If the arrays are others, or of another number of windows.
        """
        with reading(source, "what an agent was shown", remedy="begin anew (--overwrite)"):
            observations, actions = list(arrays[f"{_PREFIX}observations"]), list(arrays[f"{_PREFIX}actions"])
            rewards = arrays[f"{_PREFIX}rewards"].tolist()
            lengths = len(observations) - 1, len(rewards), len(actions)
            if not all(np.isfinite(part).all() for part in (*observations, *actions, rewards)):
                raise ValueError("numbers that are not finite")
            if set(lengths) != {len(infos)} or not infos or observations[0].shape != self.observation_space.shape:
                raise ValueError(f"observations, rewards and decisions of {lengths} windows, for {len(infos)} rows")
        self._observations, self._rewards, self._actions, self._infos = observations, rewards, actions, infos
        self._source, self._position = source, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the environment, or shows the recorded first observation again."""
        if self._position == 0:
            return self._observations[0].copy(), {}
        observation, info = super().reset(seed=seed, options=options)
        if not self._actions:
            self._observations = [np.array(observation)]
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Makes a window, or shows a recorded one again.

        Raises:
            AgentError: If the agent decides otherwise than it did in the recorded window.
        """
        if self._position is not None:
            return self._shown_again(np.asarray(action))
        observation, reward, terminated, truncated, info = super().step(action)
        self._observations.append(np.array(observation))
        self._rewards.append(float(reward))
        self._actions.append(np.array(action))
        return observation, reward, terminated, truncated, info

    def _shown_again(self, action: NDArray[Any]) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        assert self._position is not None
        window = self._position
        if not np.array_equal(action, self._actions[window]):
            raise AgentError(
                f"agent {self._agent_name!r}, window {window + 1}: expected {self._actions[window].tolist()}, which it decided before, as "
                f"{self._source} has it (to go on, it is shown the recorded windows again), got {action.tolist()}. Make its decisions "
                "follow from its seed and what it sees, with the same versions of libraries; or pass --overwrite to begin anew."
            )
        self._position = window + 1 if window + 1 < len(self._actions) else None
        return self._observations[window + 1].copy(), self._rewards[window], False, False, dict(self._infos[window])
