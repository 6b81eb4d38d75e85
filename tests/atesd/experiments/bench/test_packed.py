"""Packed submissions: they are read like the folders that they were made of, and nothing else is unpacked."""

from __future__ import annotations

import io
import json
import lzma
import tarfile
from pathlib import Path
from typing import Any

import pytest

from analysis.load import load_runs
from atesd.commands.cli import main
from atesd.experiments.bench import packed
from atesd.experiments.bench.packed import RUNS_FILE, pack, unpacked
from atesd.experiments.bench.validation import check_submission, missing_runs
from atesd_env.errors import ConfigError, RunFilesError
from tests.atesd_env.bench.sets import toy_set
from tests.programs import without_processes
from tests.runs import rows_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two agents on closed forms."""
    base = tmp_path_factory.mktemp("packed")
    toy_set().save(base / "mine.json")
    where = ["--instances", str(base / "mine.json"), "--split", "train", "--out", str(base / "runs")]
    with without_processes():
        main(["bench", "run", "--agent", "fixed:0.1", "random", *where, "--seeds", "3", "--quiet"])
    return base / "runs"


@pytest.fixture
def handed_in(folder: Path, tmp_path: Path) -> Path:
    """The runs of one of them, packed."""
    main(["bench", "pack", str(folder), "--agent", "random", "--out", str(tmp_path / "random")])
    return tmp_path / "random"


def repacked(folder: Path, change: Any) -> None:
    """Replaces what is packed by what ``change`` makes of a tar."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:xz") as archive:
        change(archive)
    (folder / RUNS_FILE).write_bytes(content.getvalue())


def test_what_is_packed_is_read_like_the_folders_it_was_made_of(folder: Path, handed_in: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in handed_in.iterdir()) == ["bench.json", RUNS_FILE]
    with unpacked(handed_in) as there:
        ours = load_runs(there)
        for run in sorted(path.parent for path in there.rglob("config.json")):
            assert (run / "config.json").read_bytes() == (folder / run.relative_to(there) / "config.json").read_bytes()
            assert rows_of(run) == rows_of(folder / run.relative_to(there))
    assert not there.exists()
    whole = load_runs(folder)
    assert ours["run"].unique().tolist() == [run for run in whole["run"].unique() if "random" in run]
    checked = check_submission(handed_in, 1)
    assert [run.verdict for run in checked] == ["same bits"] * 3
    assert {run.folder.parent.parent for run in checked} == {handed_in}
    assert missing_runs(handed_in) == []
    with unpacked(folder) as itself:
        assert itself == folder
    pack(folder, tmp_path / "fixed", ["fixed:0.1"])
    main(["bench", "score", str(handed_in), str(tmp_path / "fixed"), "--out", str(tmp_path)])
    assert {line["agent"] for line in json.loads((tmp_path / "score.json").read_text())["runs"]} == {
        "fixed:0.1",
        "random",
    }


def test_the_same_runs_give_the_same_bytes(folder: Path, handed_in: Path) -> None:
    before = (handed_in / RUNS_FILE).read_bytes()
    with pytest.raises(RunFilesError, match="replace it with --overwrite"):
        pack(folder, handed_in)
    assert pack(folder, handed_in, ["random"], overwrite=True) == 3
    assert (handed_in / RUNS_FILE).read_bytes() == before
    assert pack(folder, handed_in, overwrite=True) == 6
    with pytest.raises(ConfigError, match=r"expected runs of beta, got runs of fixed:0\.1, random; correct --agent"):
        pack(folder, handed_in, ["random", "beta"], overwrite=True)


def test_what_was_edited_and_packed_again_is_refused(folder: Path, handed_in: Path) -> None:
    with unpacked(handed_in) as there:
        rows = there / "low" / "random-seed3" / "trajectory.jsonl"
        rows.write_text(rows.read_text().replace('"window": 1,', '"window": 9,'))
        pack(there, handed_in, overwrite=True)
    (found,) = (run for run in check_submission(handed_in, 1) if run.verdict == "refused")
    assert found.folder == handed_in / "low" / "random-seed3"
    (handed_in / "low" / "random-seed3").mkdir(parents=True)
    (handed_in / "low" / "random-seed3" / "config.json").touch()
    with pytest.raises(RunFilesError, match=f"got {RUNS_FILE} and low/random-seed3; move one"):
        check_submission(handed_in, 1)


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0
) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info, io.BytesIO(bytes(size))


@pytest.mark.parametrize(
    "members",
    [
        [member("../low/config.json")],
        [member("low/../config.json")],
        [member("/low/run/config.json")],
        [member("low/run/agent.py")],
        [member("low/run/config.json/more")],
        [member("low/run/config.json", tarfile.SYMTYPE, "/etc/passwd")],
        [member("low/run/config.json", tarfile.LNKTYPE, "low/run/trajectory.jsonl")],
        [member("low/run/config.json", tarfile.FIFOTYPE)],
        [member("low/run", tarfile.DIRTYPE)],
        [member(f"low/{number}/config.json") for number in range(6)],
        [member("low/run/config.json", size=3000)],
        [member(f"low/{'x' * 300}/config.json")],
    ],
)
def test_nothing_else_is_unpacked(
    members: list[tuple[tarfile.TarInfo, io.BytesIO]], handed_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "MOST_FILES", 5)
    monkeypatch.setattr(packed, "LARGEST", 12_000)
    repacked(handed_in, lambda archive: [archive.addfile(*one) for one in members])
    monkeypatch.setattr(packed, "LARGEST", 12_000 if members[0][0].size == 0 else 2_000)
    with pytest.raises(RunFilesError, match=rf"{RUNS_FILE}: expected runs that `atesd bench pack` packed, got"):
        check_submission(handed_in, 1)


@pytest.mark.parametrize("content", [b"", b"no archive", lzma.compress(b"no tar"), None])
def test_damaged_files_are_refused(content: bytes | None, handed_in: Path) -> None:
    whole = (handed_in / RUNS_FILE).read_bytes()
    (handed_in / RUNS_FILE).write_bytes(whole[:-20] if content is None else content)
    with pytest.raises(RunFilesError, match=rf"{RUNS_FILE}: expected runs that `atesd bench pack` packed, got"):
        check_submission(handed_in, 1)


def test_what_asks_for_too_much_memory_is_refused(handed_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MOST_MEMORY", 2**20)
    with pytest.raises(RunFilesError, match=r"[Mm]emory usage limit"):
        check_submission(handed_in, 1)
