"""One run in two processes (gloo, CPU): the single process's rows and adapter, and an end without loss when one dies."""

from __future__ import annotations

import ast
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from atesd_env.files.run_folder import read_rows
from atesd_env.student.ranks import ALONE, Ranks

PROGRAM = Path(__file__).with_name("ranks_program.py")
# Gradients are sums of float32 in another order; four significant digits more than a window moves anything by.
RELATIVE, ABSOLUTE = 2e-4, 1e-6


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the program's processes left behind."""
    folder = tmp_path_factory.mktemp("ranks")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(PROGRAM), str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def statuses(out: Path) -> dict[str, list[int]]:
    """Exit statuses of each scenario's processes."""
    lines = (line.split(" ", 1) for line in (out / "statuses.txt").read_text().splitlines())
    return {name: ast.literal_eval(codes) for name, codes in lines}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    rows = read_rows(folder / "trajectory.jsonl")
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]


def assert_same_run(found: Path, expected: Path, num_windows: int = 3) -> None:
    """Compares rows and adapters: whole numbers, texts and what was sampled exactly, measurements to float tolerance."""
    rows, there = rows_of(found), rows_of(expected)
    assert len(rows) == len(there) == num_windows
    for row, other in zip(rows, there, strict=True):
        for name, value in other.items():
            if isinstance(value, float):
                assert math.isclose(row[name], value, rel_tol=RELATIVE, abs_tol=ABSOLUTE), (name, row[name], value)
            else:
                assert row[name] == value, name
    adapter, other_adapter = (
        load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (found, expected)
    )
    # AdamW divides a gradient by its own size, so an entry whose gradient is rounding goes where rounding points: single
    # entries may differ (by a fiftieth of an update's step at most), the matrix that was learned may not.
    for name, matrix in other_adapter.items():
        np.testing.assert_allclose(adapter[name], matrix, rtol=0, atol=4e-5)
        if "lora_B" in name:  # begins at zero, so it is what was learned
            assert np.abs(matrix).max() > 1e-3
            assert np.linalg.norm(adapter[name] - matrix) < 5e-4 * np.linalg.norm(matrix), name


def test_two_processes_make_the_run_of_one(out: Path, statuses: dict[str, list[int]]) -> None:
    assert statuses["one"] == [0]
    assert statuses["two"] == [0, 0]
    assert_same_run(out / "two", out / "one")


def test_two_processes_have_the_gradients_of_one(out: Path, statuses: dict[str, list[int]]) -> None:
    """Every number of every adapter's gradient, to a millionth of the largest at first; rounding grows with the steps made."""
    found, expected = (np.load(out / f"gradients-{name}.npy") for name in ("two", "one"))
    assert found.shape == expected.shape
    assert len(found) == 3
    differences = np.abs(found - expected).max(axis=1) / np.abs(expected).max(axis=1)
    assert differences[0] < 1e-6
    assert differences.max() < 2e-5


@pytest.mark.parametrize("problems", [3, 1, "window"])
def test_what_a_ratio_shows_is_asked_of_all_processes(
    out: Path, statuses: dict[str, list[int]], problems: int | str
) -> None:
    """The tokens of the rollouts and of the passes, and with them the decision and the window; of one problem a process has no row."""
    assert statuses[f"asked-{problems}-one"] == [0]
    assert statuses[f"asked-{problems}-two"] == [0, 0]
    assert_same_run(out / f"asked-{problems}-two", out / f"asked-{problems}-one", num_windows=1)
    (row,) = rows_of(out / f"asked-{problems}-two")
    assert row["agent/sampled_tokens"] > 0


def test_death_of_a_process_ends_the_run_and_resuming_gives_what_was_due(
    out: Path, statuses: dict[str, list[int]]
) -> None:
    at_death = [json.loads(line) for line in (out / "rows-at-death.txt").read_text().splitlines()]
    error = (out / "errors-0.txt").read_text().splitlines()[0]

    assert statuses["killed"] == [1, -9]
    assert [row["window"] for row in at_death] == [1]
    assert "one has ended" in error
    assert "--resume" in error
    assert statuses["resumed"] == [0, 0]
    assert rows_of(out / "killed") == rows_of(out / "two")
    adapters = [(out / name / "adapter" / "adapter_model.safetensors").read_bytes() for name in ("killed", "two")]
    assert adapters[0] == adapters[1]


def test_process_that_hangs_ends_the_run_after_the_time_out(out: Path, statuses: dict[str, list[int]]) -> None:
    assert statuses["stopped"] == [1, -9]
    assert "rank_timeout_sec" in (out / "errors-0.txt").read_text().splitlines()[1]
    assert len(rows_of(out / "stopped")) == 1


def test_what_is_not_finite_in_one_process_breaks_the_student_in_all(out: Path, statuses: dict[str, list[int]]) -> None:
    rows = rows_of(out / "non_finite")

    assert statuses["non_finite"] == [0, 0]
    assert len(rows) == 2
    assert rows[-1]["student/loss"] is None
    assert rows[-1]["status"] != "running"


def test_rows_that_cannot_be_shared_out_are_refused_in_every_process(out: Path, statuses: dict[str, list[int]]) -> None:
    assert statuses["too_few_rows"] == statuses["other_engine"] == [1, 1]
    for rank in (0, 1):
        errors = (out / f"errors-{rank}.txt").read_text()
        assert "at least one for each of the 2 processes" in errors
        assert "rollout_engine: expected 'own' with 2 processes" in errors


@pytest.mark.parametrize(("num_rows", "size"), [(5, 2), (1, 3), (16, 4), (7, 7)])
def test_shares_are_all_rows_once_in_order(num_rows: int, size: int) -> None:
    rows = [row for rank in range(size) for row in range(num_rows)[Ranks(rank, size).share(num_rows)]]

    assert rows == list(range(num_rows))
    assert ALONE.share(num_rows) == slice(0, num_rows)
