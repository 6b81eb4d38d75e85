"""A closed-form learner with a known best reveal ratio: the environment's interface at microseconds a window.

It stands alone: no student, no torch. Agents are tested on it, and a new one can be tried on it before it costs
anything.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from atesd_env.actions import checked_ratios
from atesd_env.checkpoint import Checkpoint, opened_checkpoint, write_checkpoint
from atesd_env.config import EnvConfig, check_same_config, preset
from atesd_env.episode import RESET_FIRST, checked_render_mode, draw_seed, first_result, make_spaces, window_result
from atesd_env.errors import ConfigError, NoEpisodeError
from atesd_env.render import render
from atesd_env.reward import learning_progress, window_reward
from atesd_env.statistics import (
    FEATURE_NAMES,
    Row,
    RunningStatistics,
    advance,
    group_columns,
    initial_statistics,
)

INITIAL_NLL = 4.0
"""Probe NLL before the first window, in nats per token."""
FINAL_NLL = 0.5
"""Probe NLL that the learner approaches and never passes."""
BEST_RATE = 0.02
"""Share of the distance to ``FINAL_NLL`` that one update covers at the best ratio."""
BUMP_WIDTH = 0.15
"""Standard deviation of the bump, as a reveal ratio: this far from the best ratio learning is 0.61 times as fast."""

_NOISE_PURPOSE = 11  # apart from the purposes of the real environment's random streams


@dataclass(frozen=True)
class ToyState:
    """Everything that a run's future depends on; never changed in place, so a reference to it is a snapshot.

    Attributes:
        seed: Seed of the run.
        nll: Noise-free probe NLL, one for each difficulty group.
        probe_nll: The last measured probe NLL: the mean over groups, plus noise.
        statistics: What a controller may know.
        rows: The rows so far.
    """

    seed: int
    nll: tuple[float, ...]
    probe_nll: float
    statistics: RunningStatistics
    rows: tuple[Row, ...] = ()

    @property
    def broken(self) -> None:
        """A closed form never breaks."""
        return None


def learning_rate(ratio: float, best_ratio: float) -> float:
    """Returns the share of the distance to ``FINAL_NLL`` that one update covers; it peaks at ``best_ratio``.

    >>> learning_rate(0.4, best_ratio=0.4)
    0.02
    """
    return BEST_RATE * math.exp(-0.5 * ((ratio - best_ratio) / BUMP_WIDTH) ** 2)


def initial_state(config: EnvConfig, seed: int) -> ToyState:
    """Returns the state before the first window."""
    probe_nll = INITIAL_NLL + config.toy_noise * _noise(seed, 0)
    return ToyState(seed, (INITIAL_NLL,) * config.groups, probe_nll, initial_statistics(probe_nll))


def next_state(state: ToyState, ratios: NDArray[np.float64], config: EnvConfig) -> ToyState:
    """Returns the state after one more hold window; its last row is the window's.

    Args:
        state: State before the window.
        ratios: Reveal ratios [groups], each in [0, 1].
        config: The environment's configuration.
    """
    window = len(state.rows) + 1
    keeps = [(1.0 - learning_rate(ratio, config.toy_best_ratio)) ** config.hold_window for ratio in ratios.tolist()]
    nll = tuple(FINAL_NLL + (before - FINAL_NLL) * keep for before, keep in zip(state.nll, keeps, strict=True))
    probe_nll = float(np.mean(nll)) + config.toy_noise * _noise(state.seed, window)
    row = _row(window, ratios, float(np.mean(nll)), config)
    progress = learning_progress(state.probe_nll, probe_nll, config.progress)
    row |= {
        "probe/nll": probe_nll,
        "reward/progress": progress,
        "reward/total": window_reward(progress, float(row["probe/grounded"] or 0.0), config.grounded_weight),
    }
    statistics = advance(
        state.statistics,
        row,
        windows=config.windows,
        max_new_tokens=config.max_new_tokens,
        ema_coefficient=config.ema_coefficient,
    )
    return ToyState(state.seed, nll, probe_nll, statistics, (*state.rows, row))


def _noise(seed: int, window: int) -> float:
    """Returns a standard normal number that depends on the run and the window only, not on what was done before."""
    return float(np.random.default_rng(np.random.SeedSequence([seed, _NOISE_PURPOSE, window])).standard_normal())


def _row(window: int, ratios: NDArray[np.float64], nll: float, config: EnvConfig) -> Row:
    """Returns the window's row in the order of ``COLUMNS``; what the caller measures is still 0.

    Args:
        window: Number of the window, from 1.
        ratios: Reveal ratios [groups].
        nll: Noise-free probe NLL after the window, mean over groups.
        config: The environment's configuration.
    """
    ratio = float(ratios.mean())
    to_learn = (nll - FINAL_NLL) / (INITIAL_NLL - FINAL_NLL)
    mismatch = (0.5 + 0.5 * ratio) * (0.5 + 0.5 * to_learn)
    entropy = 0.2 + 0.8 * to_learn
    success = math.exp(-nll)
    length = config.max_new_tokens * (0.75 - 0.5 * success)
    is_measured = config.probe_accuracy_every > 0 and (
        window % config.probe_accuracy_every == 0 or window == config.windows
    )
    return {
        "window": window,
        "update": window * config.hold_window,
        "exposure/reveal_ratio": ratio,
        "exposure/shown_ratio": ratio,
        "exposure/cut_rate": 0.0,
        "student/loss": mismatch,
        "student/mismatch": mismatch,
        "student/self_confidence": math.exp(-entropy),
        "student/entropy": entropy,
        "student/top1_disagreement": 1.0 - math.exp(-mismatch),
        "student/grad_norm": mismatch,
        "teacher/entropy": entropy * (1.0 - 0.5 * ratio),
        "rollout/success_rate": success,
        "rollout/length": length,
        "rollout/truncation_rate": 0.0,
        "rollout/num_tokens": round(length * config.num_rollouts * config.hold_window),
        "probe/nll": 0.0,
        "probe/grounded": -0.3 + 0.1 * ratio,
        "probe/accuracy": success if is_measured else None,
        "probe/pass_at_k": 1.0 - (1.0 - success) ** config.probe_pass_k if config.probe_pass_k else None,
        "reward/progress": 0.0,
        "reward/total": 0.0,
        **{column.name: float(value) for column, value in zip(group_columns(config.groups), ratios, strict=False)},
    }


class ToyPopulation:
    """K closed-form learners behind the interface of ``Population``; one after the other, each with its own seed.

    Args:
        config: The environment's configuration.
        num_students: K.

    Attributes:
        runs: The state of each learner's run; before its first ``reset``, that of seed 0.
    """

    def __init__(self, config: EnvConfig, num_students: int = 1) -> None:
        self.config = config
        self.runs = [initial_state(config, 0)] * num_students

    def reset(self, index: int, seed: int) -> RunningStatistics:
        """Starts a new run of learner ``index``; returns the statistics before its first window."""
        self.runs[index] = initial_state(self.config, seed)
        return self.runs[index].statistics

    def window(self, reveal_ratios: NDArray[np.float64], students: Sequence[int] | None = None) -> list[Row]:
        """Makes one window of each learner in ``students`` (all, if None) at its line of [S, groups]; returns their rows."""
        students = range(len(self.runs)) if students is None else students
        for index, ratios in zip(students, reveal_ratios, strict=True):
            self.runs[index] = next_state(self.runs[index], ratios, self.config)
        return [self.runs[index].rows[-1] for index in students]

    def snapshot(self, index: int) -> ToyState:
        """Returns learner ``index``'s state, which is never changed in place."""
        return self.runs[index]

    def restore(self, index: int, snapshot: ToyState) -> None:
        """Puts learner ``index`` into a state."""
        self.runs[index] = snapshot

    def twin(self, num_students: int, index: int = 0) -> ToyPopulation:
        """Returns other learners of the same configuration, which is that of each ``index``."""
        return ToyPopulation(self.config, num_students)


class ToyExposureEnv(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """A closed-form student with the interface of ``TeacherExposureEnv``; the best reveal ratio is known.

    Dynamics of a window at the reveal ratio a, with H = ``hold_window`` updates:

    - The noise-free probe NLL l moves towards ``FINAL_NLL``:  l <- final + (l - final) * (1 - rate(a))^H, where
      rate(a) = ``BEST_RATE`` * exp(-(a - ``toy_best_ratio``)^2 / (2 ``BUMP_WIDTH``^2)). It starts at ``INITIAL_NLL``.
    - It is measured with Gaussian noise of standard deviation ``toy_noise``; the reward is made of the measured
      numbers.
    - The mismatch, (0.5 + 0.5 a) (0.5 + 0.5 u), grows with a and falls as the student learns; u is the share of the
      distance to the final NLL that is left. The loss and the gradient norm equal it.
    - The teacher-grounded score, -0.3 + 0.1 a, grows with a. At the default weight this moves the ratio of the best
      one-window reward by less than 0.03 off ``toy_best_ratio``.
    - Stand-ins: entropy 0.2 + 0.8 u, self-confidence exp(-entropy), teacher's entropy (1 - 0.5 a) entropy, top-1
      disagreement 1 - exp(-mismatch), success and accuracy exp(-l), pass@k 1 - (1 - success)^k, length (0.75 - 0.5
      success) ``max_new_tokens``, nothing cut or truncated.

    With ``groups`` > 1, each group has an l of its own, all with the same best ratio; l above is then their mean, and a
    the mean ratio. Every random number comes from (seed, window): two actions in the same window meet the same noise.

    Action, observation, reward and info: as in ``TeacherExposureEnv``. An episode has ``windows`` windows and is
    truncated after the last; it never terminates.

    Args:
        render_mode: "ansi", "rgb_array" or None.
        config: The whole configuration; instead of ``fields``.
        **fields: Fields of ``EnvConfig``, changed in the preset "ATESD-Toy-v0".

    Attributes:
        config: The configuration.
        feature_names: Names of the observation's entries, in order.

    Raises:
        ConfigError: If a field is unknown or refused, or both ``config`` and fields are given.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # noqa: RUF012 (Gymnasium's own convention)

    def __init__(self, render_mode: str | None = None, *, config: EnvConfig | None = None, **fields: Any) -> None:
        if config is not None and fields:
            raise ConfigError(
                f"config: expected either a whole configuration or single fields, got both ({', '.join(fields)}); pass "
                "config=config.replace(...)."
            )
        self.render_mode = checked_render_mode(render_mode)
        self.config = preset("ATESD-Toy-v0", **fields) if config is None else config
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
            return first_result(self.snapshot())
        self._state = initial_state(self.config, seed if seed is not None else draw_seed(self.np_random))
        return first_result(self._state)

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
        state = dataclasses.asdict(self.snapshot())
        return Checkpoint({}, {"config": dataclasses.asdict(self.config), "toy": state})

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
        checkpoint = opened_checkpoint(state)
        check_same_config(self.config, checkpoint.description.get("config", {}))
        saved = dict(checkpoint.description["toy"])
        self._state = ToyState(
            **saved
            | {
                "nll": tuple(saved["nll"]),
                "statistics": RunningStatistics(**saved["statistics"]),
                "rows": tuple(saved["rows"]),
            }
        )
