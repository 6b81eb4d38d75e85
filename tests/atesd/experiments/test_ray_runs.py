"""Runs on a Ray cluster of two nodes: what comes out is what one process makes, also where a worker is killed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from atesd.commands.cli import main
from atesd.commands.side_by_side import with_ray_value
from atesd.experiments.bench.plan import plan_bench
from atesd.experiments.bench.validation import missing_runs
from atesd.experiments.processes import FailedRun, Progress
from atesd.experiments.ray_runs import RaySettings, _run, _write, execute_on_ray
from atesd.experiments.run import execute
from atesd.experiments.specs import RunSpec, plan_runs
from atesd_env.config import preset
from atesd_env.errors import ConfigError
from tests.atesd_env.bench.sets import toy_set
from tests.runs import rows_of, rows_without_times

OWN_AGENTS = '''
import os
import signal
import time
from pathlib import Path

from agents.schedules import RandomSchedule


class Meets(RandomSchedule):
    """Waits before its first window for the run on the other node, and writes down where it is."""

    folder = Path(__file__).parent
    kills = 0

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        import ray

        with open(self.folder / f"decisions-{type(self).__name__}", "a") as file:
            file.write(f"{self.num_timesteps}\\n")
        if self.num_timesteps == 0 and ray.is_initialized():
            (self.folder / f"met-{type(self).__name__}").write_text(ray.get_runtime_context().get_node_id())
            until = time.monotonic() + 60
            while len(list(self.folder.glob("met-*"))) < 2 and time.monotonic() < until:
                time.sleep(0.01)
        deaths = self.folder / f"deaths-{type(self).__name__}"
        if self.num_timesteps == 4 and len(list(self.folder.glob(deaths.name + "-*"))) < self.kills:
            deaths.with_name(f"{deaths.name}-{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(observation, state, episode_start, deterministic)


class DiesOnce(Meets):
    kills = 1


class DiesTwice(Meets):
    kills = 2


class Raises(Meets):
    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        raise RuntimeError("on purpose")


class Judged(Meets):
    folder = Meets.folder / "bench"


class JudgedAndDies(Judged):
    kills = 1
'''


class Nodes(NamedTuple):
    """A cluster's address, and the folder in which its nodes find agents."""

    address: str
    folder: Path


OnRay = tuple[Path, list[FailedRun], dict[str, int]]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A cluster of two nodes of one core each."""
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="the package 'ray' is not installed")
    folder = tmp_path_factory.mktemp("ray")
    (folder / "own_agents_on_ray.py").write_text(OWN_AGENTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(folder), prepend=":")
        patch.syspath_prepend(folder)
        node = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20}
        cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=node)
        try:
            cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
            yield Nodes(cluster.address, folder)
        finally:
            cluster.shutdown()


@pytest.fixture(scope="module")
def runs(nodes: Nodes) -> OnRay:
    """Four runs on the cluster: (folder of the agents, failed ones, windows reported by run)."""
    windows: dict[str, int] = {}

    def report(progress: Progress) -> None:
        windows[progress.spec.folder.name] = windows.get(progress.spec.folder.name, 0) + progress.num_windows

    settings = RaySettings(nodes.address, retries=1)
    failed = execute_on_ray(plan(nodes.folder / "runs"), settings, checkpoint_every=1, report=report)
    return nodes.folder, failed, windows


def plan(out: Path) -> list[RunSpec]:
    agents = [f"own_agents_on_ray:{name}" for name in ("Meets", "DiesOnce", "DiesTwice", "Raises")]
    return plan_runs("ATESD-Toy-v0", preset("ATESD-Toy-v0", windows=8), agents, [0], out)


def folder_of(folder: Path, name: str) -> Path:
    (found,) = (path for path in (folder / "runs").iterdir() if name in path.name)
    return found


def test_both_nodes_work(runs: OnRay) -> None:
    nodes = {(runs[0] / f"met-{name}").read_text() for name in ("Meets", "DiesOnce")}

    assert len(nodes) == 2


@pytest.mark.parametrize("name", ["Meets", "DiesOnce"])
def test_run_is_that_of_one_process_even_after_its_worker_was_killed(runs: OnRay, tmp_path: Path, name: str):
    spec = next(spec for spec in plan(tmp_path) if name in str(spec.agent))
    execute(spec)
    there = folder_of(runs[0], name)

    assert len(list(runs[0].glob(f"deaths-{name}-*"))) == (name == "DiesOnce")
    assert rows_without_times(there) == rows_without_times(spec.folder)
    assert len(rows_of(there)) == 8
    assert json.loads((there / "config.json").read_text()) == json.loads((spec.folder / "config.json").read_text())
    assert not (there / "checkpoints").exists()
    assert runs[2][there.name] == 8


def test_run_goes_on_at_its_checkpoint(runs: OnRay) -> None:
    decisions = (runs[0] / "decisions-DiesOnce").read_text().split()

    assert decisions[:9] == ["0", "1", "2", "3", "4", "4", "5", "6", "7"]


def test_failures_are_reported_and_leave_the_others_alone(runs: OnRay) -> None:
    reasons = {str(failure.spec.agent).rpartition(":")[2]: failure for failure in runs[1]}

    assert set(reasons) == {"DiesTwice", "Raises"}
    assert "died 2 times" in reasons["DiesTwice"].reason
    assert "on purpose" in reasons["Raises"].details
    assert len(rows_of(folder_of(runs[0], "DiesTwice"))) == 4
    assert not list((runs[0] / "runs").glob(".shared-*"))


def test_the_bench_is_run_on_both_nodes_even_after_a_worker_was_killed(nodes: Nodes, monkeypatch: pytest.MonkeyPatch):
    """``atesd bench run --ray``: what comes out is what one process makes, and its folder can be scored."""
    bench = nodes.folder / "bench"
    bench.mkdir()
    monkeypatch.chdir(bench)
    toy_set(windows=6).save("mine.json")
    agents = tuple(f"own_agents_on_ray:{name}" for name in ("Judged", "JudgedAndDies"))
    where = ("--instances", "mine.json", "--split", "test", "--seeds", "20000", "--out", "out", "--quiet")
    main(["bench", "run", "--agent", *agents, *where, "--ray", nodes.address, "--ray-retries", "1"])
    assert len({(bench / f"met-{name}").read_text() for name in ("Judged", "JudgedAndDies")}) == 2
    assert len(list(bench.glob("deaths-JudgedAndDies-*"))) == 1
    for spec in plan_bench("mine.json", "test", agents, [20_000], bench / "alone"):
        execute(spec)
        assert rows_without_times(bench / "out" / spec.folder.relative_to(bench / "alone")) == rows_without_times(
            spec.folder
        )
    assert missing_runs(bench / "out") == []


def test_files_come_back_from_a_machine_that_does_not_see_the_folder(tmp_path: Path) -> None:
    (spec,) = plan_runs("ATESD-Toy-v0", preset("ATESD-Toy-v0", windows=3), ["fixed:0.5"], [0], tmp_path / "far")
    reason, details, files = _run(
        spec, {"overwrite": False, "resume": False}, str(tmp_path / "no-such-mark"), os.getcwd()
    )

    assert (reason, details) == ("", "")
    assert not spec.folder.exists()
    _write(spec.folder, files)
    execute(spec, resume=True)  # finished: is left as it is, and only where config.json names this run
    assert len(rows_of(spec.folder)) == 3


def test_resources_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="more than 0 cores"):
        RaySettings(cpus=0)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--ray"], ["--ray", ""]),
        (["--ray", "--quiet"], ["--ray", "", "--quiet"]),
        (["--ray", "auto"], ["--ray", "auto"]),
        (["--seeds", "0"], ["--seeds", "0"]),
    ],
)
def test_ray_may_stand_without_an_address(arguments: list[str], expected: list[str]) -> None:
    assert with_ray_value(arguments) == expected
