"""The documented commands with relative folders, from another folder, with blanks and other scripts in the paths."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from analysis import load_runs
from atesd.commands.cli import main
from tests.programs import atesd, refusal

TOY = ("--env", "ATESD-Toy-v0", "--windows", 2)
FOLDERS = ["runs/m", "läufe 实验/mit Leerzeichen", "../beside/=1", "./a/../b"]


def do(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


def tree(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "anderswo 别处").mkdir()
    monkeypatch.chdir(tmp_path / "anderswo 别处")
    return tmp_path


@pytest.mark.parametrize("out", FOLDERS)
def test_runs_are_made_reported_and_exported(out: str, here: Path, capsys: Any):
    minari = pytest.importorskip("minari", reason="the package minari is missing")
    do("run", *TOY, "--agent", "fixed:0.5", "beta", "--out", out, "--quiet")
    do("run", *TOY, "--agent", "fixed:0.5", "beta", "--out", out, "--quiet", "--resume")
    do("compare", *TOY, "--agent", "fixed:0.5", "--seeds", 0, "--out", out, "--quiet", "--overwrite", "--processes", 1)
    do("report", out)
    do("report", out)  # takes the place of the older one
    for to in ("csv", "parquet", "minari"):
        do("export", out, "--to", to)
    assert len(load_runs(out)) == 4
    for name in ("exposure.png", "comparison.json", "report.html", "runs.csv", "runs.parquet"):
        assert (Path(out) / name).stat().st_size
    whole = tree(Path(out))
    assert not [name for name in whole if ".tmp" in name or ".partial" in name or ".atesd-" in name]
    assert "--overwrite" in refusal(capsys, "export", out, "--to", "minari", status=1)
    do("export", out, "--to", "minari", "--overwrite")
    assert tree(Path(out)) == whole
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(Path(out, "minari").resolve()))
        dataset = minari.load_dataset("atesd/ATESD-Toy-v0")
    assert dataset.total_episodes == 2


def test_agents_are_trained_and_surrogates_fitted(here: Path):
    out = Path("läufe 实验")
    training = ("train", *TOY, "--agent", "beta", "--eval-seeds", 0, "--quiet", "--out", out / "train ing")
    do(*training, "--total-windows", 4)
    do(*training, "--total-windows", 8, "--resume")
    do("run", *TOY, "--agent", out / "train ing" / "best_agent.safetensors", "--out", out / "played", "--quiet")
    do("run", *TOY, "--agent", "random", "--seeds", *range(12), "--out", out / "logged", "--quiet")
    fit = ("fit-surrogate", out / "logged", "--families", "linear", "--out", out / "neu" / "sur rogate.safetensors")
    do(*fit)
    do(*fit, "--overwrite")
    do("data", "gsm8k", "--out", out / "da ta" / "数据.jsonl")
    assert json.loads((out / "da ta" / "数据.jsonl").read_text().splitlines()[0])["problem"]


@pytest.mark.parametrize("target", ["runs", "/dev/null"])
def test_a_file_takes_the_place_of_no_folder_and_no_device(target: str, here: Path, capsys: Any):
    do("run", *TOY, "--agent", "fixed:0.5", "--out", "runs", "--quiet")
    before = os.lstat(target).st_mode
    for command in (("export", "runs", "--to", "csv"), ("data", "gsm8k"), ("fit-surrogate", "runs")):
        said = refusal(capsys, *command, "--out", target, "--overwrite", status=1)
        assert f"{target}: expected a file of its own, or nothing, got a" in said
    assert os.lstat(target).st_mode == before


def test_the_documented_minari_command_in_a_process_of_its_own(here: Path):
    pytest.importorskip("minari", reason="the package minari is missing")
    assert atesd("run", *TOY, "--agent", "fixed:0.5", "--out", "runs/m", cwd=here).returncode == 0
    for more in ([], ["--overwrite"]):
        done = atesd("export", "runs/m", "--to", "minari", *more, cwd=here)
        assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in (here / "runs" / "m" / "minari").iterdir()] == ["atesd"]
