"""Are the runs of a submission what they say? Each is made again with its recorded ratios, and its rows are compared.

What no replay can tell stays open: whether the agent would decide so again, what it learned from before, and what it tells of its
decisions' cost (the columns ``agent/`` and ``time/``). The student's side is checked whole: rows of the same versions and number of
threads come out bit for bit; where machines or libraries round otherwise, within a tolerance.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray

import atesd_env  # noqa: F401  (registers the ids)
from atesd.experiments.bench.packed import unpacked
from atesd.experiments.bench.plan import read_bench_file
from atesd.experiments.logged_runs import ratio_columns
from atesd.experiments.processes import num_cores
from atesd_env.bench.instances import ENV_ID, InstanceSet
from atesd_env.bench.seeds import split_of_seed
from atesd_env.config import read_config
from atesd_env.config.checks import is_finite
from atesd_env.errors import AtesdError, ConfigError, RunFilesError
from atesd_env.files.description import read_description
from atesd_env.files.reading import reading
from atesd_env.files.run_folder import CONFIG_FILE, TRAJECTORY_FILE, package_versions, read_rows

TOLERANCE = 1e-3
"""Largest difference of a number of other versions or another machine, relative above 1, that counts as rounding; the updates of a
run magnify it, so that counts (tokens, shares of right answers) may differ by ``COUNTS`` of their size."""
COUNTS = 0.1
"""Largest relative difference of what a sampled token decides: a token that rounds to another one changes a rollout."""

_SAMPLED = ("rollout/", "probe/accuracy", "probe/pass_at_k")
_MEASURED = ("student/", "teacher/", "probe/nll", "probe/grounded", "reward/")
_NOT_STUDENTS = ("agent/", "time/")
_ADDED = ("status", "reason", "non_finite", "update/num_tokens", "probe/nll_before")

Verdict = Literal["same bits", "same within tolerance", "refused", "not checked"]
"""What a run was found to be when it was made again."""


@dataclass(frozen=True)
class CheckedRun:
    """What the replay of a run found.

    Attributes:
        folder: The run's folder.
        verdict: "same bits", "same within tolerance", "refused" or "not checked".
        reason: Where it differs first, or why it was not checked; empty otherwise.
    """

    folder: Path
    verdict: Verdict
    reason: str = ""


def check_submission(
    folder: Path,
    processes: int = 0,
    report: Callable[[CheckedRun], None] = lambda _run: None,
    *,
    is_quick: bool = False,
    windows: int | None = None,
) -> list[CheckedRun]:
    """Replays every run of a submission.

    Args:
        folder: The submission's folder.
        processes: Processes at once; 0 is one for each core. They compute with as many threads as OMP_NUM_THREADS says.
        report: Called with each run.
        is_quick: Replay one run of each agent only, the one with most to compare.
        windows: Replay the first windows of a run only; None is all.

    Raises:
        RunFilesError: If the folder is no submission, or holds no run.
        ConfigError, DataError: If its instance set is not here, or cannot be used.
    """
    told = read_bench_file(folder)
    whole = InstanceSet.load(told["instances"])
    unlike = f"the set is {whole.name} {whole.version} now, with other fields; take the version that was run"
    why_not = "" if whole.fingerprint == told["fingerprint"] else unlike
    check = partial(_check_run, split=told["split"], why_not=why_not, windows=windows)
    checked: list[CheckedRun] = []
    with unpacked(folder) as there:
        folders = _to_check(there, is_quick=is_quick)
        processes = min(processes or num_cores(), len(folders))
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
            # Processes begin with the first run that they are given: one at a time needs none.
            for run in map(check, folders) if processes == 1 else pool.map(check, folders):
                named = folder / run.folder.relative_to(there), run.reason.replace(str(there), str(folder))
                checked.append(replace(run, folder=named[0], reason=named[1]))
                report(checked[-1])
    return checked


def _to_check(folder: Path, *, is_quick: bool) -> list[Path]:
    """Returns the folders of the runs that are replayed."""
    # A run that has lost its description, or shows a link to nothing there, is one all the same.
    found = sorted({path.parent for path in folder.glob("*/*/*") if path.name in (CONFIG_FILE, TRAJECTORY_FILE)})
    if not found:
        raise RunFilesError(
            f"{folder}: expected runs in folders of instances, found none; pass the folder given to --out."
        )
    if not is_quick:
        return found
    sizes = {run: path.stat().st_size if (path := run / TRAJECTORY_FILE).exists() else 0 for run in found}
    return list({_identity(run / CONFIG_FILE)[0]: run for run in sorted(found, key=sizes.__getitem__)}.values())


def missing_runs(folder: Path) -> list[str]:
    """Returns which of a submission's agents lack a run that another one has, and which instances have none, for people."""
    told = read_bench_file(folder)
    there: dict[str, set[tuple[str, int]]] = {}
    with unpacked(folder) as runs:
        for config in runs.glob(f"*/*/{CONFIG_FILE}"):
            agent, instance, seed = _identity(config)
            there.setdefault(agent, set()).add((instance, seed))
    seeds = {seed for pairs in there.values() for _, seed in pairs}
    ids = [instance.id for instance in InstanceSet.load(told["instances"]).of(told["split"])]
    return [
        f"{agent}: instance {instance}, seed {seed}"
        for agent, pairs in sorted(there.items())
        for instance in ids
        for seed in sorted(seeds)
        if (instance, seed) not in pairs
    ]


def _identity(config: Path) -> tuple[str, str, int]:
    """Returns the agent, the instance and the seed that a run's description tells."""
    with reading(config, "a run of the bench"):
        run = read_description(config, "run", ["config"])
        return str(run["agent"]), str(run["config"]["instance"]), int(run["seed"])


def _check_run(folder: Path, split: str, why_not: str, windows: int | None) -> CheckedRun:
    try:
        with reading(folder, "a run of the bench"):
            run = read_description(folder / CONFIG_FILE, "run", ["config"])
            rows = read_rows(folder / TRAJECTORY_FILE)
            fault = _fault_of_description(run, rows, split)
        if fault or why_not:
            return CheckedRun(folder, "refused" if fault else "not checked", fault or why_not)
        rows = rows[:windows]
        return _compare(folder, rows, list(_replayed(run, rows)), is_same=run.get("versions") == package_versions())
    except AtesdError as error:
        # What the files say is the submission's; that a model or a library is not here is this machine's.
        is_its_own = isinstance(error, RunFilesError | ConfigError)
        return CheckedRun(folder, "refused" if is_its_own else "not checked", str(error))


def _fault_of_description(run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], split: str) -> str:
    """Returns what is wrong with a run before it is replayed; empty where nothing is."""
    config, seed = run["config"], run["seed"]
    if run["env_id"] != ENV_ID or config["split"] != split:
        return f"expected a run of {ENV_ID}, split {split}, got {run['env_id']}, split {config['split']}"
    if split_of_seed(seed) != split:
        return f"expected a seed of the split {split}, got {seed}"
    if [row.get("window") for row in rows] != list(range(1, len(rows) + 1)):
        return "expected the windows from 1 on, each once, got others"
    if not rows or rows[-1].get("status") not in ("truncated", "terminated"):
        return "expected a run that came to its end, got one that did not"
    return ""


def _replayed(run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Makes a run again with the ratios of its rows; yields each window's ``info``, the first one with the base's probe NLL."""
    env: Any = gymnasium.make(ENV_ID, **read_config(run["config"]).keywords(), disable_env_checker=True).unwrapped
    try:
        _, first = env.reset(seed=run["seed"])
        for row in rows:
            *_, terminated, truncated, info = env.step(_recorded(row, env.num_ratios, ratio_columns(env.config)))
            status = "terminated" if terminated else "truncated" if truncated else "running"
            yield {**info, "probe/nll_before": first["probe/nll"], "status": status}
            if status != "running":
                return
    finally:
        env.close()


def _recorded(row: Mapping[str, Any], num_ratios: int, columns: Sequence[str]) -> NDArray[np.float64]:
    """Returns the action of a row: the ratios in its columns, for each group or problem that the instance has, and 0 for others.

    The one ratio of an instance without groups is logged as a mean over rollouts, which may be off by its last bit; agents decide
    in float32, so the nearest of these is meant.
    """
    action = np.zeros(num_ratios)
    with reading(f"window {row['window']}", "a number for each reveal ratio", remedy="restore the row"):
        action[: len(columns)] = [row[name] for name in columns]
    nearest = action.astype(np.float32).astype(np.float64)
    return np.where(np.abs(nearest - action) < 1e-12, nearest, action)


def _compare(
    folder: Path, rows: Sequence[Mapping[str, Any]], replayed: Sequence[Mapping[str, Any]], *, is_same: bool
) -> CheckedRun:
    """Returns the verdict on a run's rows beside those of the replay."""
    if len(rows) != len(replayed):
        return CheckedRun(folder, "refused", f"expected {len(replayed)} windows, as the replay has, got {len(rows)}")
    inexact = ""
    for row, again in zip(rows, replayed, strict=True):
        if not inexact and (alone := _differs_alone(row, again)):
            return CheckedRun(folder, "refused", f"window {row['window']}: only {alone} differ, which no rounding does")
        for name in {**row, **again}:
            if name.startswith(_NOT_STUDENTS) or (name in _ADDED and not (name in row and name in again)):
                continue
            value, expected = row.get(name), again.get(name)
            where = f"window {row['window']}, {name}: {value!r} recorded, {expected!r} replayed"
            if not _is_close(name, value, expected):
                return CheckedRun(folder, "refused", where)
            if value != expected and not inexact:
                inexact = where
    if not inexact:
        return CheckedRun(folder, "same bits")
    hint = " (with the same versions; another number of threads or another machine rounds so)" if is_same else ""
    return CheckedRun(folder, "same within tolerance", f"{inexact}{hint}")


def _differs_alone(row: Mapping[str, Any], again: Mapping[str, Any]) -> str:
    """Returns the columns that differ where most do not; rounding, once it begins, is in nearly all of a window's measurements."""
    measured = [name for name, value in row.items() if name.startswith(_MEASURED) and isinstance(value, float)]
    different = [name for name in measured if row[name] != again.get(name)]
    return ", ".join(different) if 0 < len(different) < len(measured) / 2 else ""


def _is_close(name: str, value: Any, expected: Any) -> bool:
    if not all(type(one) in (int, float) for one in (value, expected)):
        return type(value) is type(expected) and bool(value == expected)
    tolerance = COUNTS if name.startswith(_SAMPLED) else TOLERANCE
    return is_finite(value) and abs(value - expected) <= tolerance * max(1.0, abs(expected))
