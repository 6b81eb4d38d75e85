"""``atesd bench``: runs of every instance, their score, and the replay that finds what was edited."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from atesd.commands.cli import main
from atesd.experiments.bench.plan import BENCH_FILE, read_bench_file
from atesd.experiments.bench.validation import TOLERANCE, check_submission, missing_runs
from atesd_env.bench import InstanceSet
from atesd_env.bench.known import COLUMNS, write_references
from atesd_env.errors import RunFilesError
from tests.atesd_env.bench.sets import tiny_set, toy_set
from tests.programs import without_processes

AGENTS = ("fixed:0.1", "fixed:1", "beta")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two agents and then another one on the train split of closed forms, two seeds."""
    base = tmp_path_factory.mktemp("bench")
    toy_set().save(base / "mine.json")
    ran(base, *AGENTS[:2])
    with without_processes():
        ran(base, AGENTS[2])
    return base / "out"


def ran(base: Path, *agents: str, **flags: str) -> None:
    given = {"--out": str(base / "out"), "--instances": str(base / "mine.json"), "--split": "train", **flags}
    words = [word for flag, value in given.items() for word in (flag, value)]
    main(["bench", "run", "--agent", *agents, "--seeds", "3", "4", "--processes", "1", "--quiet", *words])


def runs_of(folder: Path) -> list[str]:
    return sorted(str(path.parent.relative_to(folder)) for path in folder.rglob("trajectory.jsonl"))


def copied(folder: Path, base: Path) -> Path:
    """A copy of a submission with one run of it, for edits."""
    copy = base / "copy"
    (copy / "low").mkdir(parents=True)
    (copy / BENCH_FILE).write_bytes((folder / BENCH_FILE).read_bytes())
    run = copy / "low" / "beta-seed3"
    run.mkdir()
    for path in (folder / "low" / "beta-seed3").iterdir():
        if path.is_file():
            (run / path.name).write_bytes(path.read_bytes())
    return copy


def edited(folder: Path, change: Any) -> Any:
    """Changes the rows of the run in a copy; returns what the check says."""
    path = folder / "low" / "beta-seed3" / "trajectory.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = change(rows) or rows
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (found,) = check_submission(folder, 1)
    return found


def test_every_instance_of_the_split_is_run_at_every_seed(folder: Path):
    names = ("fixed-0.1", "fixed-1", "beta")
    expected = [f"{one}/{name}-seed{seed}" for one in ("low", "high", "both") for name in names for seed in (3, 4)]
    assert runs_of(folder) == sorted(expected)
    told = json.loads((folder / BENCH_FILE).read_text())["bench"]
    assert (told["set"], told["split"], told["fingerprint"]) == ("mine", "train", toy_set().fingerprint)
    config = json.loads((folder / "high" / "beta-seed3" / "config.json").read_text())["config"]
    assert (config["instance"], config["split"], config["progress"]) == ("high", "train", "signed")


def test_score_writes_numbers_and_a_picture_and_prints_the_tables(folder: Path, tmp_path: Path, capsys: Any):
    main(["bench", "score", str(folder), "--out", str(tmp_path)])
    shown = capsys.readouterr().out
    assert all(word in shown for word in (*AGENTS, "low", "high", "both", "since no oracle is known", "beats one of"))
    content = json.loads((tmp_path / "score.json").read_text())
    assert (tmp_path / "score.png").stat().st_size > 10_000
    assert {line["measure"] for line in content["scores"]} == {"probe/accuracy", "probe/nll", "area/probe/nll"}
    assert len(content["runs"]) == 18
    beta = [line["share"] for line in content["profile"] if line["agent"] == "beta"]
    assert (len(beta), beta) == (101, sorted(beta, reverse=True))
    assert content["set"]["split"] == "train"
    accuracy = {line["agent"]: line["mean"] for line in content["scores"] if line["measure"] == "probe/accuracy"}
    runs = pd.DataFrame(content["runs"])
    by_hand = runs.groupby(["agent", "instance"])["probe/accuracy"].mean().groupby("agent").mean()
    assert accuracy == pytest.approx(by_hand.to_dict())


def test_gains_are_between_the_sets_references(folder: Path, tmp_path: Path):
    mine = InstanceSet.from_file(folder.parent / "mine.json")
    lines = [
        (one.id, agent, "probe/accuracy", mean, 0.0, 0.0, 8, "0-7", 9, 9)
        for one in mine
        for agent, mean in (("fixed:1", 0.0), ("oracle", 0.5))
    ]
    card = dict.fromkeys(("what", "command", "commit", "licence"), "")
    (folder.parent / "mine.parquet").write_bytes(b"damaged")
    try:
        with pytest.raises(SystemExit):  # and not as if there were none
            main(["bench", "score", str(folder), "--out", str(tmp_path)])
        write_references(mine, pd.DataFrame(lines, columns=list(COLUMNS)), **card)
        main(["bench", "score", str(folder), "--out", str(tmp_path)])
    finally:
        (folder.parent / "mine.parquet").unlink()
    runs = pd.DataFrame(json.loads((tmp_path / "score.json").read_text())["runs"])
    assert runs["gain"].tolist() == pytest.approx((runs["probe/accuracy"] / 0.5).tolist())


def test_a_sound_submission_comes_out_bit_for_bit(folder: Path, capsys: Any):
    main(["bench", "validate", str(folder), "--processes", "1", "--quiet"])
    shown = capsys.readouterr().out
    assert "18 same bits" in shown
    assert re.search(r"Not checked by a replay: .* again, .* before, and .*\n.*cost", shown)
    assert missing_runs(folder) == []
    main(["bench", "validate", str(folder), "--processes", "1", "--quick"])
    assert "3 same bits" in capsys.readouterr().out, "one run of each agent"


def test_missing_runs_are_named(folder: Path, tmp_path: Path):
    copy = copied(folder, tmp_path)
    assert missing_runs(copy) == ["beta: instance high, seed 3", "beta: instance both, seed 3"]


def test_what_was_edited_is_refused(folder: Path, tmp_path: Path, capsys: Any):
    def better(rows: list[dict[str, Any]]) -> None:
        rows[1]["probe/nll"] -= 1e-9

    found = edited(copied(folder, tmp_path / "a"), better)
    assert (found.verdict, found.reason) == ("refused", "window 2: only probe/nll differ, which no rounding does")
    main_refused(tmp_path / "a" / "copy", capsys)
    found = edited(copied(folder, tmp_path / "b"), lambda rows: rows[:-1])
    assert "expected a run that came to its end" in found.reason
    found = edited(copied(folder, tmp_path / "c"), lambda rows: [rows[0], rows[2]])
    assert found.verdict == "refused"
    found = edited(copied(folder, tmp_path / "d"), lambda rows: rows[1].update({"probe/accuracy": 0.9}))
    assert (found.verdict, "probe/accuracy" in found.reason) == ("refused", True)
    found = edited(copied(folder, tmp_path / "e"), lambda rows: rows[0].update({"exposure/reveal_ratio": 0.123}))
    assert found.verdict == "refused"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows[1].update({"exposure/reveal_ratio": 1.5}), r"in \[0, 1\], got 1\.5"),
        (lambda rows: rows[1].update({"exposure/reveal_ratio": "x"}), "window 2: expected a number for each"),
        (lambda rows: rows[1].pop("exposure/reveal_ratio") and None, "got no entry 'exposure/reveal_ratio'"),
        (lambda rows: rows[1].pop("probe/nll") and None, "probe/nll"),
        (lambda rows: rows[1].update({"probe/accuracy": []}), r"probe/accuracy: \[\] recorded"),
        (lambda rows: rows[1].update({"probe/nll": []}), r"probe/nll: \[\] recorded"),
        (lambda rows: rows[0].update(window=True), "window: True recorded"),
        (lambda rows: rows[1].pop("window") and None, "expected the windows from 1 on"),
    ],
)
def test_rows_that_no_run_writes_are_refused(change: Any, reason: str, folder: Path, tmp_path: Path):
    found = edited(copied(folder, tmp_path), change)
    assert found.verdict == "refused"
    assert re.search(reason, found.reason), found.reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda run: run.pop("env_id"), "got no entry 'env_id'"),
        (lambda run: run.update(seed="x"), "expected a seed of the split"),
        (lambda run: run["config"].update(instance="nothing"), "instance: expected one of"),
        (lambda run: run["config"].pop("split"), "got no entry 'split'"),
    ],
)
def test_descriptions_that_no_run_has_are_refused(change: Any, reason: str, folder: Path, tmp_path: Path):
    copy = copied(folder, tmp_path)
    path = copy / "low" / "beta-seed3" / "config.json"
    run = json.loads(path.read_text())
    change(run)
    path.write_text(json.dumps(run))
    (found,) = check_submission(copy, 1)
    assert found.verdict == "refused"
    assert reason in found.reason


def test_a_run_without_its_description_is_refused(folder: Path, tmp_path: Path):
    copy = copied(folder, tmp_path)
    (copy / "low" / "beta-seed3" / "config.json").unlink()
    (found,) = check_submission(copy, 1)
    assert found.verdict == "refused"
    assert "config.json: expected a readable file" in found.reason


@pytest.mark.parametrize("odd", [{"threads": 0}, {"threads": "x"}, {"split": None}, {"set": 1}])
def test_an_odd_description_of_a_submission_is_refused(odd: Any, folder: Path, tmp_path: Path):
    copy = copied(folder, tmp_path)
    told = json.loads((copy / BENCH_FILE).read_text())
    told["bench"] |= odd
    (copy / BENCH_FILE).write_text(json.dumps(told))
    with pytest.raises(
        RunFilesError, match=rf"bench\.json: expected a submission's description, .*as {next(iter(odd))}"
    ):
        read_bench_file(copy)


def main_refused(folder: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bench", "validate", str(folder), "--processes", "1", "--quiet"])
    assert caught.value.code == 1
    assert "but 1 did not" in capsys.readouterr().err


def test_rounding_is_within_the_tolerance_and_a_little_more_is_not(folder: Path, tmp_path: Path):
    def rounded(factor: float) -> Any:
        def change(rows: list[dict[str, Any]]) -> None:
            for row in rows:
                for name, value in row.items():
                    if isinstance(value, float) and not name.startswith(("exposure", "agent", "time")):
                        row[name] = value * (1.0 + factor)

        return change

    found = edited(copied(folder, tmp_path / "a"), rounded(1e-7))
    assert found.verdict == "same within tolerance"
    found = edited(copied(folder, tmp_path / "b"), rounded(3 * TOLERANCE))
    assert found.verdict == "refused"


def test_another_version_of_the_set_cannot_be_checked(folder: Path, tmp_path: Path):
    copy = copied(folder, tmp_path)
    told = json.loads((copy / BENCH_FILE).read_text())
    told["bench"]["fingerprint"] = "of another"
    (copy / BENCH_FILE).write_text(json.dumps(told))
    (found,) = check_submission(copy, 1)
    assert found.verdict == "not checked"
    assert "take the version that was run" in found.reason


def test_check_plays_a_set_of_ones_own(tmp_path: Path, capsys: Any):
    toy_set().save(tmp_path / "mine.json")
    main(["bench", "check", str(tmp_path / "mine.json")])
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .endswith("mine.json: 5 instances, all of them can be played and gone back on")
    )
    content = toy_set().content()
    content["instances"][0]["fields"] = {"windwos": 3}
    (tmp_path / "mine.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit) as caught:
        main(["bench", "check", str(tmp_path / "mine.json")])
    assert caught.value.code == 2
    assert (
        "'low': windwos: expected the name of a configuration field, got 'windwos'; did you mean 'windows'"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score"], "folders: expected a folder that `atesd bench run` made, got none"),
        (["run", "somewhere", "--agent", "beta"], "folders: expected none behind run"),
        (["run", "--agent", "beta"], "--agent: expected agents and a folder"),
        (
            ["run", "--agent", "beta", "--out", "x", "--seeds", "3"],
            "seeds: expected seeds of the split 'test', 20000 to 29999, got 3",
        ),
        (["run", "--agent", "beta", "--out", "x", "--seeds", "20000", "--quick"], "quick: expected either"),
        (["run", "--agent", "betta", "--out", "x"], "did you mean"),
        (["run", "--agent", "beta", "--out", "x", "--instances", "absent"], "instances: expected a packaged set"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_run(arguments: list[str], message: str, capsys: Any):
    with pytest.raises(SystemExit) as caught:
        main(["bench", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not Path("x").exists()


def test_a_folder_holds_runs_of_one_split(folder: Path, capsys: Any):
    with pytest.raises(SystemExit):
        ran(folder.parent, "random", **{"--split": "test", "--seeds": "20000"})
    assert "split ('train' there, 'test' now)" in capsys.readouterr().err


def test_language_models_come_out_as_recorded(tmp_path: Path, capsys: Any):
    tiny_set().save(tmp_path / "mine.json")
    main(
        [
            *("bench", "run", "--agent", "random", "grounded:by=problem", "--split", "train", "--quick"),
            *(
                "--processes",
                "1",
                "--quiet",
                "--instances",
                str(tmp_path / "mine.json"),
                "--out",
                str(tmp_path / "out"),
            ),
        ]
    )
    main(["bench", "validate", str(tmp_path / "out"), "--processes", "1"])
    assert "6 same bits" in capsys.readouterr().out
