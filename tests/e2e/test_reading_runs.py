"""The verbs that read runs, as a user types them."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis import load_runs
from atesd.commands.cli import main
from tests.programs import refusal


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    arguments = "run --env ATESD-Toy-v0 --agent beta fixed:1 --seeds 0 1 --windows 3 --quiet --out"
    main([*arguments.split(), str(tmp_path / "runs")])
    return tmp_path / "runs"


def test_report_watch_and_export_say_where_the_result_is(runs: Path, capsys: pytest.CaptureFixture[str]):
    capsys.readouterr()
    main(["report", str(runs), "--samples", "1"])
    assert capsys.readouterr().out == f"report: {runs / 'report.html'}\n"
    assert "<h2" in (runs / "report.html").read_text()
    main(["watch", str(runs), "--once"])
    assert "4 finished" in capsys.readouterr().out
    main(["export", str(runs), "--to", "csv"])
    assert capsys.readouterr().out == f"table: {runs / 'runs.csv'} (12 rows)\n"
    assert len(load_runs(runs)) == 12, "what was written into the folder is not taken for runs"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["report", "nowhere"], 1, "expected a folder of runs"),
        (["watch", "nowhere"], 1, "expected a folder"),
        (["watch", ".", "--every", "0"], 2, "--every: expected seconds above 0"),
        (["export", "nowhere", "--to", "csv"], 1, "expected a folder of runs"),
        (["export", ".", "--to", "csv", "--name", "a-v0"], 2, "--name: expected with --to minari only"),
        (["report", ".", "--samples", "-1"], 2, "--samples: expected a number from 0"),
    ],
)
def test_wrong_arguments_end_with_a_message_and_a_status(
    arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
):
    assert message in refusal(capsys, *arguments, status=status)
