"""Checkpoint files: bits come back, damage is seen, and the one before stays until the next is whole."""

from __future__ import annotations

import errno
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.files import checkpoint as module
from atesd_env.files.checkpoint import (
    Checkpoint,
    delete_numbered,
    latest_whole,
    read_checkpoint,
    write_checkpoint,
    write_numbered,
)
from tests.programs import ran

RNG = np.random.default_rng(0)


def example(number: float = 0.1) -> Checkpoint:
    return Checkpoint(
        {"adapter": RNG.standard_normal(17).astype(np.float32), "step": np.asarray(3.0), "empty": np.zeros((0, 2))},
        {"number": number, "rows": [{"window": 1, "loss": None}], "text": 'a "quoted" \u00e9', "flag": True},
    )


def assert_same(left: Checkpoint, right: Checkpoint) -> None:
    assert left.arrays.keys() == right.arrays.keys()
    for name, array in left.arrays.items():
        assert array.dtype == right.arrays[name].dtype
        assert array.shape == right.arrays[name].shape
        assert array.tobytes() == right.arrays[name].tobytes()
    assert repr(left.description) == repr(right.description)


@pytest.mark.parametrize(
    "number", [0.1 + 0.2, -0.0, 5e-324, 1.7976931348623157e308, math.pi, math.nan, math.inf, -math.inf, 2**100, True]
)
def test_numbers_and_arrays_come_back_bit_for_bit(tmp_path: Path, number: float):
    written = example(number)
    write_checkpoint(tmp_path / "one", written)
    assert_same(read_checkpoint(tmp_path / "one"), written)


def test_nan_bits_in_arrays_are_kept(tmp_path: Path):
    bits = np.array([0x7FC00001, 0xFFC12345, 0x80000000, 1], dtype=np.uint32)
    write_checkpoint(tmp_path / "one", Checkpoint({"bits": bits.view(np.float32)}, {}))
    np.testing.assert_array_equal(read_checkpoint(tmp_path / "one").arrays["bits"].view(np.uint32), bits)


def test_the_file_is_plain_safetensors_with_strict_json(tmp_path: Path):
    write_checkpoint(tmp_path / "one", example(math.nan))
    with safe_open(tmp_path / "one", framework="numpy") as file:
        assert set(file.keys()) == {"adapter", "step", "empty"}
        header = json.loads(file.metadata()["checkpoint"], parse_constant=lambda name: pytest.fail(name))
    assert header["format_version"] == 1


def test_equal_content_gives_equal_bytes(tmp_path: Path):
    content = example()
    write_checkpoint(tmp_path / "one", content)
    write_checkpoint(tmp_path / "two", content)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_every_flipped_bit_is_seen(tmp_path: Path):
    path = tmp_path / "one"
    write_checkpoint(path, Checkpoint({"x": np.arange(5, dtype=np.float32)}, {"sha256": "0" * 64}))
    content = path.read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << (position % 8)
        path.write_bytes(changed)
        with pytest.raises(RunFilesError, match="one: expected a whole checkpoint"):
            read_checkpoint(path)
    path.write_bytes(content)
    assert read_checkpoint(path).description == {"sha256": "0" * 64}


def test_every_cut_is_seen(tmp_path: Path):
    path = tmp_path / "one"
    write_checkpoint(path, example())
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(RunFilesError, match="one: expected a whole checkpoint"):
            read_checkpoint(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(RunFilesError, match="one: expected a whole checkpoint"):
        read_checkpoint(path)


def test_another_version_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "FORMAT_VERSION", 2)
    write_checkpoint(tmp_path / "one", example())
    monkeypatch.undo()
    with pytest.raises(RunFilesError, match="version 2 of the layout, not 1"):
        read_checkpoint(tmp_path / "one")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(RunFilesError, match="none: expected a readable checkpoint"):
        read_checkpoint(tmp_path / "none")


@pytest.mark.parametrize("value", [object(), {1: 2}, {1, 2}, b"bytes", np.zeros(2)])
def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path, value: Any):
    with pytest.raises(ConfigError, match="checkpoint: expected numbers, strings"):
        write_checkpoint(tmp_path / "one", Checkpoint({}, {"value": value}))
    assert list(tmp_path.iterdir()) == []


def test_the_last_two_are_kept_and_the_newest_is_read(tmp_path: Path):
    assert latest_whole(tmp_path / "run") is None
    for number in (1, 2, 5, 1_000_000):
        write_numbered(tmp_path / "run", number, example(number))
    (tmp_path / "run" / "notes.txt").write_text("mine")
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["notes.txt", "window-000005.safetensors", "window-1000000.safetensors"]
    found = latest_whole(tmp_path / "run")
    assert found is not None
    assert (found[0], found[1].description["number"]) == (1_000_000, 1_000_000)
    delete_numbered(tmp_path / "run", after=5)
    assert [path.name for path in (tmp_path / "run").glob("window*")] == ["window-000005.safetensors"]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "version"])
def test_a_damaged_one_is_named_and_the_one_before_is_used(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    write_numbered(tmp_path, 1, example(1))
    if damage == "version":
        monkeypatch.setattr(module, "FORMAT_VERSION", 9)
    path = write_numbered(tmp_path, 2, example(2))
    monkeypatch.undo()
    content = path.read_bytes()
    middle = len(content) // 2
    damaged = {
        "cut": content[:middle],
        "flip": content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :],
        "empty": b"",
        "version": content,
    }
    path.write_bytes(damaged[damage])
    found = latest_whole(tmp_path)
    assert found is not None
    assert (found[0], found[1].description["number"]) == (1, 1)
    assert "window-000002.safetensors: expected a whole checkpoint" in caplog.text


def test_a_damaged_newer_one_does_not_cost_the_whole_one_before(tmp_path: Path):
    """Gone back to window 1, the run writes window 2: the broken window 3 must not count as one of the two."""
    write_numbered(tmp_path, 1, example(1))
    write_numbered(tmp_path, 3, example(3)).write_bytes(b"broken")
    write_numbered(tmp_path, 2, example(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "window-000001.safetensors",
        "window-000002.safetensors",
    ]


def test_a_full_disk_leaves_the_one_before_whole(tmp_path: Path):
    """In a process of its own, whose files the operating system cuts at 2,000 bytes."""
    write_numbered(tmp_path, 1, example(1))
    program = (
        "import resource, signal, sys; from pathlib import Path; import numpy as np\n"
        "from atesd_env.files.checkpoint import Checkpoint, write_numbered\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "write_numbered(Path(sys.argv[1]), 2, Checkpoint({'x': np.zeros(10_000)}, {}))\n"
    )
    finished = ran(sys.executable, "-c", program, tmp_path)
    assert "RunFilesError" in finished.stderr
    assert "free some space" in finished.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["window-000001.safetensors"], "no half file either"
    assert latest_whole(tmp_path) is not None


@pytest.mark.parametrize("error", [OSError(errno.EROFS, "Read-only file system"), KeyboardInterrupt()])
def test_a_failed_or_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
):
    content = example(1)
    write_checkpoint(tmp_path / "one", content)

    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RunFilesError if isinstance(error, OSError) else KeyboardInterrupt):
        write_checkpoint(tmp_path / "one", example(2))
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert_same(read_checkpoint(tmp_path / "one"), content)


def test_nothing_in_a_file_is_unpickled(tmp_path: Path):
    """Reading a checkpoint works where pickle cannot be imported."""
    write_checkpoint(tmp_path / "one", example())
    program = (
        "import sys; from pathlib import Path; from atesd_env.files.checkpoint import read_checkpoint\n"
        "import pickle; pickle.loads = pickle.load = pickle.Unpickler = None\n"
        "print(read_checkpoint(Path(sys.argv[1])).description['text'])\n"
    )
    finished = ran(sys.executable, "-c", program, tmp_path / "one", PYTHONIOENCODING="utf-8")
    assert finished.stdout.strip() == 'a "quoted" \u00e9', finished.stderr
