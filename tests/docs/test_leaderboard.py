"""The leaderboard is made from the submissions' own files, and every submission comes out of a replay as it is recorded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from atesd.commands.cli import main
from atesd.experiments.bench.packed import pack, unpacked
from atesd.experiments.bench.validation import check_submission, missing_runs
from atesd_env.files.run_folder import read_rows
from docs.generator.leaderboard import leaderboard_table, submissions
from tests.atesd_env.bench.sets import toy_set
from tests.programs import without_processes

SOUND = {"same bits", "same within tolerance"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two submissions on closed forms, one of them packed."""
    base = tmp_path_factory.mktemp("submissions")
    toy_set().save(base / "mine.json")
    for name, agents in (("first", ("fixed:0.1", "random")), ("runs", ("fixed:0.9",))):
        where = ["--instances", str(base / "mine.json"), "--split", "train", "--out", str(base / name)]
        with without_processes():
            main(["bench", "run", "--agent", *agents, *where, "--seeds", "3", "--quiet"])
    pack(base / "runs", base / "second")
    shutil.rmtree(base / "runs")
    for name in ("first", "second"):
        main(["bench", "score", str(base / name)])
    check([base / "first", base / "second"], base)
    return base


def check(folders: Sequence[Path], out: Path) -> None:
    """What submissions must hold: all runs, rows that come out again (in small), and the score that their rows give."""
    for folder in folders:
        assert missing_runs(folder) == []
        assert {run.verdict for run in check_submission(folder, 1, is_quick=True, windows=1)} <= SOUND
    main(["bench", "score", *map(str, folders), "--out", str(out)])
    found, *told = (json.loads((folder / "score.json").read_text()) for folder in (out, *folders))
    for name, key in {
        "scores": ["measure"],
        "instances": ["measure", "instance"],
        "runs": ["instance", "seed"],
    }.items():
        lines = [pd.DataFrame([line for one in side for line in one[name]]) for side in (told, [found])]
        pd.testing.assert_frame_equal(*(one.set_index(["agent", *key]).sort_index() for one in lines), rtol=1e-6)


def test_every_submission_is_what_it_says(tmp_path: Path) -> None:
    check(submissions(), tmp_path)
    assert [folder.name for folder in submissions() if not (folder / "README.md").exists()] == []


@pytest.mark.parametrize(("column", "change"), {"exposure/reveal_ratio": -0.1, "probe/nll": -1e-9}.items())
def test_a_submission_with_an_edited_row_is_not(column: str, change: float, root: Path, tmp_path: Path) -> None:
    """So that the check is seen to check."""
    copy = tmp_path / "copy"
    shutil.copytree(root / "second", copy)
    with unpacked(copy) as there:
        for path in there.glob("*/*/trajectory.jsonl"):
            rows = read_rows(path)
            rows[0][column] += change
            path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        pack(there, copy, overwrite=True)
    with pytest.raises(AssertionError):
        check([copy], tmp_path)


def test_a_submission_with_an_edited_score_is_not(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root / "second", copy)
    content = json.loads((copy / "score.json").read_text())
    content["scores"][0]["mean"] += 0.01
    (copy / "score.json").write_text(json.dumps(content))
    with pytest.raises(AssertionError):
        check([copy], tmp_path)


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
