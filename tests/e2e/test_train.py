"""``atesd train``, then ``atesd run`` with the agent that it kept, as a user runs them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from analysis import load_runs
from tests.programs import STRICT_PYTHON, interrupted, num_lines, progress_lines, started, typed, wait_until

COMMAND = [*STRICT_PYTHON, "-m", "atesd"]
SHORT = ["--windows", "5", "--num-envs", "2", "--eval-every", "20", "--eval-seeds", "0", "1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training of PPO."""
    out = tmp_path_factory.mktemp("trained") / "ppo"
    result = typed("train", "--agent", "ppo", "--total-windows", 40, "--out", out, *SHORT)
    assert result.returncode == 0, result.stderr
    lines = progress_lines(result.stderr)
    assert [line for line in lines if not re.fullmatch(r"windows: \d+/40  return -?\d\.\d{3} after \d+", line)] == []
    assert lines[-1].startswith("windows: 40/40"), "lines of progress, no warning"
    assert f"best agent: {out / 'best_agent.zip'}" in result.stdout
    assert "untrained" in result.stdout
    return out


def test_train_leaves_its_files(trained: Path):
    rows = [json.loads(line) for line in (trained / "evaluations.jsonl").read_text().splitlines()]
    assert [row["windows"] for row in rows] == [0, 20, 40]
    assert {"best_agent.zip", "last_agent.zip", "training.json", "checkpoint.safetensors"} <= {
        path.name for path in trained.iterdir()
    }


def test_a_function_of_ones_own_deploys_the_agent_frozen(trained: Path, tmp_path: Path):
    (tmp_path / "deploying.py").write_text(
        "from agents.sb3.agent import load_agent\n"
        "def frozen(env, seed):\n"
        f"    return load_agent({str(trained / 'best_agent.zip')!r}, env, seed=seed, trust=True)\n"
        "def learning(env, seed):\n"
        f"    return load_agent({str(trained / 'best_agent.zip')!r}, env, learn=True, seed=seed, trust=True)\n"
    )
    arguments = ["--env", "ATESD-Toy-v0", "--windows", "10", "--out", "runs"]
    result = typed("run", "--agent", "deploying:frozen", "deploying:learning", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    frame = load_runs(tmp_path / "runs")
    assert (frame.groupby("run", observed=True)["window"].max() == 10).all()
    assert (tmp_path / "runs" / "deploying-learning-seed0" / "agent.zip").exists()
    assert not (tmp_path / "runs" / "deploying-frozen-seed0" / "agent.zip").exists(), "it has learned nothing"


def test_run_takes_the_file(trained: Path, tmp_path: Path):
    arguments = ("--env", "ATESD-Toy-v0", "--windows", 5, "--agent", trained / "best_agent.zip", "--trust-pickle")
    result = typed("run", *arguments, "--out", tmp_path / "runs")
    assert result.returncode == 0, result.stderr
    assert len(load_runs(tmp_path / "runs")) == 5


def test_an_existing_training_stays_as_it_is(trained: Path):
    before = (trained / "evaluations.jsonl").read_bytes()
    result = typed("train", "--agent", "ppo", "--total-windows", 40, "--out", trained, *SHORT)
    assert result.returncode == 1
    assert "--resume" in result.stderr
    assert (trained / "evaluations.jsonl").read_bytes() == before


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path):
    arguments = ["train", "--agent", "a2c", "--total-windows", "100000000", "--out", str(tmp_path), *SHORT]
    process = started(*COMMAND, *arguments)
    evaluations = tmp_path / "evaluations.jsonl"
    wait_until(lambda: num_lines(evaluations) >= 3)
    errors = interrupted(process)
    assert "interrupted after" in errors
    assert "--resume (instead of --overwrite) go on from the evaluation after" in errors
    done = len(evaluations.read_text().splitlines())
    windows = json.loads(evaluations.read_text().splitlines()[-1])["windows"] + 20
    arguments[4] = str(windows)
    result = typed(*arguments, "--resume")
    assert result.returncode == 0, result.stderr
    assert len(evaluations.read_text().splitlines()) == done + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--agent", "po"], "did you mean ppo"),
        (["--total-windows", "0"], "--total-windows"),
        (["--windows", "0"], "windows: expected a number in [1, inf), got 0"),
        (["--agent", "beta", "--num-envs", "3"], "--num-envs: expected 1 for beta"),
        (["--env", "ATESD-Tny-v0"], "did you mean 'ATESD-Tiny-v0'"),
        (["--resume", "--overwrite"], "either resume or overwrite"),
    ],
)
def test_wrong_arguments_say_what_to_do(tmp_path: Path, arguments: list[str], message: str):
    default = [] if "--agent" in arguments else ["--agent", "ppo"]
    result = typed("train", *default, "--out", tmp_path / "out", *arguments)
    assert result.returncode in (1, 2)
    assert message in result.stderr + result.stdout
    assert "Traceback" not in result.stderr
