"""The leaderboard is made from the submissions' own files, and every submission comes out of a replay as it is recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from atesd.commands.cli import main
from atesd.experiments.bench.validation import check_submission, missing_runs
from docs.generator.leaderboard import leaderboard_table, submissions
from tests.atesd_env.bench.sets import toy_set
from tests.programs import without_processes


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two submissions on closed forms."""
    base = tmp_path_factory.mktemp("submissions")
    toy_set().save(base / "mine.json")
    for name, agents in (("first", ("fixed:0.1", "random")), ("second", ("fixed:0.9",))):
        where = ["--instances", str(base / "mine.json"), "--split", "train", "--out", str(base / name)]
        with without_processes():
            main(["bench", "run", "--agent", *agents, *where, "--seeds", "3", "--quiet"])
        main(["bench", "score", str(base / name)])
    return base


def check(folder: Path) -> None:
    """What a submission must hold."""
    assert missing_runs(folder) == []
    assert {run.verdict for run in check_submission(folder, 1, is_quick=True)} <= {"same bits", "same within tolerance"}


def test_every_submission_is_what_it_says(root: Path) -> None:
    """Those that are there, and two made here, so that the check is seen to check."""
    for folder in [*submissions(), *submissions(root)]:
        check(folder)
    rows = root / "second" / "low" / "fixed-0.9-seed3" / "trajectory.jsonl"
    honest = rows.read_text()
    rows.write_text(honest.replace('"window": 1,', '"window": 9,', 1))
    try:
        with pytest.raises(AssertionError):
            check(root / "second")
    finally:
        rows.write_text(honest)


def test_the_table_has_every_agent_of_every_submission_the_best_first(root: Path) -> None:
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in leaderboard_table(root).splitlines()]
    header, _, *rows = lines
    assert header[:4] == ["agent", "submission", "set", "runs"]
    assert {(row[0], row[1], row[2], row[3]) for row in rows} == {
        ("`fixed:0.1`", "first", "mine 1, train", "3"),
        ("`random`", "first", "mine 1, train", "3"),
        ("`fixed:0.9`", "second", "mine 1, train", "3"),
    }
    assert {row[header.index("accuracy")].split()[1] for row in rows} == {"[-]"}, "one seed has no interval"
    accuracies = [float(row[header.index("accuracy")].split()[0]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)


def test_without_submissions_the_page_says_so(tmp_path: Path) -> None:
    assert leaderboard_table(tmp_path) == "No submission yet."
