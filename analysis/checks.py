"""What every function of frames asks of its frame."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import numpy as np
import pandas as pd

from analysis.errors import AnalysisError

CONFIGURATION = "configuration"
"""Column of ``load_runs``: a fingerprint of the run's configuration."""

DIFFERING = "configuration_differs"
"""Column of ``load_runs``: the fields in which the runs' configurations differ, with the run's values."""


LARGEST = 1e150
"""Numbers from here on count as infinite: their squares are."""


def nearest(name: str, known: Iterable[str], pattern: str = "{}") -> str:
    """Returns "did you mean ...?" in a pattern, or nothing where no known name is near.

    >>> nearest("probe/nl", ["probe/nll", "window"], " ({})")
    ' (did you mean probe/nll?)'
    """
    near = difflib.get_close_matches(name, sorted(set(map(str, known))), n=3, cutoff=0.8)
    return pattern.format(f"did you mean {' or '.join(near)}?") if near else ""


def listed(names: str | Iterable[str]) -> list[str]:
    """Returns names as a list, each once; a single one may stand alone."""
    return [names] if isinstance(names, str) else list(dict.fromkeys(names))


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


def require_finite(frame: pd.DataFrame, names: Iterable[str]) -> None:
    """Raises AnalysisError if a column holds a text, or a number that is not finite; nulls are what was not measured."""
    for name in names:
        column = frame[name]
        is_number = pd.api.types.is_numeric_dtype(column)
        numbers = column if is_number else pd.to_numeric(column.astype(object), errors="coerce")
        odd = column[column.notna().to_numpy() & ~(np.abs(numbers.to_numpy(dtype=float, na_value=np.nan)) < LARGEST)]
        if not odd.empty:
            raise AnalysisError(
                f"frame: expected finite numbers (below {LARGEST:g}) in the column {name}, got {odd.iloc[0]!r}; put "
                "what it counts as, or null for what was not measured."
            )


def require_texts(frame: pd.DataFrame, names: Iterable[str]) -> None:
    """Raises AnalysisError if a column that names things holds anything but texts."""
    for name in names:
        odd = [value for value in frame[name].unique() if not isinstance(value, str)]
        if odd:
            raise AnalysisError(
                f"frame: expected texts in the column {name}, got {odd[0]!r}; pass what load_runs or final_outcomes returns."
            )


def with_numbers(frame: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """Returns a frame some of whose columns are numbers, whatever held them; what ``require_finite`` refuses is refused."""
    names = tuple(names)
    require_finite(frame, names)
    return frame.assign(**{name: pd.to_numeric(frame[name]) for name in names})


def require_measured(frame: pd.DataFrame, names: Iterable[str]) -> None:
    """Raises AnalysisError if a column holds nothing but nulls, or what ``require_finite`` refuses."""
    names = tuple(names)
    require_finite(frame, names)
    for name in names:
        if frame[name].isna().all():
            raise AnalysisError(
                f"frame: expected numbers in the column {name}, got only nulls; pass runs that have them."
            )


def require_one_environment(frame: pd.DataFrame) -> None:
    """Raises AnalysisError if a frame mixes environments, or is refused by ``require_comparable``."""
    if "env_id" in frame:
        env_ids = sorted(frame["env_id"].dropna().unique())
        if len(env_ids) > 1:
            raise AnalysisError(
                f"frame: expected runs of one environment, got {', '.join(env_ids)}; choose one, such as "
                f"frame[frame['env_id'] == {env_ids[0]!r}]."
            )
    require_comparable(frame)


def require_comparable(frame: pd.DataFrame) -> None:
    """Raises AnalysisError where runs must not be joined: unlike configurations, or ``require_distinct_runs``."""
    require_one_configuration(frame)
    require_distinct_runs(frame)


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


def require_distinct_runs(frame: pd.DataFrame) -> None:
    """Raises AnalysisError if an agent has two runs with one seed, such as a folder that was loaded under two names.

    So it does where a run has no agent, or a seed is no whole number.

    Args:
        frame: Rows of runs; or a line for each run, which without the column "run" are all told apart. Runs without a seed are.
    """
    if {"run", "window"} <= set(frame):
        again = frame[frame.duplicated(["run", "window"])]
        if not again.empty:
            run, window = again.iloc[0][["run", "window"]]
            raise AnalysisError(
                f"frame: expected one row for each run and window, got two of {run}, window {window}; load runs by one call of "
                "load_runs, which gives each a name of its own."
            )
    if not {"agent", "seed"} <= set(frame):
        return
    if frame["agent"].isna().any():
        raise AnalysisError("frame: expected an agent of every run, got a null; name it, or leave its rows out.")
    seeds = pd.to_numeric(frame["seed"].astype(object), errors="coerce")
    odd = frame.loc[(frame["seed"].notna() & (seeds % 1 != 0)).to_numpy(), "seed"]
    if not odd.empty:
        raise AnalysisError(f"seed: expected whole numbers, got {odd.iloc[0]!r}; number the seeds, equal ones alike.")
    keys = [name for name in ("env_id", CONFIGURATION, "agent", "seed") if name in frame]
    runs = frame[[*keys, "run"]].drop_duplicates() if "run" in frame else frame[keys]
    runs = runs[runs["seed"].notna()]
    twice = runs[runs.duplicated(keys)]
    if not twice.empty:
        first = twice.iloc[0]
        alike = runs[(runs[keys].astype(str) == first[keys].astype(str)).all(axis=1)]
        names = f" ({', '.join(map(str, alike['run']))})" if "run" in runs else ""
        raise AnalysisError(
            f"runs: expected one run for each agent and seed, got two of {first['agent']} with seed {first['seed']}{names}; "
            "choose one of them."
        )


def require_seeds(frame: pd.DataFrame) -> None:
    """Raises AnalysisError if a run has no seed to be paired by."""
    without = frame.loc[frame["seed"].isna(), "run" if "run" in frame else "agent"]
    if not without.empty:
        raise AnalysisError(
            f"frame: expected a seed of every run, got none of {without.iloc[0]}; leave it out: runs are paired by seed."
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
