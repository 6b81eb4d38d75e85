"""Closed-form learners with a known optimum: the environment's interface at microseconds a window.

They stand alone: no student, no torch. Agents are tested on them, and a new one can be tried on them before it costs
anything. How they learn is in ``toy_dynamics``, what can be reached in ``toy_optimum``.
"""

from __future__ import annotations

from typing import Any

from atesd_env.config import ToyConfig, preset_of
from atesd_env.envs.env import ExposureEnv
from atesd_env.envs.vector import ExposureVectorEnv
from atesd_env.errors import ConfigError
from atesd_env.simulated.toy_population import ToyPopulation


class ToyExposureEnv(ExposureEnv[ToyPopulation]):
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
    - With ``groups`` > 1, length, entropy and mismatch by group are these formulas at the group's own l, u and a.
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

    config: ToyConfig

    def __init__(self, render_mode: str | None = None, *, config: ToyConfig | None = None, **fields: Any) -> None:
        super().__init__(_configuration(config, fields), render_mode)

    def _make_population(self) -> ToyPopulation:
        return ToyPopulation(self.config)


class ToyExposureVectorEnv(ExposureVectorEnv[ToyPopulation]):
    """K closed-form students side by side, all their windows made at once; student k is ``ToyExposureEnv`` with its seed, bit for bit.

    Args:
        num_envs: K, at least 1.
        render_mode: "ansi", "rgb_array" or None.
        config: The whole configuration; instead of ``fields``.
        **fields: Fields of ``ToyConfig``, changed in the preset "ATESD-Toy-v0".

    Raises:
        ConfigError: If a field is unknown or refused, or both ``config`` and fields are given.
    """

    config: ToyConfig

    def __init__(
        self, num_envs: int = 1, render_mode: str | None = None, *, config: ToyConfig | None = None, **fields: Any
    ) -> None:
        super().__init__(_configuration(config, _without_processes(fields)), num_envs, render_mode)

    def _make_population(self) -> ToyPopulation:
        return ToyPopulation(self.config, self.num_envs)


def _configuration(config: ToyConfig | None, fields: dict[str, Any]) -> ToyConfig:
    if config is not None and fields:
        raise ConfigError(
            f"config: expected either a whole configuration or single fields, got both ({', '.join(fields)}); pass "
            "config=config.replace(...)."
        )
    return preset_of(ToyConfig, "ATESD-Toy-v0", **fields) if config is None else config


def _without_processes(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns the configuration's fields among a vector environment's arguments; the others are a language model's."""
    if fields.get("workers", 1) != 1:
        raise ConfigError(
            f"workers: expected between 1 and 1 processes for the closed form, got {fields['workers']!r}; leave it out."
        )
    if fields.get("instances") is not None:
        raise ConfigError(
            "instances: expected None for the closed form, got some; make one environment for each instance."
        )
    return {name: value for name, value in fields.items() if name not in ("workers", "instances")}
