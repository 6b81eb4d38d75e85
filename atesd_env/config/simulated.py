"""The configurations of students without a model: closed forms, ``ATESD-Toy-v0``, and surrogates, ``ATESD-Surrogate-v0``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from atesd_env.config.checks import choice, number, option
from atesd_env.config.run import RunConfig


@dataclass(frozen=True, kw_only=True)
class ToyConfig(RunConfig):
    """Everything that defines a closed-form learner (``simulated.toy``), except the seed (an argument of ``reset``).

    Raises:
        ConfigError: If a value is outside its range; the message names the field, what was expected and what came.
    """

    student_kind = "closed form"

    toy_kind: Literal["constant", "drift", "delayed"] = choice("constant", "constant", "drift", "delayed")
    """Toy: the best reveal ratio stays, drifts as the student learns, or shows its worth only some windows later. [ours]"""
    toy_best_ratio: float = number(0.4, 0, 1)
    """Toy: the reveal ratio at which the closed-form learner learns fastest; "drift": before anything is learned. [ours]"""
    toy_final_ratio: float = number(0.9, 0, 1)
    """Toy "drift": the best reveal ratio of a student that has learned everything. [ours]"""
    toy_tempting_ratio: float = number(0.9, 0, 1)
    """Toy "delayed": the reveal ratio with the best immediate drop of the probe NLL, and a worse one later. [ours]"""
    toy_group_spread: float = number(0.0, -1, 1)
    """Toy: by how much the hardest group's ratios (the three above) lie above the easiest one's; evenly in between. [ours]"""
    toy_noise: float = number(0.01, 0)
    """Toy: standard deviation of the measured probe NLL, in nats. [ours]"""
    toy_relative_noise: float = number(0.0, 0)
    """Toy: what is added to that standard deviation, as a multiple of the probe NLL: heavier noise early on. [ours]"""


@dataclass(frozen=True, kw_only=True)
class SurrogateConfig(RunConfig):
    """What defines a run of a surrogate, except the seed (an argument of ``reset``).

    The fields of every run are those of the runs that it was fitted to; only the reward's may be chosen anew.

    Raises:
        ConfigError: If a value is outside its range; the message names the field, what was expected and what came.
    """

    student_kind = "surrogate"

    file: str = option("")
    """Surrogate: the file that `atesd fit-surrogate` wrote, or a packaged surrogate's name. [ours]"""
    on_extrapolation: Literal["truncate", "warn", "raise"] = choice("truncate", "truncate", "warn", "raise")
    """Surrogate: in a window outside of what was fitted, end the episode, warn, or fail. [ours]"""
