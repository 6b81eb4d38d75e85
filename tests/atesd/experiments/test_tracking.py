"""What trackers hear, and that one that fails never costs a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from analysis import load_runs
from atesd.experiments.run import execute
from atesd.experiments.specs import RunSpec, plan_runs
from atesd.experiments.tracking import tracker
from atesd_env.config import preset
from atesd_env.errors import AtesdError, ConfigError, RunFilesError
from tests.programs import ran

WINDOWS = 4


class Heard:
    """Notes what it hears; fails in a window of choice."""

    def __init__(self, fail_in: int | str = 0) -> None:
        self.fail_in = fail_in
        self.began: list[Mapping[str, Any]] = []
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.num_finished = 0

    def begin(self, folder: Path, description: Mapping[str, Any]) -> None:
        if self.fail_in == "begin":
            raise OSError("no network")
        self.began.append(description)

    def log(self, window: int, values: Mapping[str, float]) -> None:
        if window == self.fail_in:
            raise OSError("no network")
        self.rows.append((window, dict(values)))

    def finish(self) -> None:
        self.num_finished += 1
        if self.fail_in == "finish":
            raise OSError("no network")


@pytest.fixture
def spec(tmp_path: Path) -> RunSpec:
    return plan_runs("ATESD-Toy-v0", preset("ATESD-Toy-v0", windows=WINDOWS), ["beta"], [0], tmp_path / "runs")[0]


def test_a_tracker_hears_every_number_of_every_row(spec: RunSpec):
    heard = Heard()
    execute(spec, track=[lambda: heard])
    (description,) = heard.began
    assert (description["env_id"], description["agent"], description["seed"]) == ("ATESD-Toy-v0", "beta", 0)
    assert description["config"]["windows"] == WINDOWS
    frame = load_runs(spec.folder)
    assert [window for window, _ in heard.rows] == frame["window"].tolist()
    for (_, values), (_, row) in zip(heard.rows, frame.iterrows(), strict=True):
        told_elsewhere = ["run", "env_id", "agent", "seed", "window", "run_status", "version", "status", "reason"]
        told_elsewhere += ["configuration", "configuration_differs"]
        assert values == row.drop(told_elsewhere, errors="ignore").dropna().to_dict()
    assert "agent/c1" in heard.rows[0][1]
    assert heard.num_finished == 1


@pytest.mark.parametrize("fail_in", ["begin", 2, "finish"])
def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(
    spec: RunSpec, fail_in: int | str, caplog: pytest.LogCaptureFixture
):
    broken, sound = Heard(fail_in), Heard()
    execute(spec, track=[lambda: broken, lambda: sound])
    assert len(load_runs(spec.folder)) == WINDOWS
    assert [window for window, _ in sound.rows] == [1, 2, 3, 4]
    assert sound.num_finished == 1
    assert [window for window, _ in broken.rows] == {"begin": [], 2: [1], "finish": [1, 2, 3, 4]}[fail_in]
    (record,) = caplog.records
    assert "Heard is left out from here (OSError: no network)" in record.getMessage()


def test_a_run_that_goes_on_is_whole_to_its_tracker(spec: RunSpec):
    def stop_after_two(info: dict[str, Any]) -> None:
        if info["window"] == 2:
            raise AtesdError("stopped")

    first, second = Heard(), Heard()
    with pytest.raises(AtesdError):
        execute(spec, checkpoint_every=1, report=stop_after_two, track=[lambda: first])
    assert first.num_finished == 1
    execute(spec, resume=True, checkpoint_every=1, track=[lambda: second])
    assert [window for window, _ in second.rows] == [1, 2, 3, 4]


def test_unknown_and_missing_trackers_are_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="expected one of tensorboard, wandb"):
        tracker("nothing")
    monkeypatch.setattr("atesd.experiments.tracking.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        tracker("wandb")


def test_tensorboard_reads_the_events_that_were_written(spec: RunSpec):
    pytest.importorskip("tensorboard", reason="the package tensorboard is missing")
    execute(spec, track=[tracker("tensorboard")])
    execute(spec, overwrite=True, track=[tracker("tensorboard")])  # a replaced run leaves no events behind
    # In a process of its own: TensorBoard's reader warns of its dependencies' ways, which are not ours.
    script = (
        "import sys; from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n"
        "events = EventAccumulator(sys.argv[1]); events.Reload()\n"
        "print([(event.step, round(event.value, 4)) for event in events.Scalars('probe/nll')])"
    )
    result = ran(sys.executable, "-c", script, spec.folder / "tensorboard")
    assert result.returncode == 0, result.stderr
    rows = load_runs(spec.folder)
    expected = [(int(row["window"]), round(float(row["probe/nll"]), 4)) for _, row in rows.iterrows()]
    assert result.stdout.strip().splitlines()[-1] == str(expected)
    assert len(list((spec.folder / "tensorboard").iterdir())) == 1


def interrupted_once(spec: RunSpec, name: str) -> None:
    """A run with a tracker that is stopped after two windows, and goes on."""

    def stop_after_two(info: dict[str, Any]) -> None:
        if info["window"] == 2:
            raise AtesdError("stopped")

    with pytest.raises(AtesdError):
        execute(spec, checkpoint_every=1, report=stop_after_two, track=[tracker(name)])
    execute(spec, resume=True, checkpoint_every=1, track=[tracker(name)])


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_run_that_goes_on_is_the_same_run_there(name: str, spec: RunSpec, monkeypatch: pytest.MonkeyPatch):
    """Each window is told once, in order, and a run that takes its place is another one."""
    begun: list[dict[str, Any]] = []
    told: list[int] = []

    class Library(ModuleType):
        def init(self, **options: Any) -> Any:
            begun.append({key: options[key] for key in ("id", "resume") if key in options})
            run_id = options.get("id") or f"run{len(begun)}"
            return SimpleNamespace(id=run_id, log=lambda _, step: told.append(step), finish=lambda: None)

    library = Library(name)
    library.__spec__ = ModuleSpec(name, None)
    monkeypatch.setitem(sys.modules, name, library)
    interrupted_once(spec, name)
    assert begun == [{}, {"resume": "allow"} | ({"id": "run1"} if name == "wandb" else {})]
    assert told == [1, 2, 3, 4]
    execute(spec, overwrite=True, track=[tracker(name)])
    assert begun[2:] == [{}]
    assert told[4:] == [1, 2, 3, 4]


@pytest.mark.parametrize("content", ["", "[]", '{"id": "x"}', '{"id": "x", "window": "many"}', "[" * 200])
def test_a_spoilt_note_of_a_trackers_run_is_named(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    library = ModuleType("wandb")
    library.__spec__ = ModuleSpec("wandb", None)
    monkeypatch.setitem(sys.modules, "wandb", library)
    (tmp_path / "wandb.json").write_text(content)
    with pytest.raises(RunFilesError, match=r"wandb\.json: expected a tracker's run, got .*delete it"):
        tracker("wandb")().begin(tmp_path, {})


def test_weights_and_biases_keeps_one_run_on_the_disk_when_offline(tmp_path: Path):
    pytest.importorskip("wandb", reason="the package wandb is missing")
    # In a process of its own, since wandb starts a service.
    script = (
        "from pathlib import Path\n"
        "from atesd.experiments.specs import plan_runs\n"
        "from atesd_env.config import preset\n"
        "from tests.atesd.experiments.test_tracking import interrupted_once\n"
        "config = preset('ATESD-Toy-v0', windows=4)\n"
        "interrupted_once(plan_runs('ATESD-Toy-v0', config, ['random'], [0], Path('runs'))[0], 'wandb')"
    )
    environment = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path)}
    result = ran(sys.executable, "-c", script, cwd=tmp_path, **environment)
    assert result.returncode == 0, result.stderr
    assert "left out" not in result.stderr
    run = tmp_path / "runs" / "random-seed0"
    stored = [*(run / "wandb").glob("offline-run-*/*.wandb")]
    assert len(stored) in (1, 2), "parts that begin in one second share a folder"
    assert {path.stem for path in stored} == {f"run-{json.loads((run / 'wandb.json').read_text())['id']}"}
    assert b"probe/nll" in stored[0].read_bytes()
