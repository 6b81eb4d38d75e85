"""docs/many-devices.md: its launchers start the processes that it says, as this package recognises them."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from atesd_env.population.distributed import is_launched
from tests.programs import ROOT, ran, refusal

PAGE = (ROOT / "docs" / "many-devices.md").read_text()
PROGRAM = """
import json, os
from pathlib import Path
Path(__file__).with_name(f"rank-{os.environ.get('RANK')}.json").write_text(json.dumps(dict(os.environ)))
"""


def commands() -> list[list[str]]:
    """Returns the words of each command that starts a run in several processes."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if " -m atesd " in line]


@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_the_launchers_start_two_processes(launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (words,) = (words for words in commands() if words[0] == launcher)
    executable = Path(sys.executable).with_name(launcher)
    if not executable.exists():
        pytest.skip(f"the command {launcher} is not installed beside {Path(sys.executable).name}")
    (tmp_path / "program.py").write_text(PROGRAM)
    options = words[1 : words.index("-m")]
    done = ran(executable, *options, tmp_path / "program.py")
    assert done.returncode == 0, done.stderr
    environments = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("rank-*.json"))]
    assert [environment["RANK"] for environment in environments] == ["0", "1"]
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, environments[0][name])
    assert is_launched()


def test_the_pages_torchrun_command_makes_one_run_and_shows_it_once(tmp_path: Path):
    (words,) = (words for words in commands() if words[0] == "torchrun")
    executable = Path(sys.executable).with_name("torchrun")
    if not executable.exists():
        pytest.skip(f"the command torchrun is not installed beside {Path(sys.executable).name}")
    small = ["--hold-window", "1", "--num-rollouts", "2", "--probe-size", "2"]
    done = ran(executable, *words[1:], *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("runs:    runs/two") == 1, "the first process speaks for both"
    rows = (tmp_path / "runs" / "two" / "random-seed0" / "trajectory.jsonl").read_text().splitlines()
    assert [json.loads(row)["window"] for row in rows] == [1, 2]


def test_a_verb_that_cannot_share_is_refused_in_several_processes(capsys: pytest.CaptureFixture[str], monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    assert "which are for the verbs run and train" in refusal(capsys, "agents")
