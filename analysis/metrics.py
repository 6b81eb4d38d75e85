"""The measures: by which agents are compared, which way each is better, how far it reaches. So none is called the wrong way round."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.checks import listed, nearest
from analysis.columns import unit_of
from analysis.errors import AnalysisError

HIGHER_IS_BETTER: dict[str, bool] = {
    "probe/accuracy": True,
    "probe/pass_at_k": True,
    "probe/grounded": True,
    "rollout/success_rate": True,
    "reward/progress": True,
    "reward/total": True,
    "return": True,
    "returns": True,
    "toy/reached_rate": True,
    "is_reached": True,
    "drop": True,
    "probe/nll": False,
    "student/mismatch": False,
    "student/loss": False,
    "toy/regret": False,
    "rollout/truncation_rate": False,
    "num_updates": False,
    "num_tokens": False,
    "num_trained_tokens": False,
    "controller_sec": False,
    "run_sec": False,
}
"""Column of rows or outcomes -> whether more of it is better. What is in neither way better (a length, an entropy) is not here."""

METRICS: dict[str, bool] = {
    name: HIGHER_IS_BETTER[name]
    for name in (
        "probe/accuracy",
        "probe/nll",
        "probe/pass_at_k",
        "probe/grounded",
        "rollout/success_rate",
        "student/mismatch",
        "student/loss",
        "return",
    )
}
"""What agents can be compared by -> whether more is better; "return" is the sum of a run's rewards."""


def direction(
    measure: str,
    *,
    outcomes: pd.DataFrame | None = None,
    higher_is_better: bool | None = None,
    known: Iterable[str] = (),
) -> bool:
    """Returns whether more of a measure is better.

    Args:
        measure: A column's name. "area" and "window" (of ``area_under_curve`` and ``time_to_threshold``) take their direction
            from what they were made of: an area has that of its column, and a threshold is better reached early.
        outcomes: The frame that the measure stands in, for "area".
        higher_is_better: What the caller says; needed where the table is silent.
        known: Further names to suggest where the measure is misspelt.

    Raises:
        AnalysisError: If the table is silent and the caller too, or if the caller contradicts the table.
    """
    told = _told(measure, outcomes)
    if told is None and higher_is_better is None:
        raise AnalysisError(
            f"measure: expected one with a known direction, got {measure!r}; pass higher_is_better=True or False"
            f"{nearest(measure, [*HIGHER_IS_BETTER, *known], ' ({})')}."
        )
    if told is not None and higher_is_better is not None and told != higher_is_better:
        raise AnalysisError(
            f"higher_is_better: expected {told} for {measure}, of which {'more' if told else 'less'} is better, got "
            f"{higher_is_better}; leave the argument out."
        )
    return bool(higher_is_better) if told is None else told


def bounds(measure: str, values: NDArray[np.float64], outcomes: pd.DataFrame | None = None) -> tuple[float, float]:
    """Returns the least and the largest mean that a measure can have: an interval that passes them is cut there.

    Only shares have bounds: columns whose unit is "0..1", and "is_reached".

    Args:
        measure: A column's name, or "area", as in ``direction``.
        values: Outcomes, any shape; what is not in [0, 1] (in percent, say) is no share, whatever it is called.
        outcomes: The frame that the measure stands in, for "area".
    """
    column = _column(measure, outcomes)
    is_share = column == "is_reached" or unit_of(column) == "0..1"
    in_bounds = is_share and bool(((values >= 0) & (values <= 1) | np.isnan(values)).all())
    return (0.0, 1.0) if in_bounds else (-math.inf, math.inf)


def difference_bounds(
    measure: str, values: NDArray[np.float64], outcomes: pd.DataFrame | None = None
) -> tuple[float, float]:
    """Returns the same of differences between two agents."""
    low, high = bounds(measure, values, outcomes)
    return low - high, high - low


def known_metrics(
    metrics: str | Sequence[str], known: Iterable[str] = METRICS, *, argument: str = "metric"
) -> list[str]:
    """Returns metrics as a list; AnalysisError, with the nearest known name, if one is unknown."""
    known = tuple(known)
    for metric in listed(metrics):
        if metric not in known:
            raise AnalysisError(
                f"{argument}: expected one of {', '.join(known)}, got {metric!r}; pass one of these"
                f"{nearest(metric, known, ' ({})')}."
            )
    return listed(metrics)


def _told(measure: str, outcomes: pd.DataFrame | None) -> bool | None:
    return False if measure == "window" else HIGHER_IS_BETTER.get(_column(measure, outcomes))


def _column(measure: str, outcomes: pd.DataFrame | None) -> str:
    """Returns what a measure was made of, itself but for an area."""
    if measure == "area" and outcomes is not None and "column" in outcomes:
        columns = outcomes["column"].astype(str).unique()
        return columns[0] if len(columns) == 1 else measure
    return measure
