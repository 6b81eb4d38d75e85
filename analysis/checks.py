"""What every function of frames asks of its frame."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from analysis.errors import AnalysisError


def require_columns(frame: pd.DataFrame, names: Iterable[str], source: str = "what load_runs returns") -> None:
    """Raises AnalysisError if a frame has no rows, or lacks a column.

    Args:
        frame: The frame.
        names: Columns that it must have.
        source: What should have been passed, for the message.
    """
    names = tuple(names)
    missing = [name for name in names if name not in frame]
    if missing:
        raise AnalysisError(
            f"frame: expected the columns {', '.join(names)}, got none of {', '.join(missing)}; pass {source}."
        )
    if frame.empty:
        raise AnalysisError("frame: expected at least one row, got none; check what the rows were filtered by.")


def require_measured(frame: pd.DataFrame, names: Iterable[str]) -> None:
    """Raises AnalysisError if a column holds nothing but nulls."""
    for name in names:
        if frame[name].isna().all():
            raise AnalysisError(
                f"frame: expected numbers in the column {name}, got only nulls; pass runs that have them."
            )


def require_one_environment(frame: pd.DataFrame) -> None:
    """Raises AnalysisError if a frame mixes environments."""
    if "env_id" not in frame:
        return
    env_ids = sorted(frame["env_id"].dropna().unique())
    if len(env_ids) > 1:
        raise AnalysisError(
            f"frame: expected runs of one environment, got {', '.join(env_ids)}; choose one, such as "
            f"frame[frame['env_id'] == {env_ids[0]!r}]."
        )


def group_numbers(frame: pd.DataFrame, prefix: str) -> list[int]:
    """Returns the difficulty groups g for which a frame has a column ``<prefix>_<g>``, in order."""
    endings = (str(name).removeprefix(f"{prefix}_") for name in frame.columns if str(name).startswith(f"{prefix}_"))
    return sorted(int(ending) for ending in endings if ending.isdigit())
