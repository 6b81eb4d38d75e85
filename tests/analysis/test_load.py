"""Run folders in, a tidy frame out; the folders are written by hand here, as the format's documentation has them."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis import AnalysisError, DamagedRunError, NoRunsError, learning_curves, list_runs, load_runs
from analysis.run_files import read_run


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
    assert list(frame.columns[5:9]) == ["run_status", "version", "configuration", "configuration_differs"]
    assert list(frame.columns[9:]) == ["probe/nll", "status", "reason", "probe/accuracy"]
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
        "run_status": "category",
        "version": "category",
        "configuration": "category",
        "configuration_differs": "category",
        "probe/nll": "float64",
        "status": "string",
        "reason": "string",
        "probe/accuracy": "float64",
    }


def test_whole_numbers_load_as_whole_numbers(tmp_path: Path) -> None:
    """Those of the documented whole columns and of the configuration; others are float64, whatever a run happened to log."""
    whole = {"update": 3, "update/num_tokens": None, "agent/arm": 2, "probe/grounded": 1, "mine/nothing": None}
    write_run(tmp_path / "a", [row(1, **whole)], config={"windows": 5, "gamma": 1.0, "data_on_disk": True})
    write_run(tmp_path / "b", [row(1, update=6)], seed=1, config={"windows": 5, "gamma": 0.5, "data_on_disk": False})
    frame = load_runs(tmp_path, config=["windows", "gamma", "data_on_disk"])
    assert frame["update"].tolist() == [3, 6]
    kinds = {name: str(frame[name].dtype) for name in (*whole, "config/windows", "config/gamma", "config/data_on_disk")}
    assert kinds == {
        "update": "Int64",
        "update/num_tokens": "Int64",
        "agent/arm": "float64",
        "probe/grounded": "float64",
        "mine/nothing": "float64",
        "config/windows": "Int64",
        "config/gamma": "float64",
        "config/data_on_disk": "float64",
    }
    assert frame["agent/arm"].isna().tolist() == [False, True]


def test_runs_of_unlike_configurations_are_told_apart_and_the_fields_named(tmp_path: Path) -> None:
    """As in the case of two budgets and two kinds of student: three configurations, two fields."""
    constant = {"windows": 10, "toy_kind": "constant", "lora_r": 8}
    for name, config in (
        ("a/0", constant),
        ("a/1", constant),
        ("b", constant | {"windows": 5}),
        ("d", constant | {"toy_kind": "drift"}),
    ):
        write_run(tmp_path / name, [row(1)], config=config)
    write_run(tmp_path / "other", [row(1)], env_id="ATESD-Toy-v0", config={"windows": 7})
    frame = load_runs(tmp_path).set_index("run")
    assert frame["configuration_differs"].to_dict() == {
        "a/0": "toy_kind=constant, windows=10",
        "a/1": "toy_kind=constant, windows=10",
        "b": "toy_kind=constant, windows=5",
        "d": "toy_kind=drift, windows=10",
        "other": "",
    }
    names = frame["configuration"]
    assert names["a/0"] == names["a/1"]
    assert names.nunique() == 4
    assert (load_runs(tmp_path / "b")["configuration"] == names["b"]).all(), "whatever it is loaded with"
    with pytest.raises(AnalysisError, match=r"one configuration, got 3: .*toy_kind=drift, windows=10 \("):
        learning_curves(frame.reset_index())


def test_what_an_agent_is_shown_and_how_it_acts_makes_no_other_configuration(tmp_path: Path) -> None:
    """A rule that gives each problem a ratio is compared with one that gives a group one."""
    write_run(tmp_path / "a", [row(1)], seed=0, config={"windows": 9, "action_ratios": "problem"})
    write_run(tmp_path / "b", [row(1)], seed=1, config={"windows": 9, "action_ratios": "group", "context": True})
    write_run(tmp_path / "c", [row(1)], seed=2, config={"windows": 9})
    frame = load_runs(tmp_path)
    assert frame["configuration"].nunique() == 1
    assert set(frame["configuration_differs"]) == {""}


def test_several_folders_are_loaded_and_named_from_the_one_that_holds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("x/a/one", "x/b/one", "x/c/one"):
        write_run(tmp_path / name, [row(1)])
    folders = [tmp_path / "x" / "b", str(tmp_path / "x" / "a"), tmp_path / "x" / "b"]
    assert sorted(load_runs(folders)["run"]) == ["a/one", "b/one"], "twice the same folder is once"
    assert sorted(list_runs([str(tmp_path / "x" / "[bc]"), tmp_path / "x" / "a"])["run"]) == ["a/one", "b/one", "c/one"]
    assert load_runs([tmp_path / "x" / "a" / "one"])["run"].tolist() == ["one"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_runs("~/x/a")["run"].tolist() == ["one"]
    assert sorted(load_runs("~/x/[ab]")["run"]) == ["a/one", "b/one"]
    with pytest.raises(NoRunsError, match="got an empty list"):
        load_runs([])


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
        ('{"window": 2, "pro\udcee/nll": 1.0}', "expected a JSON object"),
        ('{"window": 2, "text": "\udcee"}', "expected a JSON object"),
    ],
)
def test_a_damaged_line_names_file_line_and_trouble(tmp_path: Path, line: str, message: str) -> None:
    folder = write_run(tmp_path / "run", [row(1)])
    with (folder / "trajectory.jsonl").open("a", errors="surrogateescape") as file:
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


def test_the_status_says_how_a_run_ended(tmp_path: Path) -> None:
    for name, last in (("cut", "truncated"), ("broken", "terminated"), ("going", "running")):
        write_run(tmp_path / name, [row(1), row(2, status=last)])
    frame = load_runs(tmp_path)
    statuses = frame.groupby("run")["run_status"].agg(list).to_dict()
    assert statuses == {"broken": ["finished"] * 2, "cut": ["finished"] * 2, "going": ["unfinished"] * 2}


def test_a_damaged_run_is_kept_up_to_the_damage_if_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_run(tmp_path / "bad", [row(1), row(2)])
    write_run(tmp_path / "good", [row(1, status="truncated")])
    with (folder / "trajectory.jsonl").open("a") as file:
        file.write("oops\n" + json.dumps(row(4)) + "\n")
    with caplog.at_level(logging.WARNING, logger="analysis"):
        frame = load_runs(tmp_path, damaged="keep")
    assert frame["run"].tolist() == ["bad", "bad", "good"]
    assert frame["run_status"].tolist() == ["damaged", "damaged", "finished"]
    assert "line 3: expected a JSON object" in caplog.text
    with pytest.raises(DamagedRunError, match="line 3"):
        load_runs(tmp_path)
    with pytest.raises(AnalysisError, match="expected 'refuse' or 'keep', got 'drop'"):
        load_runs(tmp_path, damaged="drop")  # type: ignore[arg-type]


def test_every_folder_is_listed_whatever_it_is_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    versions = {"versions": {"atesd-env": "0.1.0"}, "config": {"windows": 2}}
    write_run(tmp_path / "done", [row(1), row(2, status="truncated")], **versions)
    write_run(tmp_path / "going", [row(1)], **versions)
    write_run(tmp_path / "empty", [])
    write_run(tmp_path / "newer", [row(1)], format_version=2)
    (write_run(tmp_path / "bad", [row(1)]) / "trajectory.jsonl").write_text(json.dumps(row(1)) + "\n\n" + "{}\n")
    listing = list_runs(tmp_path).set_index("run")
    assert listing["run_status"].astype(str).to_dict() == {
        "done": "finished",
        "going": "unfinished",
        "empty": "empty",
        "newer": "unreadable",
        "bad": "damaged",
    }
    assert listing["num_windows"].to_dict() == {"done": 2, "going": 1, "empty": 0, "newer": 0, "bad": 1}
    assert listing.loc["going", "planned_windows"] == 2
    assert listing.loc["done", "version"] == "0.1.0"
    assert "expected format_version 1, got 2" in listing.loc["newer", "problem"]
    assert "line 2" in listing.loc["bad", "problem"]
    assert listing["problem"].isna().sum() == 3
    with caplog.at_level(logging.WARNING, logger="analysis"):
        assert set(load_runs(tmp_path, damaged="keep")["run"]) == {"done", "going", "bad"}
    assert sorted(record.getMessage().split(":")[0] for record in caplog.records) == ["bad", "empty", "newer"]


def test_a_folder_without_run_folders_cannot_be_listed(tmp_path: Path) -> None:
    with pytest.raises(NoRunsError, match="expected at least one run folder"):
        list_runs(tmp_path)


def test_runs_of_two_versions_are_kept_told_apart_and_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for version in ("0.1.0", "0.2.0"):
        write_run(tmp_path / version, [row(1)], versions={"atesd-env": version})
    write_run(tmp_path / "unknown", [row(1)])
    with caplog.at_level(logging.WARNING, logger="analysis"):
        frame = load_runs(tmp_path)
    versions = frame.set_index("run")["version"].astype("string").fillna("")
    assert versions.to_dict() == {"0.1.0": "0.1.0", "0.2.0": "0.2.0", "unknown": ""}
    assert "runs of 2 versions of atesd-env (0.1.0, 0.2.0)" in caplog.text


def test_a_pattern_names_runs_from_where_it_begins(tmp_path: Path) -> None:
    for name in ("monday/beta-0", "monday/random-0", "tuesday/beta-0"):
        write_run(tmp_path / name, [row(1)])
    assert load_runs(f"{tmp_path}/*/beta-*")["run"].tolist() == ["monday/beta-0", "tuesday/beta-0"]
    assert load_runs(f"{tmp_path}/**/beta-0")["run"].tolist() == ["monday/beta-0", "tuesday/beta-0"]
    assert load_runs(f"{tmp_path}/mon*")["run"].tolist() == ["monday/beta-0", "monday/random-0"]
    with pytest.raises(NoRunsError, match="got no folder that matches"):
        load_runs(f"{tmp_path}/wed*")


def test_a_folder_whose_name_looks_like_a_pattern_is_a_folder(tmp_path: Path) -> None:
    write_run(tmp_path / "runs[1]" / "a", [row(1)])
    assert load_runs(tmp_path / "runs[1]")["run"].tolist() == ["a"]


def test_fields_of_the_configuration_are_joined_on_demand(tmp_path: Path) -> None:
    settings = {"learning_rate": 0.002, "windows": 2, "is_on": True, "divergence": "jsd", "targets": ["q", "k"]}
    write_run(tmp_path / "a", [row(1), row(2)], config={**settings, "token_clip": None})
    write_run(tmp_path / "b", [row(1)], config={"learning_rate": 0.004})
    names = ["learning_rate", "is_on", "divergence", "targets", "token_clip"]
    frame = load_runs(tmp_path, config=names)
    assert list(frame.columns[-5:]) == [f"config/{name}" for name in names]
    assert frame["config/learning_rate"].tolist() == [0.002, 0.002, 0.004]
    assert frame["config/is_on"].isna().tolist() == [False, False, True]
    assert frame["config/is_on"][0] == 1.0
    assert frame["config/divergence"].fillna("").tolist() == ["jsd", "jsd", ""]
    assert frame["config/targets"][0] == '["q", "k"]'
    assert frame["config/token_clip"].isna().all()
    assert not any(name.startswith("config/") for name in load_runs(tmp_path))
    with pytest.raises(AnalysisError, match=r"got 'learning_rat'; did you mean learning_rate\?"):
        load_runs(tmp_path, config=["learning_rat"])


ODD_ROWS: dict[str, list[dict[str, Any]]] = {
    "a text that looks like a date": [row(1, reason="2026-01-01"), row(2)],
    "texts and numbers": [row(1, **{"agent/mode": "a"}), row(2, **{"agent/mode": 1})],
    "truth values": [row(1, **{"agent/is_on": True}), row(2, **{"agent/is_on": None})],
    "whole numbers, then not": [row(1, **{"agent/x": 1}), row(2, **{"agent/x": 0.5})],
    "a column that comes late": [row(1), row(2, **{"agent/late": 3})],
    "a number beyond 64 bits": [row(1, **{"agent/x": 10**30})],
    "a text with a line break": [row(1, reason="a\nb\u2028c")],
}


@pytest.mark.parametrize("rows", ODD_ROWS.values(), ids=ODD_ROWS)
def test_reading_at_once_gives_what_reading_by_line_gives(
    tmp_path: Path, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "odd", rows)
    write_run(tmp_path / "plain", [row(1)])
    frame = load_runs(tmp_path)
    monkeypatch.setattr("analysis.run_files._parsed_at_once", lambda content: None)
    pd.testing.assert_frame_equal(frame, load_runs(tmp_path), check_exact=True)
    assert len(frame) == len(rows) + 1


def test_sound_files_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(tmp_path / "run", [row(1), row(2)])
    monkeypatch.setattr("analysis.run_files._parsed_by_line", lambda *_: pytest.fail("read by line"))
    assert read_run(folder, "run").num_rows == 2


def test_what_the_environment_writes_is_what_analysis_reads(tmp_path: Path) -> None:
    trajectory = pytest.importorskip("atesd_env.files.run_folder")
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


def test_analysis_imports_neither_environment_nor_agents_and_no_plots_before_they_are_asked_for() -> None:
    loaded = "print([name for name in {} if name in sys.modules])"
    light, alone = loaded.format(("matplotlib", "scipy", "pandas")), loaded.format(("atesd_env", "agents", "torch"))
    code = f"import sys, analysis.samples; {light}; from analysis import *; assert 'scipy' in sys.modules; {alone}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["[]", "[]"]
