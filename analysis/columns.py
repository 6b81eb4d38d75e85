"""What each column of a frame means.

``columns.json`` is written from the environment's own tables (``python -m docs.generator.tables``), because this package
imports nothing of the environment; a test compares the two.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files

import pandas as pd

FRAME_COLUMNS: tuple[tuple[str, str, str, str], ...] = (
    ("run", "text", "", "The run folder's path below the folder that was loaded; with `window` it names a row."),
    ("env_id", "category", "", "Environment id."),
    ("agent", "category", "", "Agent spec."),
    ("seed", "int or null", "", "Seed of the run: runs with one seed met the same problems and random numbers."),
    (
        "run_status",
        "category",
        "",
        '"finished", "unfinished" (killed, or still going on) or "damaged" (the rows before the damage).',
    ),
    ("version", "category or null", "", "Version of atesd-env that wrote the run."),
    (
        "configuration",
        "category",
        "",
        "Fingerprint of the run's configuration; agents are compared only where it is the same.",
    ),
    (
        "configuration_differs",
        "category",
        "",
        "Fields in which the configurations loaded together differ (in one environment), with the run's values.",
    ),
    (
        "config/<name>",
        "int, float or text",
        "",
        "A field of the run's configuration, asked for by `load_runs(config=[...])`.",
    ),
)
"""Name, type, unit and meaning of the columns that ``load_runs`` adds to those of the trajectories."""

TABLE_COLUMNS = ("column", "type", "unit", "meaning")
"""Columns of the frames that explain columns."""


@cache
def _documented() -> dict[str, tuple[str, str, str]]:
    lines = json.loads(files("analysis").joinpath("columns.json").read_text())
    return {name: (kind, unit, meaning) for name, kind, unit, meaning in [*FRAME_COLUMNS, *lines]}


def documented_columns() -> pd.DataFrame:
    """Returns every column that a frame of ``load_runs`` can have: column, type, unit, meaning."""
    return pd.DataFrame([(name, *texts) for name, texts in _documented().items()], columns=list(TABLE_COLUMNS))


def describe_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns one line for each column of a frame: column, type, unit, meaning; empty texts for a column of another's.

    Args:
        frame: What ``load_runs`` returns.
    """
    return pd.DataFrame([(name, *_texts(str(name))) for name in frame.columns], columns=list(TABLE_COLUMNS))


def unit_of(name: str) -> str:
    """Returns the unit of a column, empty where there is none.

    >>> unit_of("probe/nll")
    'nats/token'
    """
    return _texts(name)[1]


def kind_of(name: str) -> str:
    """Returns the type of a column as documented, empty where it is another's.

    >>> kind_of("update")
    'int'
    """
    return _texts(name)[0]


def _texts(name: str) -> tuple[str, str, str]:
    known = _documented()
    group = re.fullmatch(r"(.+)_\d+", name)
    for key in (name, f"{group[1]}_<g>" if group else name, f"{name.partition('/')[0]}/<name>"):
        if key in known:
            return known[key]
    return "", "", ""
