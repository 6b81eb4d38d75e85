"""The programs of the page on one's own trainer, run as they stand, in an empty folder."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from analysis import load_runs

PAGE = Path(__file__).parents[2] / "docs" / "your_own_trainer.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def ran(program: str, folder: Path) -> str:
    command = [sys.executable, "-W", "ignore", "-c", program]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def test_trls_trainer(tmp_path: Path):
    pytest.importorskip("trl", reason="needs the package trl (pip install atesd-env[trl])")
    ran(PROGRAMS[0], tmp_path)
    frame = load_runs(tmp_path / "runs" / "trl")
    assert frame["update"].tolist() == [2, 4, 6]
    assert frame["agent/c1"].notna().all()


def test_trls_trainer_in_two_processes(tmp_path: Path):
    """One controller decides for both, and one folder is written; both know the same student."""
    pytest.importorskip("trl", reason="needs the package trl (pip install atesd-env[trl])")
    small = {"windows=3": "windows=1", "hold_window=2": "hold_window=1", "max_steps=6": "max_steps=1"}
    small |= {
        "num_rollouts=8": "num_rollouts=4, probe_size=4",
        "per_device_train_batch_size=8": "per_device_train_batch_size=2",
    }
    program = PROGRAMS[0]
    for typed, smaller in small.items():
        assert typed in program
        program = program.replace(typed, smaller)
    # Into a file each: what two processes print may stand in one another's lines.
    program += (
        "\nimport json, os, pathlib\n"
        "known = [*exposure.decision.reveal_ratios.tolist(), exposure.statistics.probe_nll]\n"
        "pathlib.Path(f\"end-{os.environ['RANK']}.json\").write_text(json.dumps(known))\n"
    )
    (tmp_path / "program.py").write_text(program)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "program.py"]
    command = [sys.executable, "-W", "ignore", *launch]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    first, second = (json.loads((tmp_path / f"end-{rank}.json").read_text()) for rank in range(2))
    assert first == second
    (row,) = load_runs(tmp_path / "runs" / "trl").to_dict("records")
    assert row["exposure/reveal_ratio"] == pytest.approx(first[0])
    assert row["rollout/length"] * 4 == pytest.approx(row["rollout/num_tokens"]), "rollouts of both processes"


def test_a_loop_of_ones_own(tmp_path: Path):
    lines = ran(PROGRAMS[1], tmp_path).splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1", "2"]
