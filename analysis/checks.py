"""What every function of frames asks of its frame."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import pandas as pd

from analysis.errors import AnalysisError

CONFIGURATION = "configuration"
"""Column of ``load_runs``: a fingerprint of the run's configuration."""

DIFFERING = "configuration_differs"
"""Column of ``load_runs``: the fields in which the runs' configurations differ, with the run's values."""


def nearest(name: str, known: Iterable[str], pattern: str = "{}") -> str:
    """Returns "did you mean ...?" in a pattern, or nothing where no known name is near.

    >>> nearest("probe/nl", ["probe/nll", "window"], " ({})")
    ' (did you mean probe/nll?)'
    """
    near = difflib.get_close_matches(name, sorted(set(map(str, known))), n=3, cutoff=0.8)
    return pattern.format(f"did you mean {' or '.join(near)}?") if near else ""


def require_columns(frame: pd.DataFrame, names: Iterable[str], source: str = "what load_runs returns") -> None:
    """Raises AnalysisError if a frame has no rows, or lacks a column; a misspelt one gets the nearest name suggested.

    Args:
        frame: The frame.
        names: Columns that it must have.
        source: What should have been passed, for the message.
    """
    names = tuple(names)
    missing = [name for name in names if name not in frame]
    if missing:
        hints = "".join(nearest(name, frame.columns, " ({})") for name in missing)
        raise AnalysisError(
            f"frame: expected the columns {', '.join(names)}, got none of {', '.join(missing)}{hints}; pass {source}."
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
    """Raises AnalysisError if a frame mixes environments, or configurations of one."""
    if "env_id" in frame:
        env_ids = sorted(frame["env_id"].dropna().unique())
        if len(env_ids) > 1:
            raise AnalysisError(
                f"frame: expected runs of one environment, got {', '.join(env_ids)}; choose one, such as "
                f"frame[frame['env_id'] == {env_ids[0]!r}]."
            )
    require_one_configuration(frame)


def require_one_configuration(frame: pd.DataFrame) -> None:
    """Raises AnalysisError, naming the fields that differ, if runs of one environment have several configurations.

    A frame without the column "configuration" (one of the user's own) is taken at its word.
    """
    if CONFIGURATION not in frame:
        return
    names = [name for name in ("env_id", CONFIGURATION, DIFFERING) if name in frame]
    kinds = frame[names].astype("string").drop_duplicates()
    for _, ours in kinds.groupby("env_id") if "env_id" in kinds else [("", kinds)]:
        fingerprints = ours[CONFIGURATION].dropna().unique()
        if len(fingerprints) > 1:
            raise AnalysisError(
                f"frame: expected runs of one configuration, got {len(fingerprints)}: {_differences(ours)}; choose one, such "
                f"as frame[frame['{CONFIGURATION}'] == {fingerprints[0]!r}]."
            )


def _differences(kinds: pd.DataFrame) -> str:
    texts = kinds[DIFFERING].fillna("").tolist() if DIFFERING in kinds else [""] * len(kinds)
    names = kinds[CONFIGURATION].tolist()
    if any(texts):
        return "; ".join(f"{text} ({name})" for text, name in zip(texts, names, strict=True))
    return f"{', '.join(names)} (load them by one call of load_runs, which tells the fields that differ)"


def group_numbers(frame: pd.DataFrame, prefix: str) -> list[int]:
    """Returns the difficulty groups g for which a frame has a column ``<prefix>_<g>``, in order."""
    endings = (str(name).removeprefix(f"{prefix}_") for name in frame.columns if str(name).startswith(f"{prefix}_"))
    return sorted(int(ending) for ending in endings if ending.isdigit())
