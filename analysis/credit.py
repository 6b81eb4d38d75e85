"""What decisions were worth: the paper's return R of each, and the parts that it is made of.

    R = G_lp + grounded_weight * G_gt,   G_lp = sum over i = 1..L of gamma^(i-1) * (progress of the decision's i-th window)

with G_gt the mean of the teacher-grounded scores with the same weights (paper, the controller's reward). The same numbers as
the controllers were trained on, computed from the logged rows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.checks import (
    CONFIGURATION,
    DIFFERING,
    require_columns,
    require_comparable,
    require_distinct_runs,
    require_finite,
)
from analysis.errors import AnalysisError

SETTINGS = ("gamma", "lookahead", "grounded_weight")
"""Fields of the configuration that R depends on."""

PARTS = ("own_progress", "later_progress", "discount", "grounded")
"""The parts of R, in nats per token; they add up to it."""


def decision_returns(
    frame: pd.DataFrame,
    *,
    gamma: float | None = None,
    lookahead: int | None = None,
    grounded_weight: float | None = None,
    with_tail: bool = False,
) -> pd.DataFrame:
    """Returns the paper's return R of every decision, and the parts that it is made of.

    Args:
        frame: Rows of runs, as ``load_runs(path, config=analysis.credit.SETTINGS)`` returns them.
        gamma: Discount in [0, 1]; None takes each run's own.
        lookahead: L, the windows that a decision is credited with; None takes each run's own.
        grounded_weight: Weight of the grounded score; None takes each run's own.
        with_tail: Also return the last L - 1 decisions of a run, with the windows that were made.

    Returns:
        One line for each decision: run, env_id, agent, seed, window (the first that was made under it), reveal_ratio;
        ``own_progress`` (learning progress of that window), ``later_progress`` (of the L - 1 after it, undiscounted),
        ``discount`` (what discounting takes away, at most 0 with positive progress), ``grounded`` (weight x G_gt); ``returns``,
        their sum, which is R; and ``num_windows`` credited (fewer than L in the tail).

    Raises:
        AnalysisError: If a setting is neither given nor in the frame or is out of range, or windows of a run are missing.
    """
    given = {"gamma": gamma, "lookahead": lookahead, "grounded_weight": grounded_weight}
    needed = [f"config/{name}" for name, value in given.items() if value is None]
    missing = [name for name in needed if name not in frame]
    if missing:
        raise AnalysisError(
            f"frame: expected the columns {', '.join(missing)}, got none of them; load with config={list(SETTINGS)}, or pass "
            "the settings."
        )
    names = ("run", "env_id", "agent", "seed", "window", "exposure/reveal_ratio", "reward/progress", "probe/grounded")
    require_columns(frame, (*names, *needed))
    require_distinct_runs(frame)
    require_finite(frame, ("reward/progress", "probe/grounded"))
    parts = []
    for run, rows in frame.groupby("run", observed=True, sort=False):
        rows = rows.sort_values("window")
        settings = {name: _setting(rows, name, value, run) for name, value in given.items()}
        parts.append(_decisions(rows, run, settings, with_tail=with_tail))
    return pd.concat(parts, ignore_index=True)


def _setting(rows: pd.DataFrame, name: str, value: float | None, run: Any) -> float:
    number = float(rows[f"config/{name}"].iloc[0]) if value is None else float(value)
    is_in_range = {"gamma": 0 <= number <= 1, "lookahead": number >= 1 and number == int(number or 0)}.get(
        name, number >= 0
    )
    if math.isnan(number) or not is_in_range:
        raise AnalysisError(
            f"{name} of run {run}: expected gamma in [0, 1], a whole lookahead of at least 1 and a weight of at least 0, got "
            f"{number!r}; pass it."
        )
    return number


def _decisions(rows: pd.DataFrame, run: Any, settings: dict[str, float], *, with_tail: bool) -> pd.DataFrame:
    progress = rows["reward/progress"].to_numpy(dtype=float)
    scores = rows["probe/grounded"].to_numpy(dtype=float)
    windows = rows["window"].to_numpy()
    if (np.diff(windows) != 1).any():
        raise AnalysisError(f"run {run}: expected every window, got gaps; do not filter rows before this.")
    length = int(settings["lookahead"])
    weights = settings["gamma"] ** np.arange(length, dtype=float)
    num_decisions = len(rows) if with_tail else max(len(rows) - length + 1, 0)
    credited = np.minimum(length, len(rows) - np.arange(num_decisions))
    own = progress[:num_decisions]
    plain = _weighted(progress, np.ones(length), num_decisions)
    discounted = _weighted(progress, weights, num_decisions)
    total_weight = np.cumsum(weights)[credited - 1]
    grounded = settings["grounded_weight"] * _weighted(scores, weights, num_decisions) / total_weight
    return pd.DataFrame(
        {
            **{
                name: rows[name].iloc[:num_decisions].to_numpy()
                for name in ("run", "env_id", "agent", "seed", "window", CONFIGURATION, DIFFERING)
                if name in rows
            },
            "reveal_ratio": rows["exposure/reveal_ratio"].iloc[:num_decisions].to_numpy(dtype=float),
            "own_progress": own,
            "later_progress": plain - own,
            "discount": discounted - plain,
            "grounded": grounded,
            "returns": discounted + grounded,
            "num_windows": credited,
        }
    ).astype({"run": "string", "env_id": "string", "agent": "string", "seed": "Int64"})


def _weighted(values: NDArray[np.float64], weights: NDArray[np.float64], num: int) -> NDArray[np.float64]:
    """Returns ``sum over i of weights[i] * values[t + i]`` for t < num, [num]; what lies beyond the run counts as 0."""
    padded = np.concatenate([values, np.zeros(len(weights) - 1)])
    return np.correlate(padded, weights, mode="valid")[:num]


def credit_decomposition(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns what the agents' decisions were credited for: means over decisions, then over runs.

    Args:
        frame: What ``decision_returns`` returns.

    Returns:
        One line for each environment and agent: env_id, agent, own_progress, later_progress, discount, grounded, returns (the
        four parts add up to it), ``grounded_share`` (spread of the grounded part over decisions / spread of R: how much of what
        tells decisions apart is grounding; NaN where R does not vary), num_decisions, num_runs.
    """
    require_columns(frame, ("run", "env_id", "agent", "returns", *PARTS), "what decision_returns returns")
    require_comparable(frame)
    lines = []
    for (env_id, agent), rows in frame.groupby(["env_id", "agent"], observed=True):
        runs = rows.groupby("run", observed=True)[[*PARTS, "returns"]].mean()
        spread = rows["returns"].std(ddof=0)
        lines.append(
            {
                "env_id": env_id,
                "agent": agent,
                **runs.mean().to_dict(),
                "grounded_share": float(rows["grounded"].std(ddof=0) / spread) if spread > 0 else math.nan,
                "num_decisions": len(rows),
                "num_runs": len(runs),
            }
        )
    return pd.DataFrame(lines)
