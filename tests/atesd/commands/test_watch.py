"""How runs stand, from their files alone."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from atesd.commands.watch import RunStatus, run_statuses, status_table, watch
from atesd.experiments.run import execute
from atesd.experiments.specs import plan_runs
from atesd_env.config import preset


def write_run(folder: Path, rows: list[dict[str, Any]], agent: str = "beta", rest: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"agent": agent, "seed": 3, "config": {"windows": 10}}))
    (folder / "trajectory.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + rest)
    return folder


def row(window: int, status: str = "running", **columns: Any) -> dict[str, Any]:
    common = {"window": window, "exposure/reveal_ratio": 0.25, "probe/nll": 3.0 - 0.1 * window, "probe/accuracy": None}
    return {**common, "time/window_sec": 4.0, "time/probe_sec": 1.0, "status": status, **columns}


def text_of(statuses: list[RunStatus], most: int | None = None) -> str:
    out = io.StringIO()
    Console(file=out, width=140).print(status_table(statuses, most))
    return out.getvalue()


def test_runs_are_found_at_any_depth_and_unfinished_ones_come_first(tmp_path: Path):
    write_run(tmp_path / "a" / "done", [row(1), row(2, "truncated")])
    write_run(tmp_path / "b", [row(1), row(2, "terminated")])
    write_run(tmp_path / "c", [row(1)])
    write_run(tmp_path / "c" / "inside", [row(1)])
    write_run(tmp_path / ".hidden", [row(1)])
    write_run(tmp_path / "d", [])
    states = [(status.name, status.state) for status in run_statuses(tmp_path)]
    assert states == [("c", "running"), ("d", "no row yet"), ("b", "broke"), ("a/done", "finished")]


def test_the_newest_numbers_are_shown_and_an_unfinished_line_is_left_out(tmp_path: Path):
    write_run(tmp_path / "a", [row(1, **{"probe/accuracy": 0.5}), row(2)], rest='{"window": 3, "stat')
    (status,) = run_statuses(tmp_path)
    assert (status.window, status.windows, status.seed, status.agent) == (2, 10, "3", "beta")
    assert status.probe_nll == pytest.approx(2.8)
    assert status.accuracy == 0.5, "measured a window earlier"
    assert status.window_sec == 4.0
    text = text_of([status])
    assert "2/10" in text
    assert "50.0%" in text
    assert "~32 s" in text


@pytest.mark.parametrize(
    ("age_sec", "window_sec", "state"),
    [
        (50, 1.0, "running"),
        (3700, 1.0, "silent"),
        (3700, 600.0, "running"),
        (7000, 600.0, "silent"),
        (3700, None, "silent"),
    ],
)
def test_a_run_without_a_new_row_for_long_is_silent(tmp_path: Path, age_sec: float, window_sec: Any, state: str):
    """Ten windows and at least a minute, with seconds to spare for the machine that runs this."""
    timed = {"time/window_sec": window_sec, "time/probe_sec": None}
    folder = write_run(tmp_path / "a", [row(1, **timed)])
    changed = time.time() - age_sec
    os.utime(folder / "trajectory.jsonl", (changed, changed))
    (status,) = run_statuses(tmp_path)
    assert status.state == state
    assert status.age_sec is not None
    assert status.age_sec >= age_sec
    text = text_of([status])
    assert f"1 {state}" in text
    assert ("~" in text) == (state == "running" and window_sec is not None), "nobody knows what is left of a silent run"


def test_a_finished_run_is_never_silent(tmp_path: Path):
    folder = write_run(tmp_path / "a", [row(1, "truncated")])
    os.utime(folder / "trajectory.jsonl", (0, 0))
    assert run_statuses(tmp_path)[0].state == "finished"


def test_only_the_end_of_a_long_trajectory_is_read(tmp_path: Path):
    rows = [row(window, filler="x" * 1000) for window in range(1, 301)]
    folder = write_run(tmp_path / "a", rows)
    with (folder / "trajectory.jsonl").open("r+b") as file:
        file.write(b"#" * 1000)  # what lies before the end may be anything
    (status,) = run_statuses(tmp_path)
    assert (status.state, status.window) == ("running", 300)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", "{"),
        ("trajectory.jsonl", "{\n"),
        ("trajectory.jsonl", "[1]\n"),
        ("trajectory.jsonl", '{"window": 1}\n{"window": 3}\n'),
        ("trajectory.jsonl", '{"window": 2}\n'),
    ],
)
def test_a_damaged_run_never_ends_the_watching(tmp_path: Path, name: str, text: str):
    write_run(tmp_path / "good", [row(1)])
    folder = write_run(tmp_path / "bad", [row(1)])
    (folder / name).write_text(text)
    assert f"bad: {name}: expected" in text_of(run_statuses(tmp_path))
    assert {status.name: status.state for status in run_statuses(tmp_path)} == {"good": "running", "bad": "unreadable"}


def test_a_run_without_its_rows_is_seen(tmp_path: Path):
    (spec,) = plan_runs("ATESD-Toy-v0", preset("ATESD-Toy-v0", windows=1), ["random"], [0], tmp_path)
    execute(spec)
    (spec.folder / "trajectory.jsonl").unlink()
    (status,) = run_statuses(tmp_path)
    assert (status.name, status.state) == ("random-seed0", "unreadable")


def test_names_are_neither_markup_nor_escape_sequences(tmp_path: Path):
    write_run(tmp_path / "a", [row(1)], agent="[red]x[/nonsense]\x1b[2J")
    text = text_of(run_statuses(tmp_path))
    assert "[red]x[/nonsense]" in text
    assert "\x1b[2J" not in text


def test_the_table_says_what_it_leaves_out():
    statuses = [RunStatus(f"run{number}", "running") for number in range(5)]
    text = text_of(statuses, most=2)
    assert "run1" in text
    assert "run2" not in text
    assert "5 running (3 more not shown)" in text
    assert "no runs yet" in text_of([])


def test_a_terminal_of_eighty_columns_shows_whole_numbers(tmp_path: Path):
    write_run(tmp_path / ("long-name-" * 6), [row(1, **{"probe/accuracy": 0.125})])
    write_run(tmp_path / "fixed-0.5-seed1", [row(1, "truncated")])
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    watch(tmp_path, once=True, console=console)
    assert all(len(line) <= 80 for line in out.getvalue().splitlines())
    long, short = out.getvalue().splitlines()[3:5]
    assert long.split()[1:] == ["running", "1/10", "0.25", "2.900", "12.5%", "~36", "s"]
    assert short.split() == ["fixed-0.5-seed1", "finished", "1/10", "0.25", "2.900", "-", "-"]


def test_once_prints_one_table_and_live_ends_on_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_run(tmp_path / "a", [row(1)])
    out = io.StringIO()
    watch(tmp_path, once=True, console=Console(file=out))
    assert out.getvalue().count("1 running") == 1

    looks = []

    def interrupt(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("atesd.commands.watch.time.sleep", interrupt)
    out = io.StringIO()
    watch(tmp_path, every_sec=0.5, console=Console(file=out, force_terminal=True, width=120, height=30))
    assert looks == [0.5] * 3
    assert "1 running" in out.getvalue()


def test_a_folder_in_place_of_the_rows_is_no_run_that_is_gone(tmp_path: Path):
    (tmp_path / "beta-seed0" / "trajectory.jsonl").mkdir(parents=True)
    (status,) = run_statuses(tmp_path)
    assert status.state == "unreadable"
