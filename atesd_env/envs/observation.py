"""What a controller may know of a run: running statistics, and the observation made of them.

``FEATURES`` is the single source of the documentation. All scalings are fixed functions, never running normalisers, so that
a controller can move from one student to another.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", float, NDArray[np.float64])
"""A number, or one for each of K runs [K]."""


def each(function: Callable[[float], float], values: Any) -> Any:
    """Returns ``function`` of a number, or of every entry of an array: the same bits, whatever else is in the array."""
    # Not numpy's own functions: they round differently with the processor and the array's length.
    if isinstance(values, np.ndarray):
        return np.fromiter(map(function, values.ravel().tolist()), np.float64, values.size).reshape(values.shape)
    return function(values)


def squash(value: Number) -> Number:
    """Maps non-negative quantities to [0, 1]: ``x / (1 + x)``, and infinity to 1; below 0 counts as 0.

    >>> squash(1.0)
    0.5
    """
    if isinstance(value, np.ndarray):
        positive = np.maximum(value, 0.0)
        return np.divide(positive, 1.0 + positive, out=np.ones_like(positive), where=positive != math.inf)
    positive = 0.0 if value < 0.0 else value
    return 1.0 if positive == math.inf else positive / (1.0 + positive)


@dataclass(frozen=True)
class RunningStatistics:
    """What a controller may know of a run, as raw numbers; zero where nothing has been measured yet.

    Attributes carry the names of ``FEATURES``, in order; ``num_windows`` counts the windows seen. Those of K runs at once are arrays
    [K] in each attribute: ``advance`` and ``observation`` take both, and give each run the bits that it has alone.
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
        scale: The fixed function from the raw number, or from an array of them, to [low, high].
        formula: The same function, for people.
        meaning: One sentence.
    """

    name: str
    low: float
    high: float
    scale: Callable[[Any], Any]
    formula: str
    meaning: str


def _identity(value: Any) -> Any:
    return value


def _tanh_10(value: Any) -> Any:
    return each(math.tanh, 10.0 * value)


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
        lambda value: each(math.tanh, value / 5.0),
        "tanh(x/5)",
        "Natural log of the gradient norm, last window.",
    ),
    Feature("rollout_success", 0, 1, _identity, "x", "Share of right rollouts, last window."),
    Feature("rollout_length", 0, 1, _identity, "x", "Mean rollout length / max_new_tokens, last window."),
    Feature("truncation_rate", 0, 1, _identity, "x", "Share of rollouts cut at max_new_tokens, last window."),
    Feature("learning_progress", -1, 1, _tanh_10, "tanh(10x)", "Learning progress of the last window."),
)
"""The features of the observation, in order: the paper's six first."""
NUM_PAPER_FEATURES = 6
"""The paper's state: the first features of the observation."""


FEATURE_NAMES: tuple[str, ...] = tuple(feature.name for feature in FEATURES)
"""Names of the observation's entries, in order."""


_POSITIONS = {
    scale: [position for position, feature in enumerate(FEATURES) if feature.scale is scale]
    for scale in {feature.scale for feature in FEATURES} - {_identity}
}
"""Function -> the features that it scales: those of many runs are scaled together."""


_LOW = np.asarray([feature.low for feature in FEATURES], dtype=np.float32)


_HIGH = np.asarray([feature.high for feature in FEATURES], dtype=np.float32)


_BOUNDS = _LOW.tolist(), _HIGH.tolist()


_SCALED = [(position, scale) for scale, positions in _POSITIONS.items() for position in positions]


_features = operator.attrgetter(*FEATURE_NAMES)


def stacked(statistics: RunningStatistics) -> NDArray[np.float64]:
    """Returns the attributes in order, [1 + num_features], or of K runs [1 + num_features, K]; ``RunningStatistics(*it)`` undoes it."""
    return np.array([statistics.num_windows, *_features(statistics)], dtype=np.float64)


def initial_statistics(probe_nll: float) -> RunningStatistics:
    """Returns the statistics before the first window: only the base model's probe NLL is known."""
    return RunningStatistics(probe_nll_ema=probe_nll)


def advance(
    before: RunningStatistics, row: Mapping[str, Any], *, windows: int, max_new_tokens: int, ema_coefficient: float
) -> RunningStatistics:
    """Returns the statistics after one more window.

    Args:
        before: Statistics before the window; of one run, or arrays [K].
        row: The window's row (``COLUMNS``); numbers, or arrays [K].
        windows: Windows of the episode.
        max_new_tokens: Longest rollout, in tokens.
        ema_coefficient: Weight of the new window in the moving averages; the first window sets them.
    """
    first: Any = before.num_windows == 0
    if isinstance(first, np.ndarray) and not first.any():
        first = False  # the same for all, and faster
    kept = 1.0 - ema_coefficient
    loss, mismatch, nll = row["student/loss"], row["student/mismatch"], row["probe/nll"]
    loss_ema = _unless(first, kept * before.loss_ema + ema_coefficient * loss, loss)
    mismatch_ema = _unless(first, kept * before.mismatch_ema + ema_coefficient * mismatch, mismatch)
    # The probe is measured before the first window too, so its average starts there.
    probe_nll_ema = kept * before.probe_nll_ema + ema_coefficient * nll
    ratio = row["exposure/reveal_ratio"]
    after = object.__new__(RunningStatistics)
    # A fourth of what ``RunningStatistics(...)`` takes, which sets the attributes of a frozen class one by one.
    vars(after).update(
        num_windows=before.num_windows + 1,
        progress=row["window"] / windows,
        reveal_ratio_ema=_unless(first, kept * before.reveal_ratio_ema + ema_coefficient * ratio, ratio),
        loss_ema=loss_ema,
        mismatch_ema=mismatch_ema,
        probe_nll_ema=probe_nll_ema,
        self_confidence=row["student/self_confidence"],
        loss_slope=_unless(first, loss_ema - before.loss_ema, 0.0),
        mismatch_slope=_unless(first, mismatch_ema - before.mismatch_ema, 0.0),
        probe_nll_slope=probe_nll_ema - before.probe_nll_ema,
        student_entropy=row["student/entropy"],
        teacher_entropy=row["teacher/entropy"],
        top1_disagreement=row["student/top1_disagreement"],
        log_grad_norm=_log_norm(row["student/grad_norm"]),
        rollout_success=row["rollout/success_rate"],
        rollout_length=row["rollout/length"] / max_new_tokens,
        truncation_rate=row["rollout/truncation_rate"],
        learning_progress=row["reward/progress"],
    )
    return after


def _unless(first: Any, value: Any, in_first: Any) -> Any:
    """Returns ``in_first`` where a run's window is its first, else ``value``."""
    if isinstance(first, np.ndarray):
        return np.where(first, in_first, value)
    return in_first if first else value


def without_updates(before: RunningStatistics, progress: float) -> RunningStatistics:
    """Returns the statistics after a window in which the student was not trained: what was measured last still holds.

    Args:
        before: Statistics before the window, of one run.
        progress: Windows done / windows of the episode.
    """
    still = {"loss_slope": 0.0, "mismatch_slope": 0.0, "probe_nll_slope": 0.0, "learning_progress": 0.0}
    return dataclasses.replace(before, num_windows=before.num_windows + 1, progress=progress, **still)


def _log_norm(norm: Any) -> Any:
    return each(math.log, np.maximum(norm, 1e-8) if isinstance(norm, np.ndarray) else max(norm, 1e-8))


def observation(statistics: RunningStatistics) -> NDArray[np.float32]:
    """Returns the observation, float32 [num_features], each feature scaled and kept inside its bounds.

    What is not a number (a student that breaks may measure it) reads 0, as before any measurement. Of statistics that are
    arrays [K], the observations [K, num_features].
    """
    if isinstance(statistics.num_windows, np.ndarray):
        values = stacked(statistics)[1:]
        for scale, positions in _POSITIONS.items():
            values[positions] = scale(values[positions])
        values[np.isnan(values)] = 0.0
        return np.minimum(np.maximum(values, _LOW[:, None]), _HIGH[:, None]).T.astype(np.float32, order="C")
    alone = list(_features(statistics))
    for position, scale in _SCALED:
        alone[position] = scale(alone[position])
    # Plain comparisons, which a number that is none fails: a third of the time that numpy takes.
    inside = [
        value if low <= value <= high else low if value < low else high if value > high else 0.0
        for value, low, high in zip(alone, *_BOUNDS, strict=True)
    ]
    return np.array(inside, dtype=np.float32)


def observation_bounds() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns the lower and upper bounds of the observation, float32 [num_features] each."""
    return _LOW.copy(), _HIGH.copy()
