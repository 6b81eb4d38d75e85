"""One writer a folder, and files that are whole or as they were."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from atesd_env.errors import RunFilesError
from atesd_env.files.atomic import LOCK_FILE, locked_folder, write_atomically

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
