"""Progress of long work: lines where there is no terminal, a bar where there is one, nothing where it is to be quiet."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from atesd.experiments.progress import has_bars, live_progress


def told(capsys: pytest.CaptureFixture[str], *, quiet: bool = False, line_every_sec: float = 0.0) -> list[str]:
    with live_progress(quiet=quiet, line_every_sec=line_every_sec) as begin:
        tell = begin("[1/1] beta seed 0", 3)
        for window in (1, 2, 3):
            tell(window, f"ratio 0.{window}0")
    shown = capsys.readouterr()
    assert shown.out == "", "stdout is for results"
    return shown.err.splitlines()


def test_without_a_terminal_every_step_is_a_line_with_its_time(capsys: pytest.CaptureFixture[str]):
    lines = told(capsys)
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines] == [
        "[1/1] beta seed 0: 1/3  ratio 0.10",
        "[1/1] beta seed 0: 2/3  ratio 0.20",
        "[1/1] beta seed 0: 3/3  ratio 0.30",
    ]


def test_of_quick_steps_the_first_and_the_last_are_told(capsys: pytest.CaptureFixture[str]):
    assert [line.split(": ")[1] for line in told(capsys, line_every_sec=60.0)] == ["1/3  ratio 0.10", "3/3  ratio 0.30"]


def test_quiet_tells_nothing(capsys: pytest.CaptureFixture[str]):
    assert told(capsys, quiet=True) == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_has_a_bar_and_no_lines(monkeypatch: pytest.MonkeyPatch, quiet: bool):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with live_progress(quiet=quiet) as begin:
        begin("windows", 2)(2, "probe NLL 1.5")
    shown = terminal.getvalue()
    if quiet:
        assert shown == ""
    else:
        assert "probe NLL 1.5" in shown
        assert not re.search(r"\d\d:\d\d:\d\d windows", shown)


@pytest.mark.parametrize("has_widgets", [False, True])
def test_a_notebook_has_a_bar_where_it_can_draw_one(monkeypatch: pytest.MonkeyPatch, has_widgets: bool):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if has_widgets else None)
    assert has_bars(Console(force_jupyter=True)) == has_widgets
    assert not has_bars(Console(file=io.StringIO(), force_jupyter=False, force_terminal=False))
