"""Run folders of strangers: nothing hangs, nothing fills the memory, and what is wrong is named by file and line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from analysis import AnalysisError, NoRunsError, list_runs, load_runs
from analysis.report.page import render_report
from atesd.commands.watch import run_statuses
from atesd.experiments.logged_runs import common_environment
from atesd.experiments.surrogate.data import read_windows
from atesd_env.errors import AtesdError

ROWS = [
    {
        "window": window,
        "exposure/reveal_ratio": 0.5,
        "probe/nll": 3.0 - window / 10,
        "status": "running",
        "reason": None,
    }
    for window in (1, 2, 3)
]
DEEP = "[" * 100_000 + "]" * 100_000


def run_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    description = {
        "format_version": 1,
        "run": folder.name,
        "env_id": "ATESD-Toy-v0",
        "agent": "beta",
        "seed": 0,
        "config": {"windows": 3, "student": "toy"},
        "versions": {"atesd-env": "0.1.0"},
    }
    (folder / "config.json").write_text(json.dumps(description))
    (folder / "trajectory.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    sample = {"window": 1, "student_prompt": "a", "teacher_prompt": "b", "rollout": "c"}
    (folder / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    return folder


def special(name: str, make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return damage


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(50 * 2**30)


def text(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


def config(**changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def line(**changes: Any) -> Callable[[Path], None]:
    """Changes the second row."""

    def damage(folder: Path) -> None:
        rows = [ROWS[0], ROWS[1] | changes, ROWS[2]]
        (folder / "trajectory.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    return damage


SPECIAL: dict[str, Callable[[Path], Any]] = {
    "pipe": os.mkfifo,
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.mkdir(),
    "fifty GiB of zeros": sparse,
}
REFUSED: dict[str, Callable[[Path], None]] = {
    **{
        f"{kind} as {name}": special(name, make)
        for kind, make in SPECIAL.items()
        for name in ("config.json", "trajectory.jsonl")
        if (kind, name) != ("folder", "config.json")
    },
    "a deep config": text("config.json", '{"format_version": ' + DEEP + "}"),
    "a deep line": text("trajectory.jsonl", f'{{"window": 1}}\n{{"a": {DEEP}}}\n{{"window": 3}}\n'),
    "a config of the last century": config(format_version=0),
    "an agent that is a list": config(agent=["a"]),
    "a seed of 400 digits": text("config.json", '{"format_version": 1, "seed": 1' + "0" * 400 + "}"),
    "a seed of 2^63": config(seed=2**63),
    "a seed in words": config(seed="one"),
    "a window of 300 digits": line(window=10**300),
    "a window in words": line(window="two"),
    "a lost line": text("trajectory.jsonl", json.dumps(ROWS[0]) + "\n" + json.dumps(ROWS[2]) + "\n"),
    "a link to nothing": special("trajectory.jsonl", lambda path: path.symlink_to("nothing")),
    "an NLL in words": line(**{"probe/nll": "low"}),
    "an NLL of many": line(**{"probe/nll": [1, 2]}),
    "an NLL of 400 digits": text(
        "trajectory.jsonl",
        '{"window": 1, "probe/nll": 1}\n{"window": 2, "probe/nll": 1' + "0" * 400 + '}\n{"window": 3}\n',
    ),
    "NaN": text("trajectory.jsonl", '{"window": 1, "probe/nll": NaN}\n{"window": 2}\n'),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_hostile_run_is_refused_by_name_and_listed(kind: str, tmp_path: Path):
    REFUSED[kind](run_folder(tmp_path / "runs" / "odd"))
    run_folder(tmp_path / "runs" / "sound")
    with pytest.raises(AnalysisError, match=r"odd/(config\.json|trajectory\.jsonl)[:,]"):
        load_runs(tmp_path / "runs")
    listed = list_runs(tmp_path / "runs").set_index("run")
    assert listed.loc["odd", "run_status"] in ("damaged", "unreadable")
    assert "odd/" in listed.loc["odd", "problem"]
    kept = load_runs(tmp_path / "runs", damaged="keep")
    assert (kept["run"] == "sound").sum() == 3
    assert run_statuses(tmp_path / "runs"), "watching goes on"
    for read in (lambda folder: common_environment([folder]), lambda folder: read_windows([folder] * 8)):
        with suppress(AtesdError):  # nothing else may come out
            read(tmp_path / "runs" / "odd")


@pytest.mark.parametrize("kind", SPECIAL)
def test_hostile_samples_are_refused_by_name(kind: str, tmp_path: Path):
    folder = run_folder(tmp_path / "runs" / "odd")
    special("samples.jsonl", SPECIAL[kind])(folder)
    with pytest.raises(AnalysisError, match=r"odd/samples\.jsonl: expected"):
        render_report(tmp_path / "runs")
    assert len(load_runs(tmp_path / "runs")) == 3, "what does not need them is read"


@pytest.mark.parametrize("content", [DEEP, "1" * 5000, "NaN", "{", '{"student_prompt": 1}'])
def test_odd_samples_are_left_out_and_counted(content: str, tmp_path: Path):
    folder = run_folder(tmp_path / "runs" / "odd")
    with (folder / "samples.jsonl").open("a") as file:
        file.write(content + "\n")
    assert "1 of the chosen lines of samples.jsonl could not be read" in render_report(tmp_path / "runs")


ACCEPTED: dict[str, Callable[[Path], None]] = {
    "a configuration that is a list": config(config=[1]),
    "a configuration of 300 digits": config(config={"windows": 10**300, "learning_rate": 10**300}),
    "versions in words": config(versions="new"),
    "no configuration": config(config=None),
    "letters that are none": config(agent="\ud800", env_id="\udfff"),
    "a number of 300 digits": line(other=10**300),
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_what_is_odd_and_harmless_is_read(kind: str, tmp_path: Path):
    ACCEPTED[kind](run_folder(tmp_path / "runs" / "odd"))
    assert len(load_runs(tmp_path / "runs")) == 3
    assert len(list_runs(tmp_path / "runs")) == 1
    assert render_report(tmp_path / "runs")
    if kind == "a configuration of 300 digits":
        assert load_runs(tmp_path / "runs", config=["windows"])["config/windows"].dtype == "float64"


def test_a_folder_whose_name_is_no_text_is_refused(tmp_path: Path):
    run_folder(tmp_path / "runs" / os.fsdecode(b"odd\xff"))
    with pytest.raises(AnalysisError, match="expected a folder whose name is valid UTF-8"):
        load_runs(tmp_path / "runs")


@pytest.mark.parametrize("read", [load_runs, list_runs])
def test_a_path_that_is_too_long_is_no_folder(read: Callable[[str], Any]):
    with pytest.raises(NoRunsError, match=r"x: expected a folder of runs, got nothing there"):
        read("x" * 300)


def test_what_would_crash_the_parser_is_never_given_to_it(tmp_path: Path):
    """Rapidjson, inside of pyarrow, calls itself for each level, and ends the process where the stack does."""
    folder = run_folder(tmp_path / "runs" / "odd")
    (folder / "trajectory.jsonl").write_text('{"window": 1, "a": ' + "[" * 1_000_000)
    with pytest.raises(AnalysisError, match="expected at least one run folder with rows"):
        load_runs(tmp_path / "runs")
