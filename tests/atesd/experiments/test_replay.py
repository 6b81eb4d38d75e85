"""Runs of agents that cannot tell their state go on as if nothing had happened: they are shown the recorded windows again."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atesd.experiments.replay import ReplayedEnv
from atesd.experiments.resuming import CHECKPOINT_FOLDER, RunCheckpoints
from atesd.experiments.run import execute
from atesd.experiments.specs import RunSpec, plan_runs
from atesd_env.config import preset
from atesd_env.errors import AgentError, RunFilesError
from atesd_env.files.run_folder import RunWriter
from atesd_env.simulated.toy import ToyExposureEnv

CONFIG = preset("ATESD-Toy-v0", windows=24, toy_noise=0.1)


class StopError(Exception):
    """Stands for whatever ends a process."""


class Counting:
    """Passes a state of its own from decision to decision, and draws random numbers."""

    def __init__(self, env: Any, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)

    def predict(self, observation: Any, state: Any = None, **_: Any) -> tuple[Any, Any]:
        count = 0 if state is None else state
        ratio = (0.37 * count + 0.1 * float(np.tanh(observation).mean()) + 0.2 * self.rng.random()) % 1.0
        return np.asarray([ratio], dtype=np.float32), count + 1


class Unseeded(Counting):
    """Decides otherwise every time."""

    def __init__(self, env: Any, seed: int = 0) -> None:
        super().__init__(env, None)


def run(folder: Path, agent: Any) -> RunSpec:
    (spec,) = plan_runs("ATESD-Toy-v0", CONFIG, [agent], [3], folder)
    return spec


def execute_until(spec: RunSpec, window: int, **arguments: Any) -> None:
    """Executes a run that dies after a window's row is written and before the agent learns of the window."""

    def stop(info: dict[str, Any]) -> None:
        if info["window"] == window:
            raise StopError

    with pytest.raises(StopError):
        execute(spec, checkpoint_every=5, report=stop, **arguments)


def zip_members(path: Path) -> dict[str, Any]:
    """Returns the content of an agent's zip file (weights, optimizer, counters) without the time that it began at."""
    with zipfile.ZipFile(path) as archive:
        members: dict[str, Any] = {name: archive.read(name) for name in archive.namelist()}
    members["data"] = json.loads(members["data"])
    assert members["data"].pop("start_time") > 0
    return members


def final_files(folder: Path) -> dict[str, Any]:
    files: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        files[path.name] = path.read_bytes()
        if path.name == "trajectory.jsonl":
            rows = [json.loads(line) for line in files[path.name].splitlines()]
            files[path.name] = [{key: row[key] for key in row if not key.startswith("time/")} for row in rows]
        if path.suffix == ".zip":
            files[path.name] = zip_members(path)
    return files


@pytest.mark.parametrize(
    "agent",
    ["ppo:n_steps=7", "a2c", "dqn", "sac", "recurrent_ppo:n_steps=6", Counting],
    ids=lambda agent: str(agent)[:6],
)
def test_interrupted_twice_the_final_files_are_the_same(tmp_path: Path, agent: Any):
    alone, broken = run(tmp_path / "alone", agent), run(tmp_path / "broken", agent)
    execute(alone)
    execute_until(broken, 8)
    assert [path.stem for path in (broken.folder / CHECKPOINT_FOLDER).iterdir()] == ["window-000005"]
    execute_until(broken, 18, resume=True)
    made: list[int] = []
    execute(broken, resume=True, report=lambda info: made.append(info["window"]))
    assert made == list(range(1, 25))
    assert final_files(alone.folder) == final_files(broken.folder)
    assert not (broken.folder / CHECKPOINT_FOLDER).exists()


def test_the_student_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spec = run(tmp_path, "ppo:n_steps=7")
    execute_until(spec, 12)
    step, made = ToyExposureEnv.step, []

    def counted(self: Any, action: Any) -> Any:
        made.append(action)
        return step(self, action)

    monkeypatch.setattr(ToyExposureEnv, "step", counted)
    execute(spec, resume=True)
    assert len(made) == CONFIG.windows - 10, "the checkpoint stood after window 10"


def test_an_agent_that_decides_otherwise_is_found_out_and_its_rows_stay(tmp_path: Path):
    spec = run(tmp_path, Unseeded)
    execute_until(spec, 12)
    with pytest.raises(AgentError, match=r"'.*Unseeded', window 1: expected .* got .* --overwrite"):
        execute(spec, resume=True)
    assert len((spec.folder / "trajectory.jsonl").read_bytes().splitlines()) == 10
    execute(spec, overwrite=True)
    assert len((spec.folder / "trajectory.jsonl").read_bytes().splitlines()) == 24


def test_what_is_shown_again_cannot_be_changed_by_the_agent():
    env = ReplayedEnv(ToyExposureEnv(), "agent")
    first, _ = env.reset(seed=0)
    second, reward, *_ = env.step(np.asarray([0.5], dtype=np.float32))
    again = ReplayedEnv(ToyExposureEnv(), "agent")
    again.replay(env.arrays(), [{"window": 1}])
    assert again.is_replaying
    observation, _ = again.reset(seed=0)
    np.testing.assert_array_equal(observation, first)
    observation[:] = 7.0
    observation, same_reward, terminated, truncated, info = again.step(np.asarray([0.5], dtype=np.float32))
    np.testing.assert_array_equal(observation, second)
    observation[:] = 7.0
    assert (same_reward, terminated, truncated, info) == (reward, False, False, {"window": 1})
    assert not again.is_replaying
    np.testing.assert_array_equal(again.arrays()["replay/observations"], np.stack([first, second]))


def test_no_checkpoint_holds_half_of_what_an_agent_saw(tmp_path: Path):
    """As after a resumption by the agent's own state, if the agent then begins to pass a state on."""
    env, spec = ToyExposureEnv(), run(tmp_path, Counting)
    env.reset(seed=0)
    shown, agent = ReplayedEnv(env, "agent"), Counting(env)
    checkpoints = RunCheckpoints(spec.folder)
    with RunWriter(spec.folder, {"env_id": spec.env_id, "agent": "agent", "seed": 0, "config": spec.config}) as writer:
        checkpoints.begin()
        shown.step(np.asarray([0.5], dtype=np.float32))
        assert not checkpoints.write(1, env, agent, shown, writer)
        assert checkpoints.latest() is None
        shown = ReplayedEnv(env, "agent")
        shown.reset(seed=0)
        shown.step(np.asarray([0.5], dtype=np.float32))
        assert checkpoints.write(1, env, agent, shown, writer)
        assert checkpoints.latest() is not None


@pytest.mark.parametrize("name", ["observations", "rewards", "actions"])
def test_what_is_shown_again_are_numbers(name: str):
    env = ReplayedEnv(ToyExposureEnv(), "agent")
    env.reset(seed=0)
    *_, info = env.step(np.asarray([0.5], dtype=np.float32))
    arrays = env.arrays()
    env.replay(arrays, [info])
    with pytest.raises(RunFilesError, match=r"expected what an agent was shown, got .*not finite"):
        env.replay({**arrays, f"replay/{name}": arrays[f"replay/{name}"] + np.inf}, [info])
