"""Runs in the formats of other tools: Parquet and CSV tables, and Minari datasets for offline reinforcement learning.

Observations, which a run's files lack, are computed anew from its rows (``logged_runs``).
"""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import gymnasium
import numpy as np
import pandas as pd
from numpy.typing import NDArray

import atesd_env  # noqa: F401  (registers the ids)
from atesd.experiments.logged_runs import base_nll, common_environment, ratio_columns, rebuilt_statistics
from atesd_env.bench.environments import BenchEnv
from atesd_env.bench.instances import ENV_ID, InstanceSet
from atesd_env.config import BenchConfig, RunConfig, ToyConfig, preset
from atesd_env.envs.observation import observation
from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.files.atomic import (
    check_writable,
    failure,
    is_own_file,
    is_own_folder,
    make_own_folder,
    make_parent,
    write_atomically,
)
from atesd_env.files.ownership import MARKER, FolderKind

_LEAVE_OUT = "leave out the runs that have it."

DATASET = FolderKind(
    "dataset",
    "data/metadata.json",
    (r"data/main_data\.hdf5", r"data/metadata\.json"),
    fields=(MARKER,),
    whole=("data",),
)
"""What the folder of a Minari dataset is."""

_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Transitions:
    """One run as transitions; W windows.

    Attributes:
        seed: Seed of the run.
        observations: [W + 1, num_features], before each window and after the last.
        actions: [W, groups], reveal ratios in [0, 1].
        rewards: [W].
        terminations: [W], true where the student broke.
        truncations: [W], true after the last window of the budget, and after the last one there is of an unfinished run.
    """

    seed: int | None
    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float64]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]


def export_table(frame: pd.DataFrame, out: Path, to: Literal["parquet", "csv"], *, overwrite: bool = False) -> Path:
    """Writes the frame of ``load_runs`` as one table; Parquet keeps the columns' types, CSV loses them.

    Args:
        frame: The rows.
        out: The file.
        to: Its format.
        overwrite: Replace a file that is there.

    Raises:
        ConfigError: If Parquet is asked for and the package pyarrow is missing, or the format cannot hold a value.
        RunFilesError: If the file is there already, or cannot be written.
    """
    check_writable(out)
    if is_own_file(out) and not overwrite:
        raise _existing(out)
    table = _as_table(frame, to)
    make_parent(out)
    write_atomically(out, table)
    return out


def _as_table(frame: pd.DataFrame, to: Literal["parquet", "csv"]) -> bytes:
    try:
        if to == "csv":
            return csv_bytes(frame)
        from pyarrow.lib import ArrowException
    except ImportError as error:
        raise ConfigError(
            "--to parquet: expected the package pyarrow, which is missing; `pip install pyarrow`."
        ) from error
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"--to csv: expected text that UTF-8 can hold, got {error.object[error.start]!r}; {_LEAVE_OUT}"
        ) from error
    try:
        table: bytes = frame.to_parquet(index=False, engine="pyarrow")
    except (ArrowException, UnicodeEncodeError) as error:
        raise ConfigError(
            f"--to parquet: expected values of one kind in each column, got {' '.join(map(str, error.args))}; {_LEAVE_OUT}"
        ) from error
    return table


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """Returns a frame as CSV that a spreadsheet reads as it is.

    A cell of text, or a column's name, that begins with ``=``, ``+``, ``-``, ``@`` (or a full-width one), a tab or a line's end would
    be taken for a formula, so it gets an apostrophe before it, unless it is a number.
    """
    texts = {str(name): frame[name].map(_no_formula, na_action="ignore") for name in frame if _is_text(frame[name])}
    return frame.assign(**texts).rename(columns=_no_formula).to_csv(index=False).encode()


def _no_formula(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    # A carriage return, which Python's csv does not quote, would begin a new row.
    text = value.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if value.startswith(_FORMULA_SIGNS) and not _NUMBER.fullmatch(value) else text


def _is_text(column: pd.Series[Any]) -> bool:
    is_text = pd.api.types.is_string_dtype(column) or pd.api.types.is_object_dtype(column)
    return isinstance(column.dtype, pd.CategoricalDtype) or is_text


def export_minari(
    frame: pd.DataFrame, config: RunConfig, root: Path, dataset_id: str | None = None, *, overwrite: bool = False
) -> str:
    """Writes runs of one environment as a Minari dataset, one episode a run.

    Args:
        frame: Their rows, as ``load_runs`` returns them.
        config: Their configuration, the same for all.
        root: Folder of datasets (Minari's MINARI_DATASETS_PATH); the dataset becomes a folder below it.
        dataset_id: Minari's name of it, ``[namespace/]name-vN``; None is ``atesd/`` and the environment's id.
        overwrite: Replace a dataset of that name.

    Returns:
        The dataset's id: with MINARI_DATASETS_PATH set to ``root``, ``minari.load_dataset(id)`` opens it.

    Raises:
        ConfigError: If Minari is missing, the name is none, or the runs are of several environments.
        RunFilesError: If the dataset is there already, cannot be written, or a run's first observation cannot be known.
    """
    try:
        import minari
    except ImportError as error:
        raise ConfigError(
            "--to minari: expected the package minari, which is missing; `pip install 'minari[hdf5]'`."
        ) from error
    env_ids = sorted(frame["env_id"].unique())
    if len(env_ids) != 1:
        raise ConfigError(
            f"runs: expected one environment in a Minari dataset, got {', '.join(env_ids)}; export each folder alone."
        )
    dataset_id = dataset_id or f"atesd/{env_ids[0]}"
    target = root / dataset_id
    check_writable(target)
    if os.path.lexists(target) and not (overwrite and _is_replaceable(target)):
        raise _existing(target)
    with closing(gymnasium.make(env_ids[0], **config.keywords(), disable_env_checker=True)) as env:
        episodes = _episodes(frame, config, env)
        agents = ", ".join(sorted(frame["agent"].astype(str).unique()))
        with _minari_beside(root, dataset_id) as beside:
            dataset = minari.create_dataset_from_buffers(
                dataset_id,
                episodes,
                env=env,
                algorithm_name=agents,
                description=f"Reveal ratios of {agents} on {env_ids[0]}, one episode a student trained once.",
                data_format="hdf5",
                requirements=["atesd-env"],
            )
            dataset.storage.update_metadata(DATASET.marked({}))
            _move(beside, root, dataset_id)
    return dataset_id


def _episodes(frame: pd.DataFrame, config: RunConfig, env: gymnasium.Env[Any, Any]) -> list[Any]:
    """Returns Minari's buffers of runs, one each."""
    from minari.data_collector import EpisodeBuffer

    episodes = []
    bench: Any = env.unwrapped if isinstance(config, BenchConfig) else None
    of_run, options = config, None
    for number, (name, rows) in enumerate(frame.groupby("run", observed=True, sort=False)):
        if bench is not None:
            options = {"instance": str(rows["instance"].iloc[0])}
            of_run = bench.instance_set.config(options["instance"])
        nll_before = _nll_before(str(name), rows, of_run, env)
        run = transitions(str(name), rows, of_run, nll_before, bench)
        buffer = EpisodeBuffer(
            id=number,
            seed=run.seed,
            options=options,
            observations=list(run.observations),
            actions=list(run.actions),
            rewards=run.rewards.tolist(),
            terminations=run.terminations.tolist(),
            truncations=run.truncations.tolist(),
        )
        episodes.append(buffer)
    return episodes


def transitions(
    name: str, rows: pd.DataFrame, config: RunConfig, nll_before: float, bench: BenchEnv | None = None
) -> Transitions:
    """Returns one run's transitions.

    Args:
        name: Name of the run, for messages.
        rows: Its rows, from window 1 on.
        config: Its configuration.
        nll_before: The base model's probe NLL, in nats per token, which the first observation shows.
        bench: The bench that the run was of, which shows more and takes a ratio for each group of any instance; the configuration is
            then the instance's.

    Raises:
        RunFilesError: If windows are missing at the beginning or in between.
    """
    rows = rows.sort_values("window")
    windows = rows["window"].tolist()
    if windows != list(range(1, len(rows) + 1)):
        raise RunFilesError(
            f"run {name}: expected the windows 1 to {len(rows)}, got {windows[:5]} ...; leave the run out."
        )
    records = [{str(column): value for column, value in row.items()} for row in rows.to_dict("records")]
    before = list(rebuilt_statistics(records, config, nll_before))
    observations = [observation(statistics) for statistics in before]
    actions = rows[ratio_columns(config)].to_numpy(dtype=np.float32)
    if bench is not None:
        runs = [SimpleNamespace(statistics=one, rows=records[:number]) for number, one in enumerate(before)]
        observations = [bench.observed(run, config) for run in runs]
        actions = np.pad(actions, ((0, 0), (0, bench.num_ratios - actions.shape[1])))
    status = rows["status"].astype(str).to_numpy()
    terminations = status == "terminated"
    truncations = status == "truncated"
    truncations[-1] = not terminations[-1]
    seed = rows["seed"].iloc[0]
    return Transitions(
        seed=None if pd.isna(seed) else int(seed),
        observations=np.stack(observations),
        actions=actions,
        # Where a reward is not a number, so is the one that `step` returned read: as 0.
        rewards=rows["reward/total"].fillna(0.0).to_numpy(dtype=np.float64),
        terminations=terminations,
        truncations=truncations,
    )


def _nll_before(name: str, rows: pd.DataFrame, config: RunConfig, env: gymnasium.Env[Any, Any]) -> float:
    """Returns the base model's probe NLL: as recorded, or from what the first window improved on it."""
    first = rows.sort_values("window").iloc[0].to_dict()
    if isinstance(config, ToyConfig) and pd.isna(first.get("probe/nll_before")):
        return float(env.reset(seed=int(first["seed"]))[1]["probe/nll"])  # a closed form is asked again at no cost
    told = base_nll(first, config)
    if told is not None:
        return told
    raise RunFilesError(
        f"run {name}: expected to know the base model's probe NLL, but the first row has no probe/nll_before and the first "
        "window made no progress to tell it by; leave the run out, or make it anew."
    )


@contextmanager
def _minari_beside(root: Path, dataset_id: str) -> Iterator[Path]:
    """Lets Minari write to a new folder below ``root``, which is gone afterwards, and turns its errors into ours."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.resolve(), prefix=".atesd-") as beside, warnings.catch_warnings():
            # Author and permalink are the user's to add, when a dataset is published.
            warnings.filterwarnings("ignore", message=".*is set to None", category=UserWarning)
            os.environ["MINARI_DATASETS_PATH"] = (
                beside  # Minari is told by nothing else, and a relative one confuses it
            )
            yield Path(beside)
    except ValueError as error:
        raise ConfigError(
            f"--name: expected a Minari name ([namespace/]name-vN), got {dataset_id!r} ({error}); choose another --name."
        ) from error
    except ImportError as error:
        raise ConfigError(
            f"--to minari: expected the packages that Minari needs, got '{error}'; install them with "
            "`pip install 'atesd-env[export]'`."
        ) from error
    except RunFilesError:
        raise
    except (OSError, RuntimeError) as error:  # HDF5 also tells of a full disk by the latter
        raise failure(
            root, "to write a dataset there", error if isinstance(error, OSError) else OSError(str(error))
        ) from error
    finally:
        if before is None:
            os.environ.pop("MINARI_DATASETS_PATH", None)
        else:
            os.environ["MINARI_DATASETS_PATH"] = before


def _is_replaceable(target: Path) -> bool:
    """Returns whether nothing but a dataset of ours is in a folder.

    Raises:
        RunFilesError: If something else is there; the message names it.
    """
    return is_own_folder(target) and DATASET.check(target) and os.listdir(target) == ["data"]


def _move(beside: Path, root: Path, dataset_id: str) -> None:
    """Gives a whole dataset its place; one of ours that is there makes room for it."""
    *namespaces, name = Path(dataset_id).parts
    folder = root
    for namespace in namespaces:
        beside, folder = beside / namespace, folder / namespace
        make_own_folder(folder)
        for described in beside.glob("*.json"):
            if not is_own_file(folder / described.name):
                write_atomically(folder / described.name, described.read_bytes())
    if (folder / name).exists():
        (folder / name).rename(beside / "old")
    (beside / name).rename(folder / name)


def _existing(path: Path) -> RunFilesError:
    return RunFilesError(
        f"{path}: expected nothing there, but something is; choose another --out, or pass --overwrite if it is an export."
    )


def landscapes_config(instances: InstanceSet, frame: pd.DataFrame) -> RunConfig:
    """Returns the configuration of the bench that a set's landscapes are of."""
    return preset(ENV_ID, instances=instances.source, split=instances[str(frame["instance"].iloc[0])].split)


def shared_config(frame: pd.DataFrame, root: Path) -> RunConfig:
    """Returns the configuration that all runs of a frame share.

    Args:
        frame: Rows of runs, as ``load_runs(root)`` returns them.
        root: The folder that they were read from.

    Raises:
        ConfigError: If they differ; the message names the fields.
        RunFilesError: If a ``config.json`` cannot be read.
    """
    _, config = common_environment(root / run if (root / run).is_dir() else root for run in frame["run"].unique())
    return config
