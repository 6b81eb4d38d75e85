"""The script for SLURM, in submitit's executor that runs jobs in this process."""

from __future__ import annotations

import gc
import runpy
from pathlib import Path

import pytest

from atesd.experiments.run import execute
from atesd.experiments.specs import plan_runs
from atesd_env.config import preset
from atesd_env.files.run_folder import read_rows

SCRIPT = Path(__file__).parents[2] / "docs" / "slurm.py"
# submitit's debug executor leaves its logs open; they are closed, with this warning, when its jobs are collected.
IGNORE_OPEN_LOGS = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@IGNORE_OPEN_LOGS
def test_jobs_make_the_runs_and_go_on_with_those_that_are_there(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="the package 'submitit' is not installed")
    config = preset("ATESD-Toy-v0", windows=4)
    first = plan_runs("ATESD-Toy-v0", config, ["fixed:0.5", "beta"], [0], tmp_path)[0]
    execute(first)
    before = (first.folder / "trajectory.jsonl").read_bytes()
    arguments = (
        f"--env ATESD-Toy-v0 --agents fixed:0.5 beta --seeds 0 --set windows=4 --executor debug --out {tmp_path}"
    )

    runpy.run_path(str(SCRIPT))["main"](arguments.split())

    gc.collect()
    assert (first.folder / "trajectory.jsonl").read_bytes() == before
    assert len(read_rows(tmp_path / "beta-seed0" / "trajectory.jsonl")) == 4


@IGNORE_OPEN_LOGS
def test_failed_run_is_told(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="the package 'submitit' is not installed")
    arguments = f"--env ATESD-Toy-v0 --agents fixed:0.5 --seeds 0 --set windows=4 --executor debug --out {tmp_path}"
    script = runpy.run_path(str(SCRIPT))
    script["main"](arguments.split())

    with pytest.raises(SystemExit, match="windows"):
        script["main"](arguments.replace("windows=4", "windows=5").split())
    gc.collect()
