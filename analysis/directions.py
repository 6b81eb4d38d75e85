"""Which way is better: the one table that every comparison asks, so that none can be called the wrong way round."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from analysis.checks import nearest
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


def _told(measure: str, outcomes: pd.DataFrame | None) -> bool | None:
    if measure == "window":
        return False
    if measure == "area" and outcomes is not None and "column" in outcomes:
        columns = outcomes["column"].astype(str).unique()
        return HIGHER_IS_BETTER.get(columns[0]) if len(columns) == 1 else None
    return HIGHER_IS_BETTER.get(measure)
