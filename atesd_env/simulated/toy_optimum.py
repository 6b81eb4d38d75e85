"""What can be reached on the closed-form learner: the optimal policy, its NLL, and how far a student is from it.

Optimal is the policy with the lowest noise-free probe NLL after the episode's last window. Groups learn apart, so each
is solved for itself, in closed form:

- "constant", "drift": the best ratio of the moment keeps (1 - ``BEST_RATE``)^H of the distance to ``FINAL_NLL``,
  wherever the student stands, and no ratio keeps less. So it is optimal in every window.
- "delayed": n windows keep (1 - ``BEST_RATE``)^(H * sum of speeds). With d = ``skill_kept`` and s = ``IMMEDIATE_SHARE``,
  the skill z brings (1 - s) z (1 - d^n) / (1 - d) to the sum, and the ratio a of a window with m more to come brings
  s bump(a, tempting) + (1 - s) (1 - d^m) bump(a, best): a sum of terms of one ratio each, so each is at its own maximum.

An optimum costs less than 0.1 s and is made once for a configuration and process; its table has at most 60 lines.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atesd_env.config import ToyConfig
from atesd_env.simulated.toy_dynamics import (
    BEST_RATE,
    BUMP_WIDTH,
    FINAL_NLL,
    IMMEDIATE_SHARE,
    INITIAL_NLL,
    fastest_ratios,
    group_mean,
    group_ratios,
    next_levels,
    plain,
    power,
    skill_kept,
)


class ToyOptimum:
    """The optimum of one configuration; ``optimum(config)`` gives the shared one.

    Args:
        config: The environment's configuration.

    Attributes:
        final_nll: Noise-free probe NLL of the optimal policy after the last window, mean over groups.
    """

    def __init__(self, config: ToyConfig) -> None:
        self._config = config
        self._kept = skill_kept(config)
        if config.toy_kind == "delayed":
            # Where d^m no longer moves 1 - d^m, every earlier window is alike.
            num_different = math.ceil(math.log(1e-17) / math.log(self._kept)) if self._kept > 1e-17 else 1
            self._ratios, gains = _best_by_windows_after(config, min(config.windows, num_different + 1))
            self._sums = np.concatenate([np.zeros((1, config.groups)), np.cumsum(gains, axis=0)])
        start = np.full((1, config.groups), INITIAL_NLL), np.zeros((1, config.groups))
        self.final_nll = float(self.reachable_nll(*start, np.array([config.windows]))[0])
        self._levels = start  # at the end of the path
        self._path_nll = [INITIAL_NLL]
        self._path_ratios: list[NDArray[np.float64]] = []

    def best_ratios(self, nll: Any, windows_left: Any) -> Any:
        """Returns what the optimal policy would show next, [S, G].

        As in ``toy_dynamics``, what is said of one student with one group may be plain numbers, here and in the other methods.

        Args:
            nll: Noise-free probe NLL now, [S, G].
            windows_left: Windows that the episode still has, [S]; at its end, the ratio of one window more.
        """
        if self._config.toy_kind != "delayed":
            return fastest_ratios(nll, self._config)
        ratios = self._ratios[np.clip(windows_left - 1, 0, len(self._ratios) - 1)]
        return plain(ratios) if isinstance(nll, float) else np.atleast_2d(ratios)

    def reachable_nll(self, nll: Any, skill: Any, windows_left: Any) -> Any:
        """Returns the lowest final noise-free probe NLL that can be reached from here, mean over groups, [S].

        Args:
            nll: Noise-free probe NLL now, [S, G].
            skill: Skill now, [S, G]; zeros for kinds without one.
            windows_left: Windows that the episode still has, [S].
        """
        left = windows_left[:, None] if isinstance(windows_left, np.ndarray) else windows_left
        speeds = 1.0 * left  # the best there is in each window, summed
        if self._config.toy_kind == "delayed":
            tabled = np.minimum(windows_left, len(self._sums) - 1)
            later = np.maximum(0, left - (len(self._sums) - 1)) * (self._sums[-1] - self._sums[-2])
            by_skill = (1.0 - power(self._kept, speeds)) / (1.0 - self._kept)
            speeds = plain(self._sums[tabled] + later) + (1.0 - IMMEDIATE_SHARE) * skill * by_skill
        keep = power(1.0 - BEST_RATE, self._config.hold_window * speeds)
        return group_mean(FINAL_NLL + (nll - FINAL_NLL) * keep)

    def nll(self, window: Any) -> Any:
        """Returns the optimal policy's noise-free probe NLL after ``window`` windows, a number or [S], mean over groups.

        For kind "delayed" a policy may lie below it for a while, and above it in the end.
        """
        if isinstance(window, np.ndarray):
            first, last = int(window.min()), int(window.max())
            self._follow(last)
            return np.array(self._path_nll[first : last + 1])[window - first]
        self._follow(window)
        return self._path_nll[window]

    def policy(self) -> NDArray[np.float64]:
        """Returns the optimal policy's reveal ratios in an episode, [windows, G]."""
        self._follow(self._config.windows)
        return np.array(self._path_ratios)

    def _follow(self, window: int) -> None:
        """Goes on along the optimal policy's path up to a window; an episode of a hundred million is not made at once."""
        for done in range(len(self._path_ratios), window):
            nll, skill = self._levels
            ratios = self.best_ratios(nll, np.array([self._config.windows - done]))
            self._levels = next_levels(nll, skill, ratios, self._config)
            self._path_nll.append(float(group_mean(self._levels[0])[0]))
            self._path_ratios.append(ratios[0])

    def regret(self, nll: Any, skill: Any, windows_left: Any) -> Any:
        """Returns the nats of final probe NLL that are lost for good, [S], at least 0.

        That is the lowest final NLL that can still be reached from here, minus ``final_nll``. It never falls during an
        episode, stays 0 under the optimal policy, and ends as the student's final NLL minus the optimal one. Arguments as
        for ``reachable_nll``.
        """
        lost = self.reachable_nll(nll, skill, windows_left) - self.final_nll
        return np.maximum(0.0, lost) if isinstance(lost, np.ndarray) else max(0.0, lost)

    def reached_rate(self, nll: Any) -> Any:
        """Returns the way behind each student as a share of the optimal policy's whole way, [S].

        (``INITIAL_NLL`` - NLL) / (``INITIAL_NLL`` - ``final_nll``), without noise; at an episode's end at most 1.
        """
        return (INITIAL_NLL - group_mean(nll)) / (INITIAL_NLL - self.final_nll)


@functools.lru_cache(maxsize=256)
def optimum(config: ToyConfig) -> ToyOptimum:
    """Returns the optimum of a configuration of the closed-form learner."""
    return ToyOptimum(config)


def _best_by_windows_after(config: ToyConfig, num_different: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns (ratios, gains), [M, G] each: the best ratio of a window with m = 0..M-1 more to come, and what it brings.

    The maximum of two bumps is searched on a grid that is narrowed around the best point until its step is below 1e-10.
    """
    best = group_ratios(config.toy_best_ratio, config)
    tempting = group_ratios(config.toy_tempting_ratio, config)
    later = (1.0 - IMMEDIATE_SHARE) * (1.0 - skill_kept(config) ** np.arange(num_different, dtype=np.float64))

    def gains(ratios: NDArray[np.float64]) -> NDArray[np.float64]:
        """[grid, M, G] ratios -> what each brings."""
        immediate, practice = (np.exp(-0.5 * ((ratios - peak) / BUMP_WIDTH) ** 2) for peak in (tempting, best))
        return np.asarray(IMMEDIATE_SHARE * immediate + later[:, None] * practice)

    centre, half = np.full((num_different, config.groups), 0.5), 0.5
    steps = np.linspace(-1.0, 1.0, 201)[:, None, None]
    while half > 1e-10:
        ratios = np.clip(centre + half * steps, 0.0, 1.0)
        found = np.argmax(gains(ratios), axis=0)
        centre = np.take_along_axis(ratios, found[None], axis=0)[0]
        half /= 50.0
    return centre, gains(centre[None])[0]
