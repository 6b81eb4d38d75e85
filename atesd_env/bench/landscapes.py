"""Every window of the runs that a set's references were measured by, for work without a student: a Parquet file beside the set's own.

Windows that an agent tried on branches of a run stand there too, as far as its runs kept them (``branches.jsonl``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from atesd_env.bench.instances import InstanceSet
from atesd_env.bench.known import references_file
from atesd_env.bench.measured import read_measured, write_measured
from atesd_env.errors import ConfigError, DataError

_CARD = b"atesd landscapes"
_NEEDED = ("instance", "run", "env_id", "agent", "seed", "window", "status")


def landscapes_file(instances: InstanceSet) -> Path:
    """Returns where a set's landscapes lie: beside its own file, as ``NAME.landscapes.parquet``."""
    return references_file(instances).with_suffix(".landscapes.parquet")


def landscape(instances: InstanceSet, instance_id: str | None = None, *, branches: bool = False) -> pd.DataFrame:
    """Returns every window of the runs of known controllers, in the columns of ``analysis.load_runs`` but for its wall times.

    All functions of ``analysis`` take it: ``analysis.bench.bench_outcomes(landscape(set))`` is what the references sum up.

    Args:
        instances: The set.
        instance_id: One of its instances; None is all.
        branches: Return the windows that were tried on branches and taken back instead, with the columns ``decision`` (the window that
            was decided on) and ``branch`` (which of its branches, from 0 on).

    Raises:
        ConfigError: If the set has no such instance.
        DataError: If there are no landscapes, or those of another version of the set, or the file cannot be read.
    """
    frame = _read(instances)[0]
    is_tried = frame["branch"].notna() if "branch" in frame else pd.Series(False, index=frame.index)
    frame = frame[is_tried] if branches else frame[~is_tried].drop(columns=["decision", "branch"], errors="ignore")
    if instance_id is not None:
        frame = frame[frame["instance"] == instances[instance_id].id]
    return frame.reset_index(drop=True).copy()


def by_group(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of runs whose actions had a ratio for each difficulty group, and none for each problem."""
    return frame[frame["exposure/problem_ratio_0"].isna()] if "exposure/problem_ratio_0" in frame else frame


def landscapes_card(instances: InstanceSet) -> dict[str, str]:
    """Returns what the landscapes hold, the command and the commit that made them, and their licence.

    Raises:
        DataError: As ``landscape``.
    """
    return dict(_read(instances)[1])


def write_landscapes(instances: InstanceSet, frame: pd.DataFrame, **card: str) -> None:
    """Writes the landscapes of a set beside its file.

    Args:
        instances: The set.
        frame: Rows of finished runs, as ``analysis.load_runs`` returns them; those tried on branches have numbers in the columns
            decision and branch.
        **card: what, command, commit, licence.

    Raises:
        ConfigError: If a column, an entry of the card or an instance is missing or unknown.
        RunFilesError: If the file cannot be written.
    """
    missing = [name for name in _NEEDED if name not in frame]
    if missing:
        raise ConfigError(
            f"landscapes: expected the columns that load_runs returns, got none of {', '.join(missing)}; pass its frame."
        )
    left_out = [name for name in frame if str(name).startswith(("time/", "configuration")) or frame[name].isna().all()]
    kept = frame.drop(columns=left_out)
    texts = {str(name): kept[name].astype(str) for name in kept if isinstance(kept[name].dtype, pd.CategoricalDtype)}
    write_measured(landscapes_file(instances), _CARD, instances, kept.assign(**texts), card)


def _read(instances: InstanceSet) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Returns the frame and the card of a set's landscapes, which have the columns that all of analysis needs."""
    path = landscapes_file(instances)
    frame, card = read_measured(path, _CARD, "landscapes", instances.fingerprint)
    missing = [name for name in _NEEDED if name not in frame]
    if missing:
        raise DataError(f"{path}: expected landscapes, got no column {', '.join(missing)}; take the packaged file.")
    return frame, card
