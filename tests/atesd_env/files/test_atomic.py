"""One writer a folder, and files that are whole or as they were."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from atesd_env.errors import RunFilesError
from atesd_env.files import atomic
from atesd_env.files.atomic import (
    LOCK_FILE,
    TEMPORARY,
    check_writable,
    locked_folder,
    new_folder,
    opened,
    write_atomically,
)

HOLD = (
    "import sys, time; from pathlib import Path; from atesd_env.files.atomic import locked_folder\n"
    "with locked_folder(Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


def test_another_process_is_refused_until_the_first_dies(tmp_path: Path):
    folder = tmp_path / "new" / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        assert process.stdout.readline().strip() == b"held"
        with (
            pytest.raises(RunFilesError, match="expected a folder that no other process writes to"),
            locked_folder(folder),
        ):
            pass
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    with locked_folder(folder):
        pass
    assert (folder / LOCK_FILE).read_bytes() == b""


def test_the_lock_is_given_back_after_an_error(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), locked_folder(tmp_path):
        raise ZeroDivisionError
    with locked_folder(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFilesError, match="a folder to write to"), locked_folder(tmp_path / "file" / "run"):
        pass


def test_a_written_file_replaces_the_old_one(tmp_path: Path):
    write_atomically(tmp_path / "one", b"old")
    write_atomically(tmp_path / "one", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("one", b"new")]


@pytest.mark.parametrize("make", ["link", "dangling", "folder", "pipe", "device"])
def test_only_a_file_is_replaced_by_one(make: str, tmp_path: Path):
    path, elsewhere = tmp_path / "one", tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    {
        "link": lambda: path.symlink_to(elsewhere),
        "dangling": lambda: path.symlink_to(tmp_path / "nothing"),
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/null"),
    }[make]()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RunFilesError, match="one: expected a file of its own, or nothing, got a"):
        write_atomically(path, b"new")
    assert sorted(tmp_path.iterdir()) == before
    assert elsewhere.read_text() == "mine"


def test_unfinished_files_have_names_that_nobody_can_prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names: list[str] = []

    def noted(path: Path, flags: int) -> int:
        names.append(path.name)
        assert flags & os.O_EXCL
        return opened(path, flags)

    monkeypatch.setattr("atesd_env.files.atomic.opened", noted)
    for _ in range(2):
        write_atomically(tmp_path / "one", b"new")
    assert len(set(names)) == 2
    assert all(re.fullmatch(TEMPORARY, name) for name in names)


def test_a_file_with_the_longest_name_is_written(tmp_path: Path):
    name = "验" * 85
    write_atomically(tmp_path / name, b"new")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_killed_writers_left_is_swept_out_and_nothing_else(tmp_path: Path):
    temporary = ".0123456789abcdef.atesd.tmp"
    (tmp_path / "inner" / "deeper").mkdir(parents=True)
    (tmp_path / "elsewhere").write_text("mine")
    mine = [
        tmp_path / ".0123456789abcdeX.atesd.tmp",
        tmp_path / f"{temporary}.txt",
        tmp_path / "one.tmp",
        tmp_path / "inner" / "deeper" / temporary,
        tmp_path / "elsewhere",
    ]
    for path in (*mine, tmp_path / temporary, tmp_path / "inner" / temporary):
        path.write_text("mine")
    link = tmp_path / ".fedcba9876543210.atesd.tmp"
    link.symlink_to(tmp_path / "elsewhere")
    with locked_folder(tmp_path):
        pass
    left = {path for path in tmp_path.rglob("*") if not path.is_dir()}
    assert left == {*mine, link, tmp_path / LOCK_FILE}


def test_a_lock_is_no_link(tmp_path: Path):
    (tmp_path / LOCK_FILE).symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(RunFilesError, match=r"\.lock: expected a file of its own, or nothing, got a link"),
        locked_folder(tmp_path),
    ):
        pass
    assert not (tmp_path / "elsewhere").exists()


def fail_half_way(folder: Path) -> None:
    folder.mkdir()
    (folder / "half").write_text("")
    raise ZeroDivisionError


def test_a_folder_made_by_another_library_is_whole_or_not_there(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "model") as inner:
        fail_half_way(inner)
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "model") as inner:
        inner.mkdir()
        (inner / "whole").write_text("")
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "whole"]
    with (
        pytest.raises(RunFilesError, match="expected a new folder, got one with files"),
        new_folder(tmp_path / "model"),
    ):
        pass
    (tmp_path / "link").symlink_to("model")
    with pytest.raises(RunFilesError, match="got a link to"), new_folder(tmp_path / "link"):
        pass


@pytest.mark.parametrize("path", ["file/run", "file/deeper/run", "x" * 300, "new/" + "x" * 300 + "/run", "\ud800"])
def test_what_cannot_be_written_is_refused_before_the_work(path: str, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFilesError, match="expected a path that can be written, got"):
        check_writable(tmp_path / path)
    check_writable(tmp_path / "new" / "deep" / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_may_not_be_written_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(RunFilesError, match="is not writable"):
        check_writable(tmp_path / "new" / "run")


def test_what_a_killed_writer_left_goes_with_the_next_file_but_not_what_is_being_written(tmp_path: Path):
    left, locked = (tmp_path / f".{digit * 16}.atesd.tmp" for digit in "12")
    for path in (left, locked):
        path.write_text("half")
    with locked.open("rb") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        write_atomically(tmp_path / "one", b"new")
    assert {path.name for path in tmp_path.iterdir()} == {"one", locked.name}


def test_a_file_that_another_writer_swept_out_before_it_was_locked_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lock = atomic._try_to_lock
    swept: list[Path] = []

    def slow_lock(descriptor: int, **options: bool) -> bool:
        if not swept:
            swept.extend(tmp_path.glob(".*.atesd.tmp"))
            swept[0].unlink()
        return lock(descriptor, **options)

    monkeypatch.setattr(atomic, "_try_to_lock", slow_lock)
    write_atomically(tmp_path / "one", b"new")
    assert len(swept) == 1
    assert (tmp_path / "one").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
