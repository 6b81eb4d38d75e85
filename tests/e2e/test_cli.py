"""The installed console command, as a user runs it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from peft import PeftConfig

from agents.specs.registry import available
from analysis import load_runs
from atesd.experiments.baselines.registry import NAMES
from tests.programs import ATESD, atesd, interrupted, num_lines, progress_lines, started, typed, wait_until

SHORT_TINY = shlex.split("--windows 2 --hold-window 1 --num-rollouts 2 --probe-size 2 --probe-accuracy-every 1")
TOY_RUN = ("run", "--env", "ATESD-Toy-v0", "--windows", 4, "--out")
OWN_AGENT = """
class Own:
    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return [{}], state
"""


@pytest.fixture(scope="module")
def tiny_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Two agents and two seeds on the packaged student."""
    out = tmp_path_factory.mktemp("runs") / "first"
    result = atesd("run", "--agent", "beta", "fixed:1", "--seeds", 0, 1, "--out", out, *SHORT_TINY)
    assert result.returncode == 0, result.stderr
    return out, result


def test_run_ends_with_a_table_and_the_path_of_a_picture(tiny_runs):
    out, result = tiny_runs
    assert "beta" in result.stdout
    assert "fixed:1" in result.stdout
    assert f"picture: {out / 'exposure.png'}" in result.stdout
    assert (out / "exposure.png").read_bytes().startswith(b"\x89PNG")
    lines = progress_lines(result.stderr)
    starts = [
        f"[{number}/4] {name}: {window}/2  "
        for number, name in enumerate(("beta seed 0", "fixed:1 seed 0", "beta seed 1", "fixed:1 seed 1"), start=1)
        for window in (1, 2)
    ]
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=True)] == starts, (
        "a line a window, no warning"
    )
    assert re.fullmatch(r"\[2/4\] fixed:1 seed 0: 1/2  ratio 1\.00  probe NLL \d\.\d{3}  accuracy \d+\.\d%", lines[2])


def test_run_files_are_complete(tiny_runs):
    out, _ = tiny_runs
    frame = load_runs(out)
    assert sorted(frame["run"].unique()) == ["beta-seed0", "beta-seed1", "fixed-1-seed0", "fixed-1-seed1"]
    assert (frame.groupby("run", observed=True)["window"].max() == 2).all()
    folder = out / "beta-seed1"
    config = json.loads((folder / "config.json").read_text())
    assert config["config"]["windows"] == 2
    assert config["seed"] == 1
    assert config["student_source"] == "packaged tiny student"
    rows = [json.loads(line) for line in (folder / "trajectory.jsonl").read_text().splitlines()]
    assert rows[-1]["status"] == "truncated"
    assert rows[0]["agent/c1"] >= 1.0
    assert rows[0]["time/rollout_sec"] > 0
    sample = json.loads((folder / "samples.jsonl").read_text().splitlines()[0])
    assert sample["student_prompt"] != sample["teacher_prompt"]
    assert PeftConfig.from_pretrained(str(folder / "adapter")).r == 8


def test_same_seed_means_same_problems_for_every_agent(tiny_runs):
    out, _ = tiny_runs

    def problems(run: str) -> list[str]:
        return [json.loads(line)["problem"] for line in (out / run / "samples.jsonl").read_text().splitlines()]

    assert problems("beta-seed0") == problems("fixed-1-seed0")
    assert problems("beta-seed0") != problems("beta-seed1")


def test_existing_runs_are_not_overwritten_without_being_asked(tiny_runs):
    out, _ = tiny_runs
    before = (out / "beta-seed0" / "trajectory.jsonl").read_text()
    result = typed("run", "--agent", "random", "beta", "--out", out, *SHORT_TINY)
    assert result.returncode == 1
    assert "--overwrite" in result.stderr
    assert (out / "beta-seed0" / "trajectory.jsonl").read_text() == before
    assert not (out / "random-seed0").exists(), "nothing starts if something is in the way"


def test_overwrite_replaces_a_run_and_quiet_says_nothing(tmp_path: Path):
    arguments = (*TOY_RUN, tmp_path, "--agent", "random")
    assert typed(*arguments).returncode == 0
    again = typed(*arguments, "--windows", 3, "--overwrite", "--quiet")
    assert again.returncode == 0
    assert again.stderr == ""
    assert len(load_runs(tmp_path)) == 3


def test_users_own_class_by_path(tmp_path: Path):
    (tmp_path / "mine.py").write_text(OWN_AGENT.format("0.5"))
    result = typed(*TOY_RUN, "runs", "--agent", "mine:Own", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (load_runs(tmp_path / "runs")["exposure/reveal_ratio"] == 0.5).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "ATESD-Tny-v0"], "did you mean 'ATESD-Tiny-v0'"),
        (["--agent", "bta"], "beta"),
        (["--agent", "fixed:1.5"], "1.5"),
        (["--agent", "beta:batchsize=3"], "did you mean 'batch_size'?"),
        (["--agent", "missing.safetensors"], "expected the file of a saved agent, found none"),
        (["--credit", "two-step"], "two-step"),
        (["--windows", "0"], "windows: expected a number in [1, inf), got 0"),
        (["--windws", "3"], "--windows"),
        (["--seeds", "-1"], "seeds"),
        (["--agent", "beta", "beta"], "each agent and each seed once"),
        (["--student", "no/such/model/here"], "check the path"),
        (["--task", "math", "--data-path", "missing.jsonl"], "missing.jsonl"),
    ],
)
def test_wrong_arguments_say_what_to_do(tmp_path: Path, arguments: list[str], message: str):
    default = [] if "--agent" in arguments else ["--agent", "random"]
    result = typed("run", *default, "--out", tmp_path / "runs", *arguments)
    assert result.returncode in (1, 2)
    assert message in result.stderr + result.stdout
    assert "Traceback" not in result.stderr


def test_killed_run_leaves_whole_lines(tmp_path: Path):
    process = started(ATESD, "run", "--agent", "random", "--out", tmp_path, *SHORT_TINY, "--windows", 500)
    wait_until(lambda: num_lines(tmp_path / "random-seed0" / "trajectory.jsonl") >= 3)
    process.kill()
    process.communicate()
    frame = load_runs(tmp_path)
    assert len(frame) >= 3
    assert frame["window"].tolist() == list(range(1, len(frame) + 1))


def test_interrupt_says_that_the_rows_can_be_read(tmp_path: Path):
    process = started(ATESD, *TOY_RUN, tmp_path, "--agent", "random", "--windows", 100_000_000)
    wait_until(lambda: num_lines(tmp_path / "random-seed0" / "trajectory.jsonl") > 0)
    errors = interrupted(process)
    assert "interrupted; the windows written so far can be read" in errors
    assert "saved its agent and its checkpoint, to go on from, after window" in errors
    assert (tmp_path / "random-seed0" / "agent.safetensors").exists()
    assert len(load_runs(tmp_path)) > 0


def test_agents_are_listed_with_a_line_each():
    result = typed("agents")
    assert result.returncode == 0, result.stderr
    for form in available(NAMES):
        assert form in result.stdout
    assert "The paper's controller" in result.stdout


def test_options_of_an_agent_are_listed():
    result = typed("agents", "beta")
    assert result.returncode == 0, result.stderr
    for text in ("credit", "grounded", "batch_size", "learning_rate"):
        assert text in result.stdout
    wrong = typed("agents", "betta")
    assert wrong.returncode == 2
    assert "did you mean beta?" in wrong.stderr


def test_credit_goes_to_the_agents_that_take_it(tmp_path: Path):
    arguments = (*TOY_RUN, tmp_path, "--credit", "one-step", "--agent", "fixed:1")
    result = typed(*arguments, "beta")
    assert result.returncode == 0, result.stderr
    configs = [json.loads((folder / "config.json").read_text())["agent"] for folder in sorted(tmp_path.glob("*-seed0"))]
    assert configs == ["beta:credit=one-step", "fixed:1"]
    refused = typed(*arguments)
    assert refused.returncode == 2
    assert "credit: expected an agent with the option 'credit' (such as beta), got only fixed:1" in refused.stderr


def test_a_mistake_in_the_users_agent_is_shown_with_its_way_and_the_rows_stay(tmp_path: Path):
    (tmp_path / "mine.py").write_text(OWN_AGENT.format("1 / (0.5 - observation[0])"))
    result = typed(*TOY_RUN, "runs", "--agent", "mine:Own", cwd=tmp_path)
    assert result.returncode == 1
    assert "agent 'mine:Own', window 1: its decision cannot be used" in result.stderr
    (tmp_path / "mine.py").write_text(OWN_AGENT.format("0.5 if observation[0] < 0.5 else missing_name"))
    result = typed(*TOY_RUN, "second", "--agent", "mine:Own", cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "agent 'mine:Own': expected it to go on after window 2, but it raised NameError" in result.stderr
    assert len(load_runs(tmp_path / "second")) == 2


def test_unknown_verb_is_refused():
    result = typed("rnu")
    assert result.returncode == 2
    assert "expected one of the verbs run" in result.stderr
