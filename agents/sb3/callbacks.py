"""Callbacks of any kind as one: ended students start anew after the caller's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, CallbackList

from agents.base import check_callback
from agents.sb3.vec_env import PopulationVecEnv


class StartEndedAfter(CallbackList):
    """Runs callbacks, then starts new runs of the students whose run has ended, unless a callback stops the learning."""

    def __init__(self, callbacks: Sequence[BaseCallback], vec_env: PopulationVecEnv) -> None:
        super().__init__(list(callbacks))
        self._vec_env = vec_env

    def _on_step(self) -> bool:
        goes_on = bool(super()._on_step())
        if goes_on:
            self._vec_env.start_ended()
        return goes_on


class FunctionCallback(BaseCallback):
    """A function of (local names, global names), or None, as a callback; only False stops, None does not."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self._function = function

    def _on_step(self) -> bool:
        return self._function is None or self._function(self.locals, self.globals) is not False


def as_callback(callback: Any) -> BaseCallback:
    """Returns a callback object for a function, an object or None.

    Raises:
        ConfigError: If it is none of these.
    """
    if isinstance(callback, BaseCallback):
        return callback
    check_callback(callback)
    return FunctionCallback(callback)
