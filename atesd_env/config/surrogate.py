"""The configuration of a fitted surrogate, ``ATESD-Surrogate-v0``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from atesd_env.config.checks import choice, option
from atesd_env.config.run import RunConfig


@dataclass(frozen=True, kw_only=True)
class SurrogateConfig(RunConfig):
    """What defines a run of a surrogate, except the seed (an argument of ``reset``).

    The fields of every run are those of the runs that it was fitted to; only the reward's may be chosen anew.

    Raises:
        ConfigError: If a value is outside its range; the message names the field, what was expected and what came.
    """

    student_kind = "surrogate"

    file: str = option("")
    """Surrogate: the file that `atesd fit-surrogate` wrote. [ours]"""
    on_extrapolation: Literal["truncate", "warn", "raise"] = choice("truncate", "truncate", "warn", "raise")
    """Surrogate: in a window outside of what was fitted, end the episode, warn, or fail. [ours]"""
