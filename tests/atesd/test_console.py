"""What reaches the terminal: texts as texts, whatever characters they hold, and no other way there."""

from __future__ import annotations

import ast
import io
import logging
import sys
from pathlib import Path

import pytest

from atesd.commands.shared import show, table_of
from atesd.console import console, log_harmlessly, say
from atesd.experiments.progress import live_progress
from atesd_env.files.run_folder import RunWriter
from tests.programs import typed

ROOT = Path(__file__).parents[2]
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m[bold]x[/red]\u202e\ud800"


def is_harmless(text: str) -> bool:
    return not any(sign in text for sign in ("\x1b]0", "\x1b[2J", "\x07", "\x9b", "\u202e", "\ud800"))


def test_a_printed_text_is_made_harmless(capsys: pytest.CaptureFixture[str]):
    say(EVIL)
    say(f"two\nlines {EVIL}", error=True)
    out, err = capsys.readouterr()
    assert is_harmless(out + err)
    assert "[bold]x[/red]" in out
    assert "two\nlines" in err


def test_a_stream_that_lacks_letters_gets_others(monkeypatch: pytest.MonkeyPatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    say("\x1b ä ✓")
    stream.flush()
    assert stream.buffer.getvalue() == b"? ? ?\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_table_is_made_harmless_and_is_no_markup(is_terminal: bool):
    file = io.StringIO()
    table = table_of(EVIL, (EVIL, "b"))
    table.add_row(EVIL, "[/]")
    console(file=file, force_terminal=is_terminal, width=200).print(table)
    assert is_harmless(file.getvalue())
    assert file.getvalue().count("[bold]x[/red]") == 3
    assert "[/]" in file.getvalue()


def test_show_uses_that_console(capsys: pytest.CaptureFixture[str]):
    table = table_of(None, ("a",))
    table.add_row("[/x] \x1b]0;y\x07")
    show(table)
    assert "[/x]" in capsys.readouterr().out


def test_progress_of_an_agent_with_brackets(capsys: pytest.CaptureFixture[str]):
    with live_progress(quiet=False) as begin:
        begin(f"[1/2] {EVIL}", 1)(1, EVIL)
    err = capsys.readouterr().err
    assert is_harmless(err)
    assert err.count("[bold]x[/red]") == 2


def test_bars_of_an_agent_with_brackets(monkeypatch: pytest.MonkeyPatch):
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with live_progress(quiet=False) as begin:
        begin(f"[1/2] {EVIL}", 1)(1, EVIL)
    assert is_harmless(stream.getvalue())
    assert "[bold]x[/red]" in stream.getvalue()


def test_warnings_of_the_log_are_made_harmless(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logging, "lastResort", logging._StderrHandler(logging.WARNING))
    log_harmlessly()
    record = logging.LogRecord("x", logging.WARNING, "x", 1, "of %s", (EVIL,), None)
    assert logging.lastResort is not None
    assert is_harmless(logging.lastResort.format(record))


def test_there_is_no_other_way():
    """No ``print`` and no console of rich's own in the program."""
    found = []
    for path in (ROOT / "atesd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("print", "Console", "HarmlessConsole"):
                found.append(str(path.relative_to(ROOT)))
    assert found == ["atesd/console.py"], "the print of `say`"


def test_folders_agents_and_data_of_strangers_reach_no_terminal(tmp_path: Path):
    evil = "\x1b]0;owned\x07[/red]"
    rows = [{"window": 1, "exposure/reveal_ratio": 0.5, "probe/nll": 1.0, "status": "truncated", "reason": None}]
    description = {"env_id": f"E{evil}", "agent": f"a{evil}", "seed": 0, "config": {"windows": 1, "x": evil}}
    with RunWriter(tmp_path / f"run{evil}".replace("/", "-"), description) as writer:
        for row in rows:
            writer.write_row(row)
    (tmp_path / "data.jsonl").write_text(
        '{"problem": "1+1 \\u001b]0;owned\\u0007[/red]?", "solution": "It is 2 \\u001b[2J", "answer": "2", "id": "\\u001b[2J"}\n'
    )
    (tmp_path / f"broken{evil}".replace("/", "-")).mkdir()
    (tmp_path / f"broken{evil}".replace("/", "-") / "trajectory.jsonl").write_text("{\n{\n")
    for arguments in (
        ["data", tmp_path / "data.jsonl"],
        ["watch", "--once", tmp_path],
        ["export", tmp_path, "--to", "csv"],
        ["report", tmp_path],
        ["report", tmp_path / f"run{evil}".replace("/", "-")],
        ["run", "--env", "ATESD-Toy-v0", "--agent", f"be{evil}ta", "--out", tmp_path / "out"],
    ):
        result = typed(*arguments)
        assert is_harmless(result.stdout + result.stderr), arguments
        assert "Traceback" not in result.stderr, arguments


def test_an_agents_path_with_brackets_comes_to_the_end(tmp_path: Path):
    import agents
    from atesd_env.simulated.toy import ToyExposureEnv

    folder = tmp_path / "[red]agents[/bold]"
    folder.mkdir(parents=True)
    agents.make("beta", ToyExposureEnv(windows=2), seed=0).save(folder / "agent.safetensors")
    path = "[red]agents[/bold]/agent.safetensors"
    arguments = ("--env", "ATESD-Toy-v0", "--windows", 2, "--agent", path, "--out", "runs")
    result = typed("run", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert path in result.stdout
