"""Running agents on environments, in this process; the console command is tested end to end in tests/e2e."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.beta import BetaController
from agents.schedules import FixedSchedule, RandomSchedule
from analysis import load_runs
from atesd.experiments.resuming import CHECKPOINT_FOLDER
from atesd.experiments.run import execute
from atesd.experiments.specs import RunSpec, plan_runs
from atesd_env.config import ToyConfig, preset
from atesd_env.errors import AgentError, AtesdError, ConfigError, RunFilesError
from atesd_env.simulated.toy import ToyExposureEnv
from tests.atesd_env.bench.sets import toy_set
from tests.runs import rows_of, rows_without_times

TOY = preset("ATESD-Toy-v0", windows=3)


def toy_run(folder: Path, config: ToyConfig = TOY) -> RunSpec:
    return RunSpec("ATESD-Toy-v0", config, "random", seed=0, folder=folder)


def test_an_overwritten_run_that_dies_keeps_nothing_of_the_old_one(tmp_path: Path):
    execute(toy_run(tmp_path / "run"))
    assert (tmp_path / "run" / "agent.safetensors").exists()
    (tmp_path / "run" / "notes.txt").write_text("the user's own")

    def die(_info: dict[str, object]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(toy_run(tmp_path / "run"), overwrite=True, report=die)
    assert not (tmp_path / "run" / "agent.safetensors").exists()
    assert (tmp_path / "run" / "notes.txt").read_text() == "the user's own"


def test_runs_of_one_seed_stand_together(tmp_path: Path):
    agents = ["fixed:0.5", "random"]
    specs = plan_runs("ATESD-Toy-v0", TOY, agents, [3, 4], tmp_path)
    assert [(spec.agent, spec.seed) for spec in specs] == [(name, seed) for seed in (3, 4) for name in agents]
    assert specs[0].folder == tmp_path / "fixed-0.5-seed3"


def test_a_misspelt_agent_is_found_before_anything_runs(tmp_path: Path):
    with pytest.raises(ConfigError, match="linaer"):
        plan_runs("ATESD-Toy-v0", TOY, ["random", "linaer:0:1"], [0], tmp_path)


def test_an_agent_named_twice_is_refused(tmp_path: Path):
    with pytest.raises(AtesdError, match="each agent and each seed once"):
        plan_runs("ATESD-Toy-v0", TOY, ["random", "random"], [0], tmp_path)


def files_of(folder: Path) -> dict[str, bytes]:
    """A run's files; of the trajectory what does not tell how long something took."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    return files | {"trajectory.jsonl": json.dumps(rows_without_times(folder)).encode()}


def windows_of(folder: Path) -> list[int]:
    return [row["window"] for row in rows_of(folder)]


class Base:
    """An agent that only decides, and counts its decisions."""

    def __init__(self, env: Any, seed: int = 0) -> None:
        self.num_decisions = 0

    third: Any = (0.5,)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        self.num_decisions += 1
        return self.third if self.num_decisions == 3 else [0.5], state


class OutOfRange(Base):
    third = np.array([1.2])


class NotANumber(Base):
    third = np.array([np.nan])


class WrongShape(Base):
    third = np.zeros((2, 2))


class Raising(Base):
    @property
    def third(self) -> Any:
        raise ZeroDivisionError("a mistake of the user's")


class RaisingInObserve(RandomSchedule):
    def observe(self, transition: Any) -> None:
        if transition.info["window"] == 2:
            raise ZeroDivisionError("a mistake of the user's")


class RaisingInDiagnostics(RandomSchedule):
    def diagnostics(self) -> dict[str, float]:
        if self.num_timesteps == 1:
            raise ZeroDivisionError("a mistake of the user's")
        return {"number": 1.0}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (OutOfRange, r"OutOfRange', window 3: its decision cannot be used.*got 1\.2 for group 0"),
        (NotANumber, r"NotANumber', window 3: .*got nan for group 0"),
        (WrongShape, r"WrongShape', window 3: .*expected shape \(1,\).*got \(2, 2\)"),
        (
            Raising,
            r"Raising': expected it to go on after window 2, but it raised ZeroDivisionError: a mistake.*in third\)",
        ),
        (RaisingInObserve, r"after window 2, but it raised ZeroDivisionError.*The rows of 2 windows are in"),
        (RaisingInDiagnostics, r"after window 2, but it raised ZeroDivisionError"),
    ],
)
def test_a_failing_agent_is_named_and_the_rows_are_whole(tmp_path: Path, kind: Any, message: str):
    (spec,) = plan_runs("ATESD-Toy-v0", TOY.replace(windows=5), [kind], [0], tmp_path)
    with pytest.raises(AgentError, match=message):
        execute(spec)
    assert windows_of(spec.folder) == [1, 2]
    assert len(load_runs(tmp_path)) == 2


def test_a_nan_in_the_environments_reward_stops_the_run_after_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    step = ToyExposureEnv.step

    def spoilt_step(self: Any, action: Any) -> Any:
        observation, reward, *rest = step(self, action)
        return observation, float("nan") if rest[-1]["window"] == 2 else reward, *rest

    monkeypatch.setattr(ToyExposureEnv, "step", spoilt_step)
    (spec,) = plan_runs("ATESD-Toy-v0", TOY.replace(windows=5), ["beta"], [0], tmp_path)
    with pytest.raises(AtesdError, match="reward of window 2: expected a finite number, got nan"):
        execute(spec)
    assert windows_of(spec.folder) == [1, 2]


class EarlyBack(RandomSchedule):
    def learn(self, total_timesteps: int, *arguments: Any, **options: Any) -> Any:
        return super().learn(2, *arguments, **options)


class LearnsNothing:
    """A class of the user's own whose ``learn`` is there for the contract alone."""

    def __init__(self, env: Any, seed: int = 0) -> None:
        pass

    def learn(self, total_timesteps: int, callback: Any = None) -> None:
        pass

    def predict(self, observation: Any, **_: Any) -> tuple[Any, None]:
        return np.array([0.25], dtype=np.float32), None


def test_an_agent_that_does_not_make_the_windows_is_named(tmp_path: Path):
    (early,) = plan_runs("ATESD-Toy-v0", TOY, [EarlyBack], [0], tmp_path)
    with pytest.raises(AgentError, match=r"expected learn\(3\) to make 3 windows, but it came back after 2"):
        execute(early)


def test_a_class_whose_learn_makes_no_window_is_played_by_its_predict(tmp_path: Path):
    (spec,) = plan_runs("ATESD-Toy-v0", TOY, [LearnsNothing], [0], tmp_path)
    execute(spec)
    assert [row["exposure/reveal_ratio"] for row in rows_of(spec.folder)] == [0.25] * 3


def test_an_agent_that_cannot_be_made_leaves_an_old_run_as_it_is(tmp_path: Path):
    FixedSchedule(ToyExposureEnv(groups=3)).save(tmp_path / "other.safetensors")
    execute(toy_run(tmp_path / "run"))
    before = files_of(tmp_path / "run")
    for agent, error in ((tmp_path / "other.safetensors", ConfigError), (tmp_path / "cut.safetensors", RunFilesError)):
        (tmp_path / "cut.safetensors").write_bytes(b"\x10")
        with pytest.raises(error):
            execute(RunSpec("ATESD-Toy-v0", TOY, agent, 0, tmp_path / "run"), overwrite=True)
        assert files_of(tmp_path / "run") == before
        with pytest.raises(error):
            execute(RunSpec("ATESD-Toy-v0", TOY, agent, 0, tmp_path / "new"))
        assert not (tmp_path / "new" / "config.json").exists(), "the next try finds no half run in its way"


class Curious(Base):
    """Tries the environment out before its run begins."""

    def __init__(self, env: Any, seed: int = 0) -> None:
        super().__init__(env)
        env.reset(seed=99)
        env.step([0.9])


def test_what_an_agent_does_while_it_is_made_is_no_window_of_the_run(tmp_path: Path):
    curious, plain = plan_runs("ATESD-Toy-v0", TOY, [Curious, Base], [0], tmp_path)
    for spec in (curious, plain):
        execute(spec)
    assert files_of(curious.folder)["trajectory.jsonl"] == files_of(plain.folder)["trajectory.jsonl"]


def test_a_run_that_fails_lets_go_of_its_environment_and_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    closed: list[Any] = []
    monkeypatch.setattr(ToyExposureEnv, "close", lambda self: closed.append(self))
    (spec,) = plan_runs("ATESD-Toy-v0", TOY, [Raising], [0], tmp_path)
    for _ in range(2):
        with pytest.raises(AgentError):
            execute(spec, overwrite=True)
    assert len(closed) == 2


def test_classes_and_objects_run_like_specs(tmp_path: Path):
    agents: list[Any] = ["beta", BetaController, FixedSchedule(ToyExposureEnv(), seed=9, ratio=0.25), Base(None)]
    specs = plan_runs("ATESD-Toy-v0", TOY, agents, [2], tmp_path)
    for spec in specs:
        execute(spec)
    names = [spec.folder.name for spec in specs]
    assert names == [
        "beta-seed2",
        "agents.beta-BetaController-seed2",
        "agents.schedules-FixedSchedule-seed2",
        f"{Base.__module__}-Base-seed2",
    ]
    frame = load_runs(tmp_path)
    ratios = {run: rows["exposure/reveal_ratio"].tolist() for run, rows in frame.groupby("run", observed=True)}
    assert ratios[names[0]] == ratios[names[1]]
    assert ratios[names[2]] == [0.25] * 3
    assert json.loads((specs[2].folder / "config.json").read_text())["agent"] == "agents.schedules:FixedSchedule"
    first = frame.groupby("run", observed=True)["probe/nll"].first()
    assert first[names[2]] != first[names[3]], "other ratios"
    assert ratios[names[3]] == [0.5] * 3


def test_an_objects_run_has_the_runs_seed(tmp_path: Path):
    made, asked = RandomSchedule(ToyExposureEnv(), seed=9), "random"
    for agent in (made, asked):
        execute(RunSpec("ATESD-Toy-v0", TOY, agent, seed=4, folder=tmp_path / str(agent == asked)))
    made, asked = ([row["probe/nll"] for row in rows_of(tmp_path / name)] for name in ("True", "False"))
    assert made == asked


def test_an_object_that_learns_is_for_one_run(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"expected one seed with an object that learns, got \[0, 1\]"):
        plan_runs("ATESD-Toy-v0", TOY, [RandomSchedule(ToyExposureEnv())], [0, 1], tmp_path)
    assert len(plan_runs("ATESD-Toy-v0", TOY, [Base(None)], [0, 1], tmp_path)) == 2


def test_an_object_for_other_groups_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"expected one for 1 group\(s\).*got one for 3"):
        execute(RunSpec("ATESD-Toy-v0", TOY, RandomSchedule(ToyExposureEnv(groups=3)), 0, tmp_path))


@pytest.fixture
def pressed_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Presses Ctrl-C in the middle of a window, before anything of it is written."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    step = ToyExposureEnv.step

    def press_in(window: int) -> None:
        def pressing_step(self: Any, action: Any) -> Any:
            if len(self.snapshot().rows) == window - 1:
                os.kill(os.getpid(), signal.SIGINT)
            return step(self, action)

        monkeypatch.setattr(ToyExposureEnv, "step", pressing_step)

    yield press_in
    monkeypatch.undo()
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("agent", ["beta", "feedback"])
def test_ctrl_c_finishes_the_window_saves_and_goes_on_bit_for_bit(tmp_path: Path, pressed_in: Any, agent: str):
    config = TOY.replace(windows=30)
    (alone,) = plan_runs("ATESD-Toy-v0", config, [agent], [0], tmp_path / "alone")
    (stopped,) = plan_runs("ATESD-Toy-v0", config, [agent], [0], tmp_path / "stopped")
    execute(alone)
    pressed_in(17)
    with pytest.raises(
        KeyboardInterrupt, match="saved its agent and its checkpoint, to go on from, after window 17 of 30"
    ):
        execute(stopped, checkpoint_every=1000)
    assert windows_of(stopped.folder) == list(range(1, 18))
    assert [path.name for path in (stopped.folder / CHECKPOINT_FOLDER).iterdir()] == ["window-000017.safetensors"]
    assert (stopped.folder / "agent.safetensors").exists()
    pressed_in(1000)
    made: list[int] = []
    execute(stopped, resume=True, report=lambda info: made.append(info["window"]))
    assert made == list(range(1, 31))
    assert files_of(alone.folder) == files_of(stopped.folder)


def test_ctrl_c_in_the_last_window_completes_the_run(tmp_path: Path, pressed_in: Any):
    (spec,) = plan_runs("ATESD-Toy-v0", TOY, ["beta"], [0], tmp_path)
    pressed_in(3)
    with pytest.raises(KeyboardInterrupt, match="this run is complete"):
        execute(spec)
    assert windows_of(spec.folder) == [1, 2, 3]
    assert not (spec.folder / CHECKPOINT_FOLDER).exists()


def test_ctrl_c_with_an_agent_that_only_decides_keeps_the_rows(tmp_path: Path, pressed_in: Any):
    (spec,) = plan_runs("ATESD-Toy-v0", TOY, [Base], [0], tmp_path)
    pressed_in(2)
    with pytest.raises(KeyboardInterrupt, match="saved its checkpoint, to go on from, after window 2 of 3"):
        execute(spec)
    assert windows_of(spec.folder) == [1, 2]


def test_runs_in_another_thread_leave_ctrl_c_alone(tmp_path: Path):
    thread = threading.Thread(target=execute, args=(toy_run(tmp_path / "run"),))
    thread.start()
    thread.join()
    assert windows_of(tmp_path / "run") == [1, 2, 3]


def test_a_run_of_the_bench_has_the_windows_of_the_instance_that_its_seed_draws(tmp_path: Path):
    toy_set().save(tmp_path / "mine.json")
    config = preset("ATESD-Bench-v0", instances=str(tmp_path / "mine.json"), order="round-robin")
    specs = plan_runs("ATESD-Bench-v0", config, ["fixed:1"], [0, 1, 3], tmp_path)
    assert [spec.config.windows for spec in specs] == [3, 4, 3], "of low, high and low again"
    with pytest.raises(ConfigError, match="seed: expected one of the split 'train', 0 to 9999, got 20000"):
        plan_runs("ATESD-Bench-v0", config, ["fixed:1"], [0, 20_000], tmp_path)
