"""What known controllers reach on each instance, and what it cost them: a Parquet file beside the set's own.

Its metadata is its card: what it holds, the command and the commit that made it, its licence, and the fingerprint of the set that it
was measured on. Numbers of another version of a set are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype, is_string_dtype

from atesd_env.bench.instances import PACKAGED, InstanceSet
from atesd_env.bench.measured import read_measured, write_measured
from atesd_env.errors import ConfigError, DataError
from atesd_env.files.reading import reading

COLUMNS = {
    "instance": "Id of the instance.",
    "agent": "Spec of the controller, such as `fixed:0.5` or `random`; `oracle` is a schedule that was searched for, `best_fixed` the "
    "fixed ratio that was best on seeds of the split train.",
    "metric": "What was measured after the last window, such as `probe/accuracy` (`heldout/accuracy`: on 500 problems), or "
    "`area/probe/nll` over the run.",
    "mean": "Mean over the seeds.",
    "low": "Lower bound of the 95% interval (Student's t over seeds).",
    "high": "Upper bound.",
    "num_seeds": "How many seeds.",
    "seeds": "Which, as text: `20000-20007`.",
    "num_updates": "Student updates of a run, those on branches included.",
    "num_tokens": "Tokens sampled in a run, those on branches included.",
}
"""Columns of the references: name -> meaning."""

_TEXTS = ("instance", "agent", "metric", "seeds")
_CARD = b"atesd references"


def references_file(instances: InstanceSet) -> Path:
    """Returns where a set's references lie: beside its own file, with the suffix ``.parquet``."""
    packaged = PACKAGED / f"{instances.source}.json"
    return (packaged if packaged.exists() else Path(instances.source)).with_suffix(".parquet")


def references(instances: InstanceSet) -> pd.DataFrame:
    """Returns the references of a set, a line for each instance, controller and metric (``COLUMNS``).

    Raises:
        DataError: If there are none, or those of another version of the set, or the file cannot be read.
    """
    return _read(instances)[0].copy()


def reference(instances: InstanceSet, instance_id: str) -> pd.DataFrame:
    """Returns what is known on one instance: its lines of ``references``.

    Raises:
        ConfigError: If the set has no such instance.
        DataError: As ``references``.
    """
    found = references(instances)
    return found[found["instance"] == instances[instance_id].id].reset_index(drop=True)


def reference_card(instances: InstanceSet) -> dict[str, str]:
    """Returns what the references hold, the command and the commit that made them, and their licence.

    Raises:
        DataError: As ``references``.
    """
    return dict(_read(instances)[1])


def write_references(instances: InstanceSet, frame: pd.DataFrame, **card: str) -> None:
    """Writes the references of a set beside its file.

    Args:
        instances: The set.
        frame: Its references, with the columns ``COLUMNS``.
        **card: what, command, commit, licence.

    Raises:
        ConfigError: If a column, an entry of the card or an instance is missing or unknown.
        RunFilesError: If the file cannot be written.
    """
    if list(frame.columns) != list(COLUMNS):
        raise ConfigError(
            f"references: expected the columns {', '.join(COLUMNS)}, got the columns {', '.join(map(str, frame.columns))}; pass exactly "
            "these."
        )
    write_measured(references_file(instances), _CARD, instances, frame, card)


def _read(instances: InstanceSet) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Returns the frame and the card of a set's references, whose columns are of the kinds that they should be."""
    path = references_file(instances)
    frame, card = read_measured(path, _CARD, "references", instances.fingerprint)
    with reading(path, "references", DataError):
        odd = [name for name in COLUMNS if not (is_string_dtype if name in _TEXTS else is_numeric_dtype)(frame[name])]
        if odd:
            raise TypeError(f"{frame[odd[0]].dtype} in the column {odd[0]}")
    return frame, card
