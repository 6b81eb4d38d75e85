"""A full disk: each writer leaves a whole file or nothing, and says that space is needed, not that the path is wrong."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from analysis import AnalysisError, load_runs
from analysis.report.page import write_report
from analysis.report.writing import MARK, write_page
from atesd.commands import shared
from atesd.experiments.export import export_minari, export_table, shared_config
from atesd.experiments.run import execute
from atesd.experiments.specs import RunSpec, plan_runs
from atesd.experiments.training.training import TrainSpec, train
from atesd_env.config import preset
from atesd_env.errors import AtesdError, RunFilesError
from atesd_env.evaluation.samples import SampleFile
from atesd_env.files.atomic import new_folder, write_atomically
from atesd_env.files.checkpoint import Checkpoint, write_checkpoint

TOY = preset("ATESD-Toy-v0", windows=3, toy_noise=0.02)


def toy_run(out: Path) -> RunSpec:
    (spec,) = plan_runs("ATESD-Toy-v0", TOY, ["fixed:0.5"], [0], out)
    return spec


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def adapter(folder: Path) -> None:
    from atesd_env.population.population import Population

    population = Population(preset("ATESD-Tiny-v0"), num_students=1)
    population.save_adapter(0, folder / "adapter")


def filled(folder: Path) -> None:
    with new_folder(folder / "model") as inner:
        inner.mkdir()
        write_atomically(inner / "model.safetensors", b"0" * 100)


WRITERS: dict[str, Callable[[Path], object]] = {
    "write_atomically": lambda folder: write_atomically(folder / "one", b"new" * 1000),
    "write_checkpoint": lambda folder: write_checkpoint(folder / "one", Checkpoint({"x": np.zeros(1000)}, {})),
    "write_page": lambda folder: write_page(folder / "report.html", MARK + b"0" * 9000),
    "export_table": lambda folder: export_table(pd.DataFrame({"x": range(1000)}), folder / "t.csv", "csv"),
    "new_folder": filled,
    "adapter": adapter,
}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("writer", WRITERS)
def test_what_cannot_be_stored_leaves_nothing_and_asks_for_space(
    writer: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(_: int) -> None:
        raise OSError(number, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises((RunFilesError, AnalysisError), match="free some space"):
        WRITERS[writer](tmp_path)
    assert tree(tmp_path) == {}


def test_an_older_file_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_atomically(tmp_path / "one", b"old")
    write_page(tmp_path / "report.html", MARK)
    before = tree(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (
        lambda: write_atomically(tmp_path / "one", b"new"),
        lambda: write_page(tmp_path / "report.html", MARK),
    ):
        with pytest.raises((RunFilesError, AnalysisError)):
            write()
    assert tree(tmp_path) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = "size=1m,nr_inodes=200"
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", disk], capture_output=True).returncode
    ):
        pytest.skip("only root may mount a small file system")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def exported_minari(runs: Path, disk: Path) -> None:
    frame = load_runs(runs)
    export_minari(frame, shared_config(frame, runs), disk / "minari")


ON_DISK: dict[str, Callable[[Path, Path], object]] = {
    "run": lambda runs, disk: execute(toy_run(disk / "runs"), checkpoint_every=1),
    "train": lambda runs, disk: train(train_spec(disk)),
    "report": lambda runs, disk: write_report(runs, disk / "report.html"),
    "csv": lambda runs, disk: export_table(load_runs(runs), disk / "runs.csv", "csv"),
    "parquet": lambda runs, disk: export_table(load_runs(runs), disk / "runs.parquet", "parquet"),
    "minari": exported_minari,
    "picture": lambda runs, disk: shared.write_picture(_figure(), disk / "picture.png"),
    "model": lambda runs, disk: filled_with_weights(disk / "model"),
    "evaluation": lambda runs, disk: SampleFile(_made(disk / "evaluation"), {"adapters": {}, "text": "0" * 9000}),
}


AGAIN: dict[str, Callable[[Path], object]] = {
    "run": lambda disk: execute(toy_run(disk / "runs"), resume=True),
    "train": lambda disk: train(train_spec(disk), resume=True),
}


def train_spec(disk: Path) -> TrainSpec:
    return TrainSpec("ATESD-Toy-v0", TOY, "beta", None, 6, 0, None, (0,), disk / "training")


def filled_with_weights(folder: Path) -> None:
    with new_folder(folder) as inner:
        inner.mkdir()
        save_file({"x": np.zeros(50_000)}, inner / "model.safetensors")  # as transformers does


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _figure() -> Any:
    from matplotlib.figure import Figure

    return Figure()


@pytest.mark.parametrize(
    ("writer", "left"),
    [*((writer, 0) for writer in ON_DISK), ("run", 8192), ("run", 12288), ("train", 8192), ("minari", 8192)],
)
def test_a_disk_that_is_full_gets_no_half_file(writer: str, left: int, small_disk: Path, tmp_path: Path):
    if writer == "minari":
        pytest.importorskip("minari", reason="the package minari is missing")
    execute(toy_run(tmp_path / "runs"))
    space = os.statvfs(small_disk)
    (small_disk / "ballast").write_bytes(b"0" * (space.f_bavail * space.f_bsize - left))
    with pytest.raises((AtesdError, AnalysisError), match="free some space"):
        ON_DISK[writer](tmp_path / "runs", small_disk)
    (small_disk / "ballast").unlink()
    left_behind = tree(small_disk)
    assert not [name for name in left_behind if ".tmp" in name or ".partial" in name or ".atesd-" in name]
    if writer in ("run", "train"):  # goes on with what was written
        AGAIN[writer](small_disk)
    else:
        assert set(left_behind) <= {"evaluation/samples.jsonl"}
        if writer != "evaluation":
            ON_DISK[writer](tmp_path / "runs", small_disk)
