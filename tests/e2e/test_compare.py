"""`atesd compare` as a user runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis import load_runs
from tests.programs import ATESD, atesd, ended, num_lines, progress_lines, refusal, started, typed, wait_until

TOY = ["--env", "ATESD-Toy-v0", "--windows", "10", "--hold-window", "5"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Four agents and three seeds in two processes."""
    out = tmp_path_factory.mktemp("compare") / "runs"
    agents = ("random", "fixed:0.4", "fixed:0.8", "fixed:1")
    result = atesd("compare", "--agent", *agents, "--seeds", 0, 1, 2, "--processes", 2, "--out", out, *TOY)
    assert result.returncode == 0, result.stderr
    return out, result


def test_it_ends_with_tables_and_the_paths_of_its_files(compared: tuple[Path, subprocess.CompletedProcess[str]]):
    out, result = compared
    for text in (
        "probe/accuracy after the last window (higher is better)",
        "probe/nll after the last window (lower is better)",
        "minus fixed:1",
        "minus best fixed: fixed:0.4",
        "controller s",
        "updates",
        f"picture: {out / 'comparison.png'}",
    ):
        assert text in result.stdout
    lines = progress_lines(result.stderr)
    assert [line for line in lines if not re.fullmatch(r"windows: \d+/120  runs \d+/12, \S+ seed \d", line)] == []
    assert lines[-1].startswith("windows: 120/120  runs 12/12"), "lines of progress, no warning"
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_its_files_say_what_the_runs_say(compared: tuple[Path, subprocess.CompletedProcess[str]]):
    out, _ = compared
    frame = load_runs(out)
    last = frame[frame["window"] == 10].set_index(["agent", "seed"])["probe/nll"]
    table = pd.read_csv(out / "comparison.csv")
    content = json.loads((out / "comparison.json").read_text())
    assert table["metric"].unique().tolist() == ["probe/accuracy", "probe/nll"]
    nll = table[table["metric"] == "probe/nll"].set_index("agent")
    assert nll.index.tolist()[0] == "fixed:0.4", "the toy's best ratio"
    for agent in ("random", "fixed:0.4", "fixed:0.8"):
        assert nll.loc[agent, "mean"] == pytest.approx(last[agent].mean())
        assert nll.loc[agent, "to_reference"] == pytest.approx((last[agent] - last["fixed:1"]).mean())
        assert nll.loc[agent, "num_updates"] == 50
        assert 0.0 < nll.loc[agent, "controller_sec"] < nll.loc[agent, "run_sec"]
    assert nll.loc["fixed:0.4", "to_reference_high"] < 0.0
    assert content["processes"] == 2
    assert content["failed"] == []
    assert len(content["runs"]) == 12
    assert content["wall_sec"] > 0
    assert {line["agent"] for line in content["comparison"]} == set(nll.index)


def test_resuming_finished_runs_compares_them_again_by_other_metrics(
    compared: tuple[Path, subprocess.CompletedProcess[str]],
):
    out, _ = compared
    again = typed(
        "compare",
        "--agent",
        "random",
        "fixed:1",
        "--seeds",
        0,
        1,
        2,
        "--out",
        out,
        *TOY,
        "--resume",
        "--metric",
        "return",
    )
    assert again.returncode == 0, again.stderr
    assert pd.read_csv(out / "comparison.csv")["metric"].unique().tolist() == ["return"]
    assert "minus best fixed: fixed:1" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric", "probe/nl"], "metric: expected one of"),
        (["--processes", "-1"], "processes: expected a number"),
        (["--seeds", "-1"], "seeds: expected whole numbers"),
        (["--resume", "--overwrite"], "expected either --resume or --overwrite"),
        (["--agent", "bta"], "beta"),
    ],
)
def test_wrong_arguments_are_found_before_anything_runs(
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(sys, "path", sys.path.copy())
    agents = [] if "--agent" in arguments else ["--agent", "random"]
    assert message in refusal(capsys, "compare", *agents, "--out", tmp_path / "runs", *TOY, *arguments)
    assert not (tmp_path / "runs").exists()


def test_a_failed_run_is_named_at_the_end_and_the_others_are_compared(tmp_path: Path):
    (tmp_path / "mine.py").write_text(
        "class Wrong:\n"
        "    def predict(self, observation, state=None, episode_start=None, deterministic=False):\n"
        "        raise ValueError('no idea')\n"
    )
    arguments = ("--agent", "mine:Wrong", "fixed:1", "--seeds", 0, "--out", "runs", "--processes", 1)
    result = atesd("compare", *arguments, *TOY, cwd=tmp_path)
    assert result.returncode == 1
    assert "expected 2 runs to come to their end, but 1 failed" in result.stderr
    assert "ValueError: no idea" in result.stderr
    assert "--resume" in result.stderr
    assert 'raise ValueError("no idea")' in result.stderr or "raise ValueError('no idea')" in result.stderr
    content = json.loads((tmp_path / "runs" / "comparison.json").read_text())
    (failed,) = content["failed"]
    assert (failed["agent"], failed["seed"]) == ("mine:Wrong", 0)
    assert "ValueError: no idea" in failed["reason"]
    assert pd.read_csv(tmp_path / "runs" / "comparison.csv")["agent"].unique().tolist() == ["fixed:1"]


def test_ctrl_c_ends_everything_and_says_how_to_go_on(tmp_path: Path):
    """Ctrl-C reaches the command and its processes alike, as on a terminal."""
    arguments = ["compare", "--agent", "random", "fixed:1", "--seeds", "0", "--processes", "2", "--out", str(tmp_path)]
    arguments += ["--env", "ATESD-Toy-v0", "--windows", "1000000"]
    process = started(ATESD, *arguments, start_new_session=True)
    trajectories = [tmp_path / name / "trajectory.jsonl" for name in ("random-seed0", "fixed-1-seed0")]
    wait_until(lambda: all(map(num_lines, trajectories)))
    os.killpg(process.pid, signal.SIGINT)
    errors = ended(process, 130)
    assert "interrupted; the windows written so far can be read. The same arguments and --resume" in errors
    assert "Traceback" not in errors
    assert load_runs(tmp_path)["run"].nunique() == 2
