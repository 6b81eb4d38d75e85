"""A controller that holds the teacher-student mismatch at a set point, by integral control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from agents.base import Agent
from agents.options import checked_limits, checked_number
from atesd_env.envs.observation import FEATURE_NAMES

_MISMATCH = FEATURE_NAMES.index("mismatch_ema")
_LARGEST_SQUASHED = 1.0 - 1e-6  # beyond it x / (1 + x) has no usable inverse


def next_ratio(
    ratio: NDArray[np.float64],
    mismatch: NDArray[np.float64],
    set_point: NDArray[np.float64],
    *,
    gain: float,
    a_min: float,
    a_max: float,
) -> NDArray[np.float64]:
    """Returns ``clip(ratio + gain * (set_point - mismatch) / set_point, a_min, a_max)``.

    The ratio itself is the integral of the error, and it is the clipped one that is carried on: where the set point is
    out of reach nothing piles up behind the limit (anti-windup by clamping), and the first error of the other sign moves
    the ratio off it.

    Args:
        ratio: Ratio of the last window, [...].
        mismatch: What came of it, in nats per token, [...].
        set_point: What should have come, above 0, [...].
        gain: Change of the ratio for a mismatch that is off by the whole set point.
        a_min: Smallest ratio.
        a_max: Largest.

    >>> next_ratio(np.array(0.5), np.array(0.4), np.array(0.5), gain=0.5, a_min=0.0, a_max=1.0)
    array(0.6)
    """
    moved = ratio + gain * (set_point - mismatch) / set_point
    return np.asarray(np.clip(moved, a_min, a_max), dtype=np.float64)


class FeedbackController(Agent):
    """Raises the reveal ratio where the mismatch is below its set point, and lowers it where it is above.

    The mismatch grows with the reveal ratio and falls as the student learns (the paper measures the former), so a student
    that learns is shown more and more. Measured is the observation's ``mismatch_ema``, a moving average that lags some
    windows behind, so a large gain makes the ratio swing. A mismatch is not measured by group: all groups get one ratio.

    Where the mismatch changes by the share s of the set point for a whole unit of the ratio, and the moving average has
    the coefficient c, the loop is stable for gain * c * s < 2 (2 - c). Above (1 - sqrt(1 - c))^2 it swings about the set
    point, and a swing shrinks by sqrt(1 - c) a window (0.84 at the default 0.3).

    Args:
        env: The environment.
        seed: Seed of the run.
        set_point: Mismatch to hold, in nats per token, above 0. None takes ``factor`` times that of the first window,
            so that it fits the student.
        factor: See ``set_point``; above 0.
        gain: Change of the ratio in a window whose mismatch is off by the whole set point; at least 0.
        initial_ratio: Ratio of the first window, in [a_min, a_max].
        a_min: Smallest ratio, in [0, 1].
        a_max: Largest, above it, in [0, 1].

    Raises:
        ConfigError: If an argument is out of range.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        seed: int = 0,
        *,
        set_point: float | None = None,
        factor: float = 1.0,
        gain: float = 0.5,
        initial_ratio: float = 0.5,
        a_min: float = 0.0,
        a_max: float = 1.0,
    ) -> None:
        super().__init__(env, seed)
        self.set_point = None if set_point is None else checked_number("set_point", set_point, above=0.0)
        self.factor = checked_number("factor", factor, above=0.0)
        self.gain = checked_number("gain", gain, least=0.0)
        self.a_min, self.a_max = checked_limits(a_min, a_max)
        self.initial_ratio = checked_number("initial_ratio", initial_ratio, least=self.a_min, most=self.a_max)
        self._loop: NDArray[np.float64] | None = None
        self._mismatch = float("nan")

    def predict(
        self,
        observation: NDArray[np.float32],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.float32], Any]:
        """Returns ratios, float32 [groups] or [n, groups], and the loop's state for the next call.

        The state is float64 [2] or [n, 2]: the ratio, and the set point (0 until a mismatch is measured). Where it is
        None, or ``episode_start`` says so, the loop begins at ``initial_ratio``.
        """
        mismatch = mismatch_of(observation)
        fresh = np.stack(np.broadcast_arrays(np.full(mismatch.shape, self.initial_ratio), self.set_point or 0.0), -1)
        loop = fresh if state is None else np.asarray(state, dtype=np.float64)
        if episode_start is not None and state is not None:
            loop = np.where(np.reshape(episode_start, (*mismatch.shape, 1)), fresh, loop)
        ratio, set_point = loop[..., 0], loop[..., 1]
        is_measured = mismatch > 0.0
        set_point = np.where(is_measured & (set_point <= 0.0), self.factor * mismatch, set_point)
        moved = next_ratio(
            ratio, mismatch, np.where(is_measured, set_point, 1.0), gain=self.gain, a_min=self.a_min, a_max=self.a_max
        )
        loop = np.stack([np.where(is_measured, moved, ratio), set_point], axis=-1)
        return np.repeat(loop[..., :1], self.groups, axis=-1).astype(np.float32), loop

    def begin_episode(self) -> None:
        """Starts the loop anew."""
        self._loop = None

    def decide(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the next window's ratios; the loop's state stays in the agent, so that its file holds it."""
        action, self._loop = self.predict(observation, self._loop)
        self._mismatch = float(mismatch_of(observation))
        return action

    def diagnostics(self) -> dict[str, float]:
        """Returns what the last decision was made from: the set point, the mismatch, and whether the ratio is at a limit.

        The first two are in nats per token, and 0 until a mismatch is measured; ``is_saturated`` is 0 or 1.
        """
        ratio, set_point = (float("nan"), float("nan")) if self._loop is None else self._loop.tolist()
        return {
            "set_point": set_point,
            "mismatch": self._mismatch,
            "is_saturated": float(ratio in (self.a_min, self.a_max)),
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {} if self._loop is None else {"loop": self._loop}

    def set_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._loop = arrays.get("loop")


def mismatch_of(observation: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns the mismatch that an observation tells, in nats per token: [num_features] -> [], [n, num_features] -> [n].

    The feature is x / (1 + x); 0 means that nothing has been measured yet.
    """
    squashed = np.minimum(np.asarray(observation, dtype=np.float64)[..., _MISMATCH], _LARGEST_SQUASHED)
    return np.asarray(squashed / (1.0 - squashed))
