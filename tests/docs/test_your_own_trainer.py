"""The programs of the page on one's own trainer, run as they stand, in an empty folder."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from analysis import load_runs
from tests import programs
from tests.trl_batches import OWN_LOOP, PAGE, PROGRAM, one_update


def ran(program: str, folder: Path) -> str:
    result = programs.ran(sys.executable, "-W", "ignore", "-c", program, cwd=folder)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def test_trls_trainer(tmp_path: Path):
    pytest.importorskip("trl", reason="needs the package trl (pip install atesd-env[trl])")
    ran(PROGRAM, tmp_path)
    frame = load_runs(tmp_path / "runs" / "trl")
    assert frame["update"].tolist() == [2, 4, 6]
    assert frame["agent/c1"].notna().all()


def test_trls_trainer_in_two_processes(tmp_path: Path):
    """Launched as the page says: one controller decides for both, and one folder is written; both know the same student."""
    pytest.importorskip("trl", reason="needs the package trl (pip install atesd-env[trl])")
    # Into a file each: what two processes print may stand in one another's lines.
    (tmp_path / "train.py").write_text(
        one_update(num_rollouts=4, num_processes=2)
        + "\nimport json, os, pathlib\n"
        + "known = [*exposure.decision.reveal_ratios.tolist(), exposure.statistics.probe_nll]\n"
        + "pathlib.Path(f\"end-{os.environ['RANK']}.json\").write_text(json.dumps(known))\n"
    )
    (launch,) = re.findall(r"^accelerate (.*)$", PAGE, re.MULTILINE)
    result = programs.ran(
        sys.executable,
        "-m",
        "accelerate.commands.accelerate_cli",
        *launch.split(),
        cwd=tmp_path,
        PYTHONWARNINGS="ignore",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    first, second = (json.loads((tmp_path / f"end-{rank}.json").read_text()) for rank in range(2))
    assert first == second
    (row,) = load_runs(tmp_path / "runs" / "trl").to_dict("records")
    assert row["exposure/reveal_ratio"] == pytest.approx(first[0])
    assert row["rollout/length"] * 4 == pytest.approx(row["rollout/num_tokens"]), "rollouts of both processes"


def test_a_loop_of_ones_own(tmp_path: Path):
    lines = ran(OWN_LOOP, tmp_path).splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1", "2"]
