"""What a window is summed up as: the row that is logged, and the observation made from it.

Two tables, ``COLUMNS`` and ``FEATURES``, are the single source of the documentation. All scalings are fixed functions,
never running normalisers, so that a controller can move from one student to another. Pure functions of numbers; no
torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = dict[str, float | int | None]
"""One window of one student: column name -> value; None where nothing was measured."""


@dataclass(frozen=True)
class Column:
    """A column of the row: name, type ("int", "float" or "float or null"), unit, one sentence."""

    name: str
    type: str
    unit: str
    meaning: str


COLUMNS: tuple[Column, ...] = (
    Column("window", "int", "windows", "Number of this hold window in its episode, from 1."),
    Column("update", "int", "updates", "Student updates made since the episode began, this window included."),
    Column(
        "exposure/reveal_ratio", "float", "0..1", "Reveal ratio that was asked for, mean over the window's rollouts."
    ),
    Column(
        "exposure/shown_ratio",
        "float",
        "0..1",
        "Share of the reference steps that the teacher saw, after flooring and cutting.",
    ),
    Column(
        "exposure/cut_rate", "float", "0..1", "Share of teacher prompts that lost asked-for steps to max_prompt_tokens."
    ),
    Column(
        "student/loss", "float", "nats/token", "The loss that the updates minimised, mean over the window's updates."
    ),
    Column(
        "student/mismatch",
        "float",
        "nats/token",
        "KL(teacher||student) on the rollout tokens, full vocabulary, before each update.",
    ),
    Column(
        "student/self_confidence",
        "float",
        "0..1",
        "exp of the mean log-probability that the student gives its own rollout tokens.",
    ),
    Column(
        "student/entropy", "float", "nats/token", "Entropy of the student's next-token distribution on the rollouts."
    ),
    Column(
        "student/top1_disagreement",
        "float",
        "0..1",
        "Share of rollout tokens where student and teacher prefer different tokens.",
    ),
    Column("student/grad_norm", "float", "1", "Gradient norm of the adapters before clipping, mean over the updates."),
    Column(
        "teacher/entropy", "float", "nats/token", "Entropy of the teacher's next-token distribution on the rollouts."
    ),
    Column("rollout/success_rate", "float", "0..1", "Share of rollouts whose final answer is right."),
    Column("rollout/length", "float", "tokens", "Mean length of a rollout, end token included."),
    Column(
        "rollout/truncation_rate",
        "float",
        "0..1",
        "Share of rollouts that reached max_new_tokens without an end token.",
    ),
    Column("rollout/num_tokens", "int", "tokens", "Tokens sampled in the window."),
    Column(
        "probe/nll",
        "float",
        "nats/token",
        "Student's negative log-likelihood of the probe's reference solutions, after the window.",
    ),
    Column(
        "probe/grounded",
        "float",
        "nats/token",
        "Teacher's mean log-probability of the same solutions at the window's reveal ratio.",
    ),
    Column(
        "probe/accuracy",
        "float or null",
        "0..1",
        "Greedy accuracy on the probe; null in windows where it is not measured.",
    ),
    Column(
        "probe/pass_at_k",
        "float or null",
        "0..1",
        "Unbiased pass@k on the probe (k = probe_pass_k); null if it is off.",
    ),
    Column(
        "reward/progress",
        "float",
        "nats/token",
        "Learning progress: drop of probe NLL in this window (its positive part by default).",
    ),
    Column(
        "reward/total",
        "float",
        "nats/token",
        "The reward: progress + grounded_weight * probe/grounded; -collapse_nll if the student breaks.",
    ),
)
"""The columns of every row, in order. With groups > 1, `exposure/reveal_ratio_<g>` columns follow (`group_columns`)."""

TIME_COLUMNS: tuple[Column, ...] = (
    Column("time/rollout_sec", "float", "seconds", "Wall time of sampling rollouts in the window."),
    Column("time/update_sec", "float", "seconds", "Wall time of scoring, gradients and optimizer steps."),
    Column("time/probe_sec", "float", "seconds", "Wall time of the probe."),
    Column("time/window_sec", "float", "seconds", "Wall time of the whole window: everything the environment did."),
    Column(
        "time/controller_sec",
        "float or null",
        "seconds",
        "Wall time that the agent took between the last window and this one, to learn and to decide; null where a run goes on.",
    ),
)
"""Logged beside the row, and kept out of ``info``: everything in ``info`` repeats bit for bit with the seed."""


LOG_COLUMNS: tuple[Column, ...] = (
    Column(
        "probe/nll_before",
        "float",
        "nats/token",
        "Only in the first window's row: probe NLL of the base model, before anything was learned.",
    ),
    Column(
        "agent/<name>", "float", "", "What the agent tells of its decision, such as `agent/c1` of the Beta controller."
    ),
    Column("status", "text", "", '"running", "truncated" (the budget is used up) or "terminated" (the student broke).'),
    Column("reason", "text or null", "", "Why the student counts as broken."),
    Column("non_finite", "text", "", "Only where it applies: the columns that were not finite numbers, and are null."),
)
"""Logged beside the row by the recorder, not part of ``info``."""


def group_columns(groups: int) -> tuple[Column, ...]:
    """Returns the extra columns of an environment with several difficulty groups (none for one group)."""
    if groups == 1:
        return ()
    return tuple(
        Column(
            f"exposure/reveal_ratio_{group}",
            "float",
            "0..1",
            f"Reveal ratio of difficulty group {group} (0 is easiest).",
        )
        for group in range(groups)
    )


def squash(value: float) -> float:
    """Maps a non-negative quantity to [0, 1]: ``x / (1 + x)``, and infinity to 1; below 0 counts as 0.

    >>> squash(1.0)
    0.5
    """
    return 1.0 if value == math.inf else max(value, 0.0) / (1.0 + max(value, 0.0))


@dataclass(frozen=True)
class RunningStatistics:
    """What a controller may know of a run, as raw numbers; zero where nothing has been measured yet.

    Attributes carry the names of ``FEATURES``; ``num_windows`` counts the windows seen.
    """

    num_windows: int = 0
    progress: float = 0.0
    reveal_ratio_ema: float = 0.0
    loss_ema: float = 0.0
    mismatch_ema: float = 0.0
    probe_nll_ema: float = 0.0
    self_confidence: float = 0.0
    loss_slope: float = 0.0
    mismatch_slope: float = 0.0
    probe_nll_slope: float = 0.0
    student_entropy: float = 0.0
    teacher_entropy: float = 0.0
    top1_disagreement: float = 0.0
    log_grad_norm: float = 0.0
    rollout_success: float = 0.0
    rollout_length: float = 0.0
    truncation_rate: float = 0.0
    learning_progress: float = 0.0


@dataclass(frozen=True)
class Feature:
    """A feature of the observation.

    Attributes:
        name: Attribute of ``RunningStatistics`` that it is computed from.
        low: Lower bound after scaling.
        high: Upper bound after scaling.
        scale: The fixed function from the raw number to [low, high].
        formula: The same function, for people.
        meaning: One sentence.
    """

    name: str
    low: float
    high: float
    scale: Callable[[float], float]
    formula: str
    meaning: str


def _identity(value: float) -> float:
    return value


def _tanh_10(value: float) -> float:
    return math.tanh(10.0 * value)


FEATURES: tuple[Feature, ...] = (
    Feature("progress", 0, 1, _identity, "x", "Windows done / windows of the episode (paper)."),
    Feature("reveal_ratio_ema", 0, 1, _identity, "x", "Moving average of the reveal ratio (paper)."),
    Feature("loss_ema", 0, 1, squash, "x/(1+x)", "Moving average of the loss (paper)."),
    Feature("mismatch_ema", 0, 1, squash, "x/(1+x)", "Moving average of the teacher-student mismatch (paper)."),
    Feature(
        "probe_nll_ema", 0, 1, squash, "x/(1+x)", "Moving average of the probe NLL; starts at the base model's (paper)."
    ),
    Feature("self_confidence", 0, 1, _identity, "x", "Student's self-confidence in the last window (paper)."),
    Feature("loss_slope", -1, 1, _tanh_10, "tanh(10x)", "Change of loss_ema in the last window."),
    Feature("mismatch_slope", -1, 1, _tanh_10, "tanh(10x)", "Change of mismatch_ema in the last window."),
    Feature("probe_nll_slope", -1, 1, _tanh_10, "tanh(10x)", "Change of probe_nll_ema in the last window."),
    Feature("student_entropy", 0, 1, squash, "x/(1+x)", "Student's entropy on the rollouts, last window."),
    Feature("teacher_entropy", 0, 1, squash, "x/(1+x)", "Teacher's entropy on the rollouts, last window."),
    Feature(
        "top1_disagreement", 0, 1, _identity, "x", "Share of tokens where the two prefer different tokens, last window."
    ),
    Feature(
        "log_grad_norm",
        -1,
        1,
        lambda x: math.tanh(x / 5.0),
        "tanh(x/5)",
        "Natural log of the gradient norm, last window.",
    ),
    Feature("rollout_success", 0, 1, _identity, "x", "Share of right rollouts, last window."),
    Feature("rollout_length", 0, 1, _identity, "x", "Mean rollout length / max_new_tokens, last window."),
    Feature("truncation_rate", 0, 1, _identity, "x", "Share of rollouts cut at max_new_tokens, last window."),
    Feature("learning_progress", -1, 1, _tanh_10, "tanh(10x)", "Learning progress of the last window."),
)
"""The features of the observation, in order: the paper's six first."""

FEATURE_NAMES: tuple[str, ...] = tuple(feature.name for feature in FEATURES)


def initial_statistics(probe_nll: float) -> RunningStatistics:
    """Returns the statistics before the first window: only the base model's probe NLL is known."""
    return RunningStatistics(probe_nll_ema=probe_nll)


def advance(
    before: RunningStatistics, row: Mapping[str, Any], *, windows: int, max_new_tokens: int, ema_coefficient: float
) -> RunningStatistics:
    """Returns the statistics after one more window.

    Args:
        before: Statistics before the window.
        row: The window's row (``COLUMNS``).
        windows: Windows of the episode.
        max_new_tokens: Longest rollout, in tokens.
        ema_coefficient: Weight of the new window in the moving averages; the first window sets them.
    """
    first = before.num_windows == 0

    def average(old: float, new: float) -> float:
        return new if first else (1.0 - ema_coefficient) * old + ema_coefficient * new

    loss_ema = average(before.loss_ema, row["student/loss"])
    mismatch_ema = average(before.mismatch_ema, row["student/mismatch"])
    # The probe is measured before the first window too, so its average starts there.
    probe_nll_ema = (1.0 - ema_coefficient) * before.probe_nll_ema + ema_coefficient * row["probe/nll"]
    return dataclasses.replace(
        before,
        num_windows=before.num_windows + 1,
        progress=row["window"] / windows,
        reveal_ratio_ema=average(before.reveal_ratio_ema, row["exposure/reveal_ratio"]),
        loss_ema=loss_ema,
        mismatch_ema=mismatch_ema,
        probe_nll_ema=probe_nll_ema,
        self_confidence=row["student/self_confidence"],
        loss_slope=0.0 if first else loss_ema - before.loss_ema,
        mismatch_slope=0.0 if first else mismatch_ema - before.mismatch_ema,
        probe_nll_slope=probe_nll_ema - before.probe_nll_ema,
        student_entropy=row["student/entropy"],
        teacher_entropy=row["teacher/entropy"],
        top1_disagreement=row["student/top1_disagreement"],
        log_grad_norm=math.log(max(row["student/grad_norm"], 1e-8)),
        rollout_success=row["rollout/success_rate"],
        rollout_length=row["rollout/length"] / max_new_tokens,
        truncation_rate=row["rollout/truncation_rate"],
        learning_progress=row["reward/progress"],
    )


def observation(statistics: RunningStatistics) -> NDArray[np.float32]:
    """Returns the observation, float32 [num_features], each feature scaled and kept inside its bounds.

    What is not a number (a student that breaks may measure it) reads 0, as before any measurement.
    """
    values = [feature.scale(getattr(statistics, feature.name)) for feature in FEATURES]
    return np.clip(np.nan_to_num(values), *observation_bounds()).astype(np.float32)


def observation_bounds() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns the lower and upper bounds of the observation, float32 [num_features] each."""
    low = np.asarray([feature.low for feature in FEATURES], dtype=np.float32)
    high = np.asarray([feature.high for feature in FEATURES], dtype=np.float32)
    return low, high
