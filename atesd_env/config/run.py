"""What every run has, whoever its student is: the fields that agents may read, and what all configurations can do.

A configuration is flat and frozen. Every field is a keyword of ``gym.make`` and a flag of ``atesd run``; the text below a field
is its documentation on the command line and in the docs; "paper" is ATESD (arXiv 2605.11458), "OPSD" is arXiv 2601.18734,
"ours" is our choice. The fields of one kind of student stand in a leaf of their own: ``EnvConfig``, ``ToyConfig``,
``SurrogateConfig``, ``BenchConfig``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, Self, TypeVar

from atesd_env.config.checks import checked, choice, number
from atesd_env.errors import ConfigError
from atesd_env.hints import did_you_mean


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What defines a run of any student, except the seed (an argument of ``reset``); its leaves add their own fields.

    Values are stored as plain Python: numpy scalars become numbers, a whole number in a float field a float, a path a
    string, a list of names (as JSON has it) a tuple.

    Raises:
        ConfigError: If a value is outside its range; the message names the field, what was expected and what came.
    """

    student_kind = "student"
    """Whose configuration it is, for people."""
    has_problems = False
    """Whether such students learn from problems, each of which may have a ratio of its own."""

    # Exposure
    groups: int = number(1, 1, 16)
    """Difficulty groups, each with a reveal ratio of its own; 1 is one ratio for the whole batch. [paper: 1]"""

    action_ratios: Literal["group", "problem"] = choice("group", "group", "problem")
    """What has a reveal ratio of its own: each difficulty group, or each problem of the window, in the order of its updates. [paper:
    one for all]"""

    # Rollouts
    num_rollouts: int = number(16, 1)
    """Rollouts of one update (the effective batch), one for each problem. [OPSD: 32]"""
    max_new_tokens: int = number(48, 1)
    """Longest rollout in tokens. [OPSD: 1024 to 2048]"""

    # Episode
    windows: int = number(20, 1)
    """Hold windows (environment steps) of an episode. [ours]"""
    hold_window: int = number(3, 1)
    """Student updates of a hold window, all at the same reveal ratio: the paper's H. [ours; unpublished]"""

    # Probe
    probe_accuracy_every: int = number(5, 0)
    """Windows between measurements of the probe's greedy accuracy; 0 never measures it. [ours]"""
    probe_pass_k: int = number(0, 0, 64)
    """Also sample the probe k times and report pass@k; 0 is off. [ours]"""

    # Reward and statistics
    progress: Literal["positive", "signed"] = choice("positive", "positive", "signed", is_reward=True)
    """Learning progress of a window: the positive part of the drop in probe NLL, or the drop itself.
    [paper: positive]"""
    grounded_weight: float = number(0.1, 0, is_reward=True)
    """Weight of the teacher-grounded score in the reward: the paper's lambda_gt. [ours; unpublished]"""
    gamma: float = number(0.9, 0, 1, is_reward=True)
    """Discount of later measurements in a decision's return: the paper's g. [ours; unpublished]"""
    lookahead: int = number(3, 1, is_reward=True)
    """Measurements that a decision is credited for: the paper's L. [ours; unpublished]"""
    ema_coefficient: float = number(0.3, 0, 1, open_low=True)
    """Weight of the newest window in the observation's moving averages. [ours; unpublished]"""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, checked(field, getattr(self, field.name)))
        if self.action_ratios == "problem" and not self.has_problems:
            raise ConfigError(
                f"action_ratios: expected 'group' with a {self.student_kind}, which has no problems, got 'problem'; leave it out."
            )

    @property
    def num_ratios(self) -> int:
        """Reveal ratios of an action, its first entries."""
        return self.groups if self.action_ratios == "group" else self.hold_window * self.num_rollouts

    @property
    def action_size(self) -> int:
        """Entries of an action, each in [0, 1]: the reveal ratios, then whatever else it decides."""
        return self.num_ratios

    @classmethod
    def names(cls, mark: str | None = None) -> tuple[str, ...]:
        """Returns the names of the fields, or of those that carry a mark (``config.checks``), in order."""
        return tuple(field.name for field in dataclasses.fields(cls) if mark is None or field.metadata.get(mark))

    def keywords(self) -> dict[str, Any]:
        """Returns every field by its name: keywords of ``gym.make``, and what files record of a configuration."""
        return {name: getattr(self, name) for name in self.names()}

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with some fields changed.

        Raises:
            ConfigError: If a name is not a field of this leaf (the nearest is suggested), or a value is refused.
        """
        for name in changes:
            if name not in self.names():
                self._refuse(name)
        return dataclasses.replace(self, **changes)

    def _refuse(self, name: str) -> NoReturn:
        """Raises ConfigError for a name that is no field of this leaf; says whose it is, if another leaf has it."""
        for leaf in RunConfig.__subclasses__():
            if name in leaf.names():
                raise ConfigError(
                    f"{name}: expected a field of a {self.student_kind}, got {name!r}, which only a {leaf.student_kind} has; leave "
                    "it out, or choose another environment."
                )
        hint = did_you_mean(name, self.names(), f"the fields are {', '.join(self.names())}.")
        raise ConfigError(f"{name}: expected the name of a configuration field, got {name!r}; {hint}")


Leaf = TypeVar("Leaf", bound=RunConfig)
"""The configuration of one kind of student."""
