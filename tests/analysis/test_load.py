"""Run folders in, a tidy frame out; the folders are written by hand here, as the format's documentation has them."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis import AnalysisError, DamagedRunError, NoRunsError, load_runs


def write_run(folder: Path, rows: list[dict[str, Any]], **description: Any) -> Path:
    """Writes a run folder and returns it."""
    folder.mkdir(parents=True)
    config = {
        "format_version": 1,
        "env_id": "ATESD-Tiny-v0",
        "agent": "fixed:1",
        "seed": 0,
        "config": {},
        **description,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "trajectory.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def row(window: int, **columns: Any) -> dict[str, Any]:
    """A row of few columns."""
    return {"window": window, "probe/nll": 2.0 / window, "status": "running", "reason": None, **columns}


def test_one_run_folder(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "first", [row(1, **{"probe/accuracy": None}), row(2, **{"probe/accuracy": 0.5})])
    frame = load_runs(folder)
    assert list(frame.columns[:5]) == ["run", "env_id", "agent", "seed", "window"]
    assert list(frame.columns[5:]) == ["probe/nll", "status", "reason", "probe/accuracy"]
    assert frame["run"].tolist() == ["first", "first"]
    assert frame["window"].tolist() == [1, 2]
    assert frame["probe/nll"].tolist() == [2.0, 1.0]
    assert pd.isna(frame["probe/accuracy"][0])
    assert frame["probe/accuracy"][1] == 0.5
    assert frame["reason"].isna().all()
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
        "run": "string",
        "env_id": "category",
        "agent": "category",
        "seed": "Int64",
        "window": "int64",
        "probe/nll": "float64",
        "status": "string",
        "reason": "string",
        "probe/accuracy": "float64",
    }


def test_nested_runs_are_sorted_by_agent_and_number_of_the_seed(tmp_path: Path) -> None:
    for name, agent, seed in (("z/a", "beta", 10), ("a", "fixed:1", 0), ("z/b/c", "beta", 2)):
        write_run(tmp_path / name, [row(1), row(2)], agent=agent, seed=seed)
    frame = load_runs(tmp_path)
    assert frame["run"].tolist() == ["z/b/c", "z/b/c", "z/a", "z/a", "a", "a"]
    assert frame["seed"].tolist() == [2, 2, 10, 10, 0, 0]
    assert frame["window"].tolist() == [1, 2] * 3
    assert frame.index.tolist() == list(range(6))
    assert frame["agent"].cat.categories.tolist() == ["beta", "fixed:1"]
    pd.testing.assert_frame_equal(frame, load_runs(str(tmp_path)))


def test_runs_of_one_name_stay_apart(tmp_path: Path) -> None:
    for name in ("monday/run", "tuesday/run"):
        write_run(tmp_path / name, [row(1)])
    assert load_runs(tmp_path)["run"].nunique() == 2


def test_columns_that_only_some_runs_have_survive(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [row(1)], agent="a")
    groups = {"exposure/reveal_ratio_0": 0.25, "exposure/reveal_ratio_1": 0.75, "agent/entropy": -1, "non_finite": "x"}
    write_run(tmp_path / "b", [row(1, **groups)], agent="b")
    frame = load_runs(tmp_path)
    assert frame["exposure/reveal_ratio_1"].isna().tolist() == [True, False]
    assert frame.loc[1, ["exposure/reveal_ratio_0", "exposure/reveal_ratio_1"]].tolist() == [0.25, 0.75]
    assert frame["agent/entropy"].dtype == "float64"
    assert frame["non_finite"].dtype == "string"


def test_a_run_without_a_seed(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [row(1)], seed=None)
    write_run(tmp_path / "b", [row(1)], seed=5)
    seeds = load_runs(tmp_path)["seed"]
    assert seeds.isna().tolist() == [True, False]
    assert seeds[1] == 5


@pytest.mark.parametrize("tail", [b'{"window": 2, "pro', b'{"window": 2, "pro\n', b"\x00\x00", b'{"a": "\xff'])
def test_a_last_half_line_is_dropped(tmp_path: Path, tail: bytes) -> None:
    folder = write_run(tmp_path / "run", [row(1)])
    with (folder / "trajectory.jsonl").open("ab") as file:
        file.write(tail)
    assert load_runs(tmp_path)["window"].tolist() == [1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"window": ', "expected a JSON object"),
        ("[2]", "expected a JSON object"),
        ("", "expected a JSON object"),
        ('{"probe/nll": 1.0}', "expected an integer 'window', got None"),
        ('{"window": 1}', "expected a window after 1, got 1; is this file made of two runs"),
        ('{"window": 2, "seed": 3}', "expected no column 'seed'"),
        ('{"window": 2, "probe/nll": [1.0]}', "expected one value in column 'probe/nll'"),
    ],
)
def test_a_damaged_line_names_file_line_and_trouble(tmp_path: Path, line: str, message: str) -> None:
    folder = write_run(tmp_path / "run", [row(1)])
    with (folder / "trajectory.jsonl").open("a") as file:
        file.write(line + "\n" + json.dumps(row(3)) + "\n")
    with pytest.raises(DamagedRunError) as caught:
        load_runs(tmp_path)
    assert "run/trajectory.jsonl, line 2: " in str(caught.value)
    assert message in str(caught.value)


def test_a_damaged_config_names_file_and_line(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [row(1)])
    (folder / "config.json").write_text('{\n"format_version": 1,\n"agent" "beta"\n}')
    with pytest.raises(DamagedRunError, match=r"run/config\.json, line 3: expected JSON"):
        load_runs(tmp_path)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (
            {"format_version": 2},
            "expected format_version 1, got 2; read it with the version of atesd-env that wrote it",
        ),
        ({"agent": None}, r"expected the key 'agent' \(str\), got None"),
        ({"seed": "zero"}, r"expected the key 'seed' \(int\), got 'zero'"),
    ],
)
def test_a_config_of_another_kind_is_a_clear_error(tmp_path: Path, description: dict[str, Any], message: str) -> None:
    write_run(tmp_path / "run", [row(1)], **description)
    with pytest.raises(DamagedRunError, match=message):
        load_runs(tmp_path)


def test_rows_without_a_config_are_a_clear_error(tmp_path: Path) -> None:
    (write_run(tmp_path / "run", [row(1)]) / "config.json").unlink()
    with pytest.raises(DamagedRunError, match=r"config\.json: expected a file beside trajectory\.jsonl, got none"):
        load_runs(tmp_path)


@pytest.mark.parametrize("has_trajectory", [True, False])
def test_a_run_without_rows_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture, has_trajectory: bool) -> None:
    write_run(tmp_path / "good", [row(1)])
    empty = write_run(tmp_path / "empty", [])
    if not has_trajectory:
        (empty / "trajectory.jsonl").unlink()
    with caplog.at_level(logging.WARNING, logger="analysis"):
        frame = load_runs(tmp_path)
    assert frame["run"].tolist() == ["good"]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["empty"]


def test_only_runs_without_rows_is_an_error(tmp_path: Path) -> None:
    write_run(tmp_path / "empty", [])
    with pytest.raises(NoRunsError, match="expected at least one run folder with rows"):
        load_runs(tmp_path)


def test_a_folder_without_runs_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    with pytest.raises(NoRunsError, match="got none; pass the folder given to --out, or make a run first"):
        load_runs(tmp_path)


@pytest.mark.parametrize(("make_file", "got"), [(True, "a file"), (False, "nothing there")])
def test_a_path_that_is_no_folder_is_a_clear_error(tmp_path: Path, make_file: bool, got: str) -> None:
    path = tmp_path / "runs"
    if make_file:
        path.write_text("")
    with pytest.raises(NoRunsError, match=f"expected a folder of runs, got {got}") as caught:
        load_runs(path)
    assert isinstance(caught.value, AnalysisError)
    assert isinstance(caught.value, ValueError)


def test_saved_models_and_hidden_folders_are_no_runs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [row(1)])
    write_run(run / "checkpoints" / "inner", [row(1)])
    write_run(tmp_path / ".hidden", [row(1)])
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "qwen3"}')
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text("3")
    assert load_runs(tmp_path)["run"].tolist() == ["run"]


def test_what_the_environment_writes_is_what_analysis_reads(tmp_path: Path) -> None:
    trajectory = pytest.importorskip("atesd_env.trajectory")
    description = {"env_id": "ATESD-Toy-v0", "agent": "beta", "seed": 7, "config": {}}
    with trajectory.RunWriter(tmp_path / "beta-7", description) as writer:
        writer.write_row({"window": 1, "probe/nll": 0.1 + 0.2, "status": "running", "reason": None})
        writer.write_row({"window": 2, "probe/nll": float("nan"), "status": "terminated", "reason": "not finite"})
    frame = load_runs(tmp_path)
    assert frame[["run", "env_id", "agent", "seed"]].iloc[0].tolist() == ["beta-7", "ATESD-Toy-v0", "beta", 7]
    assert frame["probe/nll"][0] == 0.1 + 0.2
    assert pd.isna(frame["probe/nll"][1])
    assert frame["non_finite"].fillna("").tolist() == ["", "probe/nll"]
    assert frame["reason"].fillna("").tolist() == ["", "not finite"]


def test_analysis_imports_neither_environment_nor_agents() -> None:
    code = "import sys, analysis; print([name for name in ('atesd_env', 'agents', 'torch') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
