"""Many runs in several processes: what comes out is what one process makes, and a failure stays alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from analysis import load_runs
from atesd.experiments import processes as compare
from atesd.experiments.processes import Progress, execute_all
from atesd.experiments.run import execute
from atesd.experiments.specs import RunSpec, plan_runs
from atesd_env.config import preset
from atesd_env.errors import ConfigError
from tests.runs import rows_without_times

OWN_AGENTS = '''
import os
import signal

import numpy as np


class Dies:
    """Kills its own process in the third window."""

    count = 0

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.count += 1
        if self.count == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return np.array([0.5], dtype=np.float32), state


class Raises:
    """Tells the threads it was given."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        raise RuntimeError(f"threads: {os.environ['OMP_NUM_THREADS']}")


class Exits:
    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        raise SystemExit(3)
'''


def plan(out: Path, agents: list[str], seeds: tuple[int, ...] = (0, 1), windows: int = 5) -> list[RunSpec]:
    return plan_runs("ATESD-Toy-v0", preset("ATESD-Toy-v0", windows=windows), agents, seeds, out)


@pytest.fixture
def own_agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_agents_to_compare.py").write_text(OWN_AGENTS)
    monkeypatch.syspath_prepend(tmp_path)


def test_processes_make_the_runs_that_one_process_makes(tmp_path: Path):
    here, there = (plan(tmp_path / name, ["random", "fixed:0.5"]) for name in ("here", "there"))
    for spec in here:
        execute(spec)
    reported: list[Progress] = []
    assert execute_all(there, processes=2, report=reported.append) == []
    for one, other in zip(here, there, strict=True):
        assert rows_without_times(one.folder) == rows_without_times(other.folder)
    windows = {spec.folder: 0 for spec in there}
    for progress in reported:
        windows[progress.spec.folder] += progress.num_windows
    assert list(windows.values()) == [5, 5, 5, 5]
    assert sum(progress.is_over for progress in reported) == 4
    finished = {spec.folder: (spec.folder / "trajectory.jsonl").stat().st_mtime_ns for spec in there}
    reported.clear()
    assert execute_all(there, processes=2, resume=True, report=reported.append) == []
    assert {folder: (folder / "trajectory.jsonl").stat().st_mtime_ns for folder in finished} == finished
    assert sum(progress.num_windows for progress in reported) == 20, "a progress bar shows them all the same"


@pytest.mark.usefixtures("own_agents")
def test_a_failure_does_not_take_the_others_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compare, "num_cores", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    agents = [f"own_agents_to_compare:{name}" for name in ("Dies", "Raises", "Exits")]
    specs = plan(tmp_path / "runs", [*agents, "fixed:0.5", "random"], seeds=(0,))
    failed = {failure.spec.agent.rpartition(":")[2]: failure for failure in execute_all(specs, processes=2)}
    assert sorted(failed) == ["Dies", "Exits", "Raises"]
    assert failed["Dies"].reason == "its process ended with signal SIGKILL (often: out of memory)"
    assert "RuntimeError: threads: 3 " in failed["Raises"].reason, "6 cores for 2 processes"
    assert "in predict" in failed["Raises"].details
    assert failed["Exits"].reason == "SystemExit: 3"
    assert "OMP_NUM_THREADS" not in os.environ
    frame = load_runs(tmp_path / "runs")
    windows = frame.groupby("agent", observed=True)["window"].max().to_dict()
    assert windows == {"fixed:0.5": 5, "random": 5, "own_agents_to_compare:Dies": 2}, "rows made before stay readable"


@pytest.mark.usefixtures("own_agents")
def test_our_own_errors_come_without_a_traceback_and_a_set_number_of_threads_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    specs = plan(tmp_path / "runs", ["own_agents_to_compare:Raises", "fixed:0.5"], seeds=(0,))
    execute(specs[1])
    failed = execute_all(specs, processes=1)
    assert [failure.spec.agent for failure in failed] == ["own_agents_to_compare:Raises", "fixed:0.5"]
    assert "RuntimeError: threads: 7 " in failed[0].reason
    assert "expected a folder without a run" in failed[1].reason
    assert failed[1].details == ""


def test_an_interruption_ends_all_processes_and_the_runs_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The report is interrupted after both runs have begun, as Ctrl-C would be."""
    specs = plan(tmp_path / "runs", ["random", "fixed:0.5"], seeds=(0,), windows=4000)
    begun: set[Path] = set()
    workers: list[Any] = []
    begin = compare._Worker.begin

    def watched(worker: Any, spec: RunSpec) -> None:
        workers.append(worker)
        begin(worker, spec)

    def interrupt(progress: Progress) -> None:
        begun.add(progress.spec.folder)
        if len(begun) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(compare._Worker, "begin", watched)
    with pytest.raises(KeyboardInterrupt):
        execute_all(specs, processes=2, checkpoint_every=50, report=interrupt)
    assert [worker.process.exitcode for worker in workers] == [0, 0], "they ended by themselves, with files in order"
    made = load_runs(tmp_path / "runs").groupby("run", observed=True)["window"].max()
    assert len(made) == 2
    assert (made < 4000).any()
    assert execute_all(specs, processes=2, resume=True, checkpoint_every=1000) == []
    assert load_runs(tmp_path / "runs").groupby("run", observed=True)["window"].max().tolist() == [4000, 4000]


def test_at_least_one_process_is_needed(tmp_path: Path):
    with pytest.raises(ConfigError, match="processes: expected at least 1, got 0"):
        execute_all(plan(tmp_path, ["random"]), processes=0)
