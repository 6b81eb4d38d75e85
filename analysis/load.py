"""Run folders in, one tidy frame out.

A run folder holds ``config.json`` (what was run) and ``trajectory.jsonl`` (one row a window). Nothing else is read, so
files of other tools do no harm.
"""

from __future__ import annotations

import glob
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from analysis.checks import listed, nearest
from analysis.columns import kind_of
from analysis.errors import AnalysisError, DamagedRunError, NoRunsError
from analysis.reading import read_json
from analysis.run_files import (
    AGENTS_OWN,
    CONFIG_FILE,
    FLAG_COLUMNS,
    FORMAT_VERSION,
    RUN_COLUMNS,
    TRAJECTORY_FILE,
    Run,
    RunStatus,
    read_run,
    valid_text,
)

__all__ = [
    "FLAG_COLUMNS",
    "FORMAT_VERSION",
    "RUN_COLUMNS",
    "AnalysisError",
    "DamagedRunError",
    "NoRunsError",
    "list_runs",
    "load_runs",
]

_TEXT_COLUMNS = ("status", "reason", "non_finite")
_logger = logging.getLogger(__name__)


Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A folder, a pattern of folders, or several of these."""


def load_runs(
    path: Paths, *, config: str | Sequence[str] = (), damaged: Literal["refuse", "keep"] = "refuse"
) -> pd.DataFrame:
    """Returns the rows of one or many runs as a tidy frame: one row for each window of each run.

    Columns, in order: ``run`` (string; the run folder's path below ``path``, or its name if it is ``path`` itself),
    ``env_id`` and ``agent`` (categories), ``seed`` (Int64), ``window`` (int64), ``run_status``, ``version``, ``configuration``
    and ``configuration_differs`` (categories; what the run is in, the version of atesd-env that wrote it, a fingerprint of its
    configuration, and the fields in which the configurations of one environment differ), then every column of the
    trajectories, then ``config/<field>`` for each field asked for. Columns documented as whole numbers and whole fields are
    Int64, other numbers and truth values float64, null or NaN where nothing was measured or the run lacks the column; texts,
    such as ``status``, are "string". Sorted by env_id, agent, seed, run, window. ``analysis.describe_columns(frame)`` explains
    each.

    No run is dropped in silence:

    - finished: kept; ``run_status`` is "finished".
    - unfinished (killed, or still going on): kept, "unfinished". A half-written last line is left out.
    - empty (no window has ended): it has no row to keep; logged as a warning, and listed by ``list_runs``.
    - damaged rows: refused. With ``damaged="keep"`` the rows before the damage are kept, "damaged", and a warning is logged.
    - unreadable ``config.json``, or one of another layout (``format_version``): refused. With ``damaged="keep"`` left out with
      a warning, and listed by ``list_runs``.
    - different versions of atesd-env with one layout: kept, told apart by ``version``, and a warning is logged.

    Hidden folders, and folders inside a run folder, are not searched.

    Args:
        path: A run folder, a folder that holds run folders at any depth, or a pattern of such folders ("runs/*/beta-*", "**"
            stands for any depth); runs are then named from where the pattern begins. Or a list of these; runs are then named
            from the folder that holds them all. "~" is the home folder.
        config: One or more fields of the runs' configurations to add as columns, such as ("learning_rate", "gamma"). Whole numbers are
            Int64, other numbers and truth values float64, all else is text; missing where a run's version has no such field.
        damaged: What to do with damaged and unreadable runs.

    Raises:
        NoRunsError: If ``path`` is no folder, or holds no run with a row.
        DamagedRunError: If a file is damaged and ``damaged`` is "refuse"; the message names file and line.
        AnalysisError: If no run's configuration has one of the fields.
    """
    if damaged not in ("refuse", "keep"):
        raise AnalysisError(f"damaged: expected 'refuse' or 'keep', got {damaged!r}; pass one of these.")
    runs = _read_runs(path)
    for run in runs:
        _complain(run, refuse=damaged == "refuse")
    runs = [run for run in runs if run.num_rows]
    if not runs:
        raise NoRunsError(
            f"{path}: expected at least one run folder with rows ({CONFIG_FILE}, {TRAJECTORY_FILE}), got none; pass "
            "the folder given to --out, or make a run first."
        )
    versions = sorted({run.version for run in runs if run.version is not None})
    if len(versions) > 1:
        _logger.warning(
            "%s: runs of %d versions of atesd-env (%s); a seed may not give the same in all of them. The column 'version' "
            "tells them apart.",
            path,
            len(versions),
            ", ".join(versions),
        )
    return _frame(runs, listed(config))


def list_runs(path: Paths) -> pd.DataFrame:
    """Returns one line for each run folder, whatever it is in: nothing is refused and nothing left out.

    Columns: ``run``, ``env_id``, ``agent``, ``seed`` as in ``load_runs`` (null where unreadable); ``run_status`` ("finished",
    "unfinished", "empty", "damaged" or "unreadable"), ``num_windows`` (sound rows), ``planned_windows`` (Int64, from the
    configuration), ``version`` (of atesd-env) and ``problem`` (what is wrong, with file and line).

    Args:
        path: As in ``load_runs``.

    Raises:
        NoRunsError: If ``path`` is no folder, or holds no run folder.
    """
    runs = _read_runs(path)
    if not runs:
        raise NoRunsError(f"{path}: expected at least one run folder, got none; pass the folder given to --out.")
    windows = [run.config.get("windows") for run in runs]
    return pd.DataFrame(
        {
            "run": pd.Series([run.name for run in runs], dtype="string"),
            "env_id": pd.Series([run.env_id or None for run in runs], dtype="category"),
            "agent": pd.Series([run.agent or None for run in runs], dtype="category"),
            "seed": pd.Series([run.seed for run in runs], dtype="Int64"),
            "run_status": pd.Categorical([run.status for run in runs], categories=get_args(RunStatus)),
            "num_windows": [run.num_rows for run in runs],
            "planned_windows": pd.Series([number if _is_int64(number) else None for number in windows], dtype="Int64"),
            "version": pd.Series([run.version for run in runs], dtype="category"),
            "problem": pd.Series(
                [None if run.problem is None else valid_text(run.problem) for run in runs], dtype="string"
            ),
        }
    )


def _complain(run: Run, *, refuse: bool) -> None:
    if run.problem is not None:
        if refuse:
            raise run.problem
        kept = "its rows before that are kept" if run.num_rows else "the run is left out"
        _logger.warning("%s: %s (%s.)", run.name, run.problem, kept)
    elif not run.num_rows:
        _logger.warning("%s: the run has no rows and is left out (it stopped before its first window ended).", run.name)


def _read_runs(path: Paths) -> list[Run]:
    if isinstance(path, str | os.PathLike):
        root, roots = _roots(path)
    else:
        several = [_roots(one) for one in path]
        if not several:
            raise NoRunsError("path: expected a folder of runs or several, got an empty list; name one.")
        roots = [start for _, starts in several for start in starts]
        root = Path(os.path.commonpath([one.resolve() for one, _ in several]))
        roots = [start.resolve() for start in roots]
    folders = dict.fromkeys(folder for start in roots for folder in run_folders(start))
    for folder in folders:
        if valid_text(folder) != str(folder):
            raise AnalysisError(f"{folder!r}: expected a folder whose name is valid UTF-8, got another; rename it.")
    runs = [
        read_run(folder, folder.resolve().name if folder == root else folder.relative_to(root).as_posix())
        for folder in folders
    ]
    return sorted(runs, key=Run.sort_key)


def _roots(path: str | os.PathLike[str]) -> tuple[Path, list[Path]]:
    """Returns the folder that runs are named from, and the folders to search."""
    root = Path(path).expanduser()
    if os.path.isdir(root):  # unlike Path's, it takes a name that is too long for one that is not there
        return root, [root]
    if glob.has_magic(os.fspath(path)):
        roots = sorted(Path(name) for name in glob.glob(str(root), recursive=True) if os.path.isdir(name))
        while glob.has_magic(str(root)):
            root = root.parent
        if not roots:
            raise NoRunsError(f"{path}: expected a pattern of folders, got no folder that matches; check the pattern.")
        return root, roots
    reason = "a file" if os.path.exists(root) else "nothing there"
    raise NoRunsError(f"{root}: expected a folder of runs, got {reason}; pass the folder given to --out.")


def run_folders(root: Path) -> list[Path]:
    """Returns the run folders at or below a folder, in order; hidden folders, and what lies inside a run, are not searched."""
    folders = []
    for name, subfolders, files in os.walk(root):
        folder = Path(name)
        if TRAJECTORY_FILE in (*files, *subfolders) or (CONFIG_FILE in files and _is_run_config(folder / CONFIG_FILE)):
            folders.append(folder)
            subfolders.clear()  # what lies inside a run (checkpoints, adapters) is part of it
        subfolders[:] = sorted(subfolder for subfolder in subfolders if not subfolder.startswith("."))
    return folders


def _is_run_config(path: Path) -> bool:
    """Tells a run's config.json from that of a saved model, which bears the same name."""
    try:
        return "format_version" in read_json(path)
    except (OSError, ValueError, TypeError):
        return False


def _frame(runs: list[Run], config: Sequence[str]) -> pd.DataFrame:
    counts = [run.num_rows for run in runs]

    def repeated(values: Sequence[Any], dtype: str) -> pd.Series[Any]:
        return pd.Series(values, dtype=dtype).repeat(counts).reset_index(drop=True)

    columns: dict[str, Any] = {
        "run": repeated([run.name for run in runs], "string"),
        "env_id": repeated([run.env_id for run in runs], "category"),
        "agent": repeated([run.agent for run in runs], "category"),
        "seed": repeated([run.seed for run in runs], "Int64"),
        "window": np.concatenate([_floats(run.columns["window"], run.num_rows) for run in runs]).astype(np.int64),
        "run_status": repeated([run.status for run in runs], "category"),
        "version": repeated([run.version for run in runs], "category"),
        "configuration": repeated([run.configuration for run in runs], "category"),
        "configuration_differs": repeated(_differing(runs), "category"),
    }
    # dict keeps the order in which columns first appear
    names = dict.fromkeys(name for run in runs for name in run.columns if name != "window")
    for name in names:
        parts = [run.columns.get(name) for run in runs]
        if name in _TEXT_COLUMNS or any(_is_text(part) for part in parts):
            texts = [text for part, count in zip(parts, counts, strict=True) for text in _texts(part, count)]
            columns[name] = pd.Series(texts, dtype="string")
        else:
            numbers = np.concatenate([_floats(part, count) for part, count in zip(parts, counts, strict=True)])
            is_whole = kind_of(name).startswith("int") and all(_is_whole(part) for part in parts)
            columns[name] = pd.array(numbers, dtype="Int64") if is_whole else numbers
    for name in config:
        values = [_config_value(run, name) for run in runs]
        if all(name not in run.config for run in runs):
            hint = nearest(name, (known for run in runs for known in run.config)) or "see config.json for the fields."
            raise AnalysisError(f"config: expected fields of the runs' configurations, got {name!r}; {hint}")
        columns[f"config/{name}"] = repeated(*_config_column(values))
    return pd.DataFrame(columns, copy=False)


def _differing(runs: list[Run]) -> list[str]:
    """Returns for each run the fields in which its environment's configurations differ, such as "windows=10, lora_r=8"."""
    texts: dict[tuple[str, str], str] = {}
    for env_id in {run.env_id for run in runs}:
        configs = {run.configuration: run.config for run in runs if run.env_id == env_id}
        names = sorted({name for config in configs.values() for name in config} - AGENTS_OWN)
        names = [name for name in names if len({json.dumps(config.get(name)) for config in configs.values()}) > 1]
        for key, config in configs.items():
            texts[env_id, key] = valid_text(", ".join(f"{name}={config.get(name, '(absent)')}" for name in names))
    return [texts[run.env_id, run.configuration] for run in runs]


def _config_column(values: list[Any]) -> tuple[list[Any], str]:
    """Returns a field's values as they stand in a column, and the column's type."""
    if any(isinstance(value, str) for value in values):
        return [None if value is None else valid_text(value) for value in values], "string"
    is_whole = all(value is None or _is_int64(value) for value in values)
    return values, "Int64" if is_whole and any(value is not None for value in values) else "float64"


def _config_value(run: Run, name: str) -> float | str | None:
    value = run.config.get(name)
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value)


def _is_whole(part: Any) -> bool:
    """Says whether all that a run has of a column are whole numbers or nulls."""
    if isinstance(part, list):
        return all(value is None or _is_int64(value) for value in part)
    return part is None or bool(pa.types.is_int64(part.type) or pa.types.is_null(part.type))


def _is_int64(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _is_text(part: Any) -> bool:
    if isinstance(part, list):
        return any(isinstance(value, str) for value in part)
    return part is not None and bool(pa.types.is_string(part.type))


def _texts(part: Any, count: int) -> list[str | None]:
    if part is None:
        return [None] * count
    values = part if isinstance(part, list) else part.to_pylist()
    return [None if value is None else valid_text(value) for value in values]


def _floats(part: Any, count: int) -> NDArray[np.float64]:
    if part is None or (not isinstance(part, list) and pa.types.is_null(part.type)):
        return np.full(count, np.nan)
    if isinstance(part, list) or pa.types.is_boolean(part.type):
        values = part if isinstance(part, list) else part.to_pylist()
        return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)
    return np.asarray(part.to_numpy(), dtype=np.float64)  # nulls become NaN
