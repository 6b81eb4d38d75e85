"""Closed-form learners with a known optimum: the environment's interface at microseconds a window.

They stand alone: no student, no torch. Agents are tested on them, and a new one can be tried on them before it costs
anything. How they learn is in ``toy_dynamics``, what can be reached in ``toy_optimum``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from atesd_env.config import ToyConfig, preset_of
from atesd_env.envs.actions import checked_ratios
from atesd_env.envs.contract import (
    RESET_FIRST,
    checked_render_mode,
    draw_seed,
    first_result,
    make_spaces,
    window_result,
)
from atesd_env.envs.observation import FEATURE_NAMES
from atesd_env.envs.render import render
from atesd_env.errors import ConfigError, NoEpisodeError
from atesd_env.files.checkpoint import Checkpoint, opened_checkpoint, write_checkpoint
from atesd_env.simulated.toy_dynamics import BEST_RATE, BUMP_WIDTH, FINAL_NLL, IMMEDIATE_SHARE, INITIAL_NLL, SKILL_RATE
from atesd_env.simulated.toy_optimum import ToyOptimum, optimum
from atesd_env.simulated.toy_population import (
    ToyPopulation,
    ToyState,
    from_toy_checkpoint,
    initial_state,
    next_state,
    to_toy_checkpoint,
)
from atesd_env.simulated.toy_row import optimum_columns

__all__ = [
    "BEST_RATE",
    "BUMP_WIDTH",
    "FINAL_NLL",
    "IMMEDIATE_SHARE",
    "INITIAL_NLL",
    "SKILL_RATE",
    "ToyExposureEnv",
    "ToyOptimum",
    "ToyPopulation",
    "ToyState",
    "initial_state",
    "next_state",
    "optimum",
]


class ToyExposureEnv(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """A closed-form student with the interface of ``TeacherExposureEnv``; the optimal policy is known.

    Dynamics of a window at the reveal ratio a, with H = ``hold_window`` updates. The noise-free probe NLL l starts at
    ``INITIAL_NLL`` and moves towards ``FINAL_NLL``; u = (l - final) / (initial - final) is the share that is left, and
    bump(a, b) = exp(-(a - b)^2 / (2 ``BUMP_WIDTH``^2)). ``toy_kind`` chooses how:

    - "constant":  u <- u (1 - rate)^H with rate = ``BEST_RATE`` bump(a, ``toy_best_ratio``).
    - "drift": the same, but the best ratio goes from ``toy_best_ratio`` to ``toy_final_ratio`` with the share learned,
      best = start + (final - start) (1 - u), where u is the one before the window. Whatever the student has learned so
      far, showing the best ratio of the moment is optimal; a ratio that stays is left behind.
    - "delayed": a hidden skill z in [0, 1], at first 0, sets most of the speed:  u <- u (1 - ``BEST_RATE``)^(H v) with
      v = s bump(a, ``toy_tempting_ratio``) + (1 - s) z and s = ``IMMEDIATE_SHARE``; after that
      z <- p + (z - p) (1 - ``SKILL_RATE``)^H with p = bump(a, ``toy_best_ratio``). The tempting ratio has the best
      immediate drop; what practice brings shows from the next window on, most of it within two (H = 1).

    Common to all:

    - With ``groups`` > 1, each group has an l and a z of its own. The ratios of group g lie ``toy_group_spread`` times
      (g / (groups - 1) - 1/2) above the configured ones, within [0, 1]. In what follows l is the mean over groups, a the
      mean ratio.
    - l is measured with Gaussian noise of standard deviation ``toy_noise`` + ``toy_relative_noise`` * l; the reward is
      made of the measured numbers. Every random number comes from (seed, window): two actions in the same window meet the
      same noise.
    - The mismatch, (0.5 + 0.5 a) (0.5 + 0.5 u), grows with a and falls as the student learns. The loss and the gradient
      norm equal it.
    - The teacher-grounded score, -0.3 + 0.1 a, grows with a. At the default weight this moves the ratio of the best
      one-window reward by less than 0.03 off ``toy_best_ratio`` (kind "constant").
    - Stand-ins: entropy 0.2 + 0.8 u, self-confidence exp(-entropy), teacher's entropy (1 - 0.5 a) entropy, top-1
      disagreement 1 - exp(-mismatch), success and accuracy exp(-l), pass@k 1 - (1 - success)^k, length (0.75 - 0.5
      success) ``max_new_tokens``, nothing cut or truncated.

    Optimal is the policy with the lowest noise-free probe NLL after the last window. ``info`` of every reset and step says
    where the student stands beside it (``TOY_COLUMNS``; ``toy_optimum`` has the mathematics): ``toy/regret`` is what is
    lost for good, 0 for the optimal policy; ``toy/best_ratio`` is what that policy would show next; ``toy/reached_rate`` of
    the last window is the share of the optimum that was reached. A controller must not be shown them, of course.

    Action, observation, reward and info: as in ``TeacherExposureEnv``. An episode has ``windows`` windows and is
    truncated after the last; it never terminates.

    Args:
        render_mode: "ansi", "rgb_array" or None.
        config: The whole configuration; instead of ``fields``.
        **fields: Fields of ``ToyConfig``, changed in the preset "ATESD-Toy-v0".

    Attributes:
        config: The configuration.
        feature_names: Names of the observation's entries, in order.

    Raises:
        ConfigError: If a field is unknown or refused, or both ``config`` and fields are given.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # noqa: RUF012 (Gymnasium's own convention)

    def __init__(self, render_mode: str | None = None, *, config: ToyConfig | None = None, **fields: Any) -> None:
        if config is not None and fields:
            raise ConfigError(
                f"config: expected either a whole configuration or single fields, got both ({', '.join(fields)}); pass "
                "config=config.replace(...)."
            )
        self.render_mode = checked_render_mode(render_mode)
        self.config = preset_of(ToyConfig, "ATESD-Toy-v0", **fields) if config is None else config
        self.feature_names = FEATURE_NAMES
        self.observation_space, self.action_space = make_spaces(self.config)
        self._state: ToyState | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Starts a new run.

        Args:
            seed: The run's seed; the same seed and actions give the same run. None draws one.
            options: ``{"state": path}`` goes on where ``save_state`` (or a run's checkpoint) was, instead.

        Returns:
            The first observation, and ``info`` with the run's seed and the last measured probe NLL.
        """
        super().reset(seed=seed)
        if options and options.get("state") is not None:
            self.load_state(options["state"])
        else:
            self._state = initial_state(self.config, seed if seed is not None else draw_seed(self.np_random))
        state = self.snapshot()
        observation, info = first_result(state)
        windows, nll, skill = np.array([len(state.rows)]), np.array([state.nll]), np.array([state.skill])
        return observation, info | optimum_columns(windows, nll, skill, self.config)

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Makes one hold window at the given reveal ratio.

        Args:
            action: Reveal ratio for each group, [groups] in [0, 1].

        Raises:
            ConfigError: If the action is not a ratio in [0, 1] for each group.
            NoEpisodeError: If no episode is running.
        """
        if self._state is None or len(self._state.rows) >= self.config.windows:
            raise NoEpisodeError(RESET_FIRST)
        self._state = next_state(self._state, checked_ratios(action, self.config.groups), self.config)
        return window_result(self._state, self.config.windows)

    def render(self) -> str | NDArray[np.uint8] | None:
        """Returns the run so far as text ("ansi") or as a picture, uint8 [H, W, 3] ("rgb_array")."""
        rows = self._state.rows if self._state is not None else ()
        return render(rows, self.config.windows, self.render_mode)

    def snapshot(self) -> ToyState:
        """Returns the run's state, for ``restore``.

        Raises:
            NoEpisodeError: If no episode was started.
        """
        if self._state is None:
            raise NoEpisodeError("state: expected an episode, but none was started; call reset() first.")
        return self._state

    def restore(self, snapshot: ToyState) -> None:
        """Returns to the state of a snapshot; the next windows repeat bit for bit."""
        self._state = snapshot

    def checkpoint(self) -> Checkpoint:
        """Returns the run's state and the configuration in a form that files can hold."""
        return to_toy_checkpoint(self.snapshot(), self.config)

    def save_state(self, path: str | os.PathLike[str]) -> None:
        """Writes the run's state to a file, for ``load_state`` and ``reset(options={"state": path})``.

        Raises:
            NoEpisodeError: If no episode was started.
            RunFilesError: If it cannot be written.
        """
        write_checkpoint(Path(path), self.checkpoint())

    def load_state(self, state: str | os.PathLike[str] | Checkpoint) -> None:
        """Goes on where ``save_state`` was; the next windows repeat bit for bit.

        Raises:
            ConfigError: If it was saved under another configuration.
            RunFilesError: If the file cannot be read, or is not whole.
        """
        self._state = from_toy_checkpoint(opened_checkpoint(state), self.config)
