"""Rules without learning: the reveal ratio whose teacher scores best on the probe, by how right it is and how near.

The two terms are the paper's: the teacher-grounded score says how well the exposed teacher knows the reference solutions, the
mismatch how far it is from what the student writes. Each alone misleads on some students, so that ``BalanceController``
weighs one against the other. Whatever learns must beat these.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray

from agents.checking import config_of
from agents.options import checked_choice, checked_count, checked_number
from agents.planner import Planner, checked_ratios_to_try
from atesd_env.envs.branch import exposure_scores
from atesd_env.envs.contract import ExposureScores
from atesd_env.errors import ConfigError
from atesd_env.files.reading import read_json, reading

GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Ratios of the default grid, the paper's fixed sweep."""


WEIGHT = 0.06
"""What a nat of mismatch weighs against a nat of the grounded score: the middle of the weights that choose best on the bench's
train and validation instances, 0.04 to 0.1 (benchmarks/exposure_scores.py). [ours]"""


SCORES = ("grounded", "mismatch")
"""What ``meta`` weighs, in this order."""
META_FILE = Path(__file__).parent / "meta.json"
"""The weights that were learned on the bench's split train (benchmarks/exposure_scores.py)."""


def best_places(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Returns the place of the best ratio for each group (or problem), [groups], of values [N, groups]; among equals the first.

    For a group without values, which has no probe problems, it is the best of all groups together.
    """
    together = np.nanmean(values, axis=1, keepdims=True)
    best: NDArray[np.intp] = np.argmax(np.where(np.isnan(values), together, values), axis=0)
    return best


def balance(scores: ExposureScores, weight: float = WEIGHT) -> NDArray[np.float64]:
    """Returns the teacher-grounded score minus ``weight`` times the mismatch, [N, groups]."""
    return weighted(scores, (1.0, -weight))


def weighted(scores: ExposureScores, weights: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the sum of the ``SCORES`` by ``weights`` [2], [N, groups]."""
    return weights[0] * scores.grounded + weights[1] * scores.mismatch


class GroundedController(Planner):
    """Shows each difficulty group, or each problem, the ratio of a grid with the highest teacher-grounded score.

    A group's scores are those of its probe problems. Where the teacher is fixed, so are they: one look is enough. With
    ``by="problem"`` the problems of the next window are scored before each window (``action_ratios="problem"`` in the environment,
    which runs and comparisons choose by themselves). Among equals the lowest ratio is shown.
    ``diagnostics`` tells what a look costs, and the run's rows have it as ``agent/sampled_tokens`` and
    ``agent/scored_tokens``: tokens that were sampled, and that went through the model to be scored, prompts included.

    Args:
        env: The environment, one of ours.
        seed: Seed of the run; there is no randomness in the decisions.
        ratios: The grid, at least two reveal ratios in [0, 1].
        by: What has a ratio of its own, "group" or "problem".
        **options: Those of ``Planner``: ``every`` (1 by problem), ``start`` and ``initial_ratio``.

    Raises:
        ConfigError: If an argument is out of range, or the environment is not one of ours.
    """

    cost_names = ("sampled_tokens", "scored_tokens")
    problems: int | None = 0
    """Problems that the mismatch is measured on; None is all, and 0 does without it."""

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        seed: int = 0,
        *,
        ratios: Sequence[float] = GRID,
        by: Literal["group", "problem"] = "group",
        **options: Any,
    ) -> None:
        self.by = checked_choice("by", by, ("group", "problem"))
        super().__init__(env, seed, **({"every": 1} if by == "problem" else {}) | options)
        self.ratios = tuple(sorted(checked_ratios_to_try(ratios)))
        if by == "problem" and (self.every != 1 or config_of(env).action_ratios != "problem"):
            raise ConfigError(
                f"by: expected 'group', or an environment with action_ratios='problem' and every=1, got {by!r} with every={self.every} and "
                "another environment or number; make the environment with action_ratios='problem' and leave every out."
            )

    @staticmethod
    def environment_fields(by: str = "group", **_: Any) -> dict[str, str]:
        """Returns the fields that an environment must have for these options; runs are made with them."""
        return {"action_ratios": "problem"} if by == "problem" else {}

    def values(self, scores: ExposureScores) -> NDArray[np.float64]:
        """Returns how good each ratio is for each group (or problem), [N, groups]."""
        return scores.grounded

    def plan(self, student: int, ratios: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the best ratio for each group or problem; for a group without probe problems, that of all groups together."""
        scores = exposure_scores(
            self.env,
            self.ratios,
            student=student,
            with_mismatch=self.problems != 0,
            num_problems=self.problems or None,
            by_problem=self.by == "problem",
        )
        self.count(sampled_tokens=scores.num_sampled_tokens, scored_tokens=scores.num_scored_tokens)
        chosen = np.array([self.ratios[place] for place in best_places(self.values(scores))])
        # An instance may have fewer groups or problems than a decision has ratios; the others are nobody's.
        return np.pad(chosen, (0, self.groups - len(chosen)), mode="edge")


class MismatchController(GroundedController):
    """Shows each difficulty group the ratio of a grid with the lowest mismatch on rollouts of probe problems.

    Args:
        env: The environment.
        seed: Seed of the run.
        problems: Probe problems (or problems of the window) that a rollout is sampled to, the first ones, at least 1; None is all.
        **options: Those of ``GroundedController``.

    Raises:
        ConfigError: If an argument is out of range, or the environment is not one of ours.
    """

    def __init__(
        self, env: gymnasium.Env[Any, Any], seed: int = 0, *, problems: int | None = None, **options: Any
    ) -> None:
        super().__init__(env, seed, **options)
        self.problems = None if problems is None else checked_count("problems", problems, least=1)

    def values(self, scores: ExposureScores) -> NDArray[np.float64]:
        """Returns the mismatch with its sign turned, [N, groups]."""
        return -scores.mismatch


class BalanceController(MismatchController):
    """Shows each difficulty group the ratio of a grid with the highest ``grounded score - weight * mismatch``.

    Args:
        env: The environment.
        seed: Seed of the run.
        weight: Of the mismatch, at least 0.
        **options: Those of ``MismatchController``.

    Raises:
        ConfigError: If an argument is out of range, or the environment is not one of ours.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], seed: int = 0, *, weight: float = WEIGHT, **options: Any) -> None:
        super().__init__(env, seed, **options)
        self.weight = checked_number("weight", weight, least=0.0)

    def values(self, scores: ExposureScores) -> NDArray[np.float64]:
        """Returns one term against the other, [N, groups]."""
        return balance(scores, self.weight)


class MetaController(MismatchController):
    """Shows each difficulty group the ratio whose teacher scores best by weights that were learned on other students.

    They were learned on the bench's split train, from what its fixed ratios end at: a policy gradient without branches and
    without a run of its own (benchmarks/exposure_scores.py).

    Args:
        env: The environment.
        seed: Seed of the run.
        file: JSON file with ``{"weights": {"grounded": ..., "mismatch": ...}}``; None is the packaged one.
        **options: Those of ``MismatchController``.

    Raises:
        ConfigError: If an argument is out of range, or the environment is not one of ours.
        RunFilesError: If the file cannot be read.
    """

    def __init__(
        self, env: gymnasium.Env[Any, Any], seed: int = 0, *, file: str | os.PathLike[str] | None = None, **options: Any
    ) -> None:
        super().__init__(env, seed, **options)
        path = META_FILE if file is None else Path(file)
        with reading(path, "the weights of meta", remedy='write {"weights": {"grounded": 1, "mismatch": -0.06}}'):
            told = read_json(path)["weights"]
            self.weights = tuple(checked_number(name, told[name]) for name in SCORES)

    def values(self, scores: ExposureScores) -> NDArray[np.float64]:
        """Returns the weighted sum of the scores, [N, groups]."""
        return weighted(scores, self.weights)
