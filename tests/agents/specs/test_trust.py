"""Zip agents hold pickles: nothing in one is carried out unless somebody says that the file is trusted, and never on resumption."""

from __future__ import annotations

import base64
import json
import zipfile
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import pytest
from stable_baselines3 import PPO

import agents
from agents.sb3.agent import SB3Agent, load_agent
from agents.sb3.state import restored_agent, state_arrays
from agents.specs.registry import label, resolve, trusted
from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.simulated.toy import ToyExposureEnv
from tests.programs import typed


class Trap:
    """What a stranger puts into a file: unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def armed(content: Path, mark: Path) -> None:
    """Puts a trap into a zip agent, in the place of its policy's class."""
    with zipfile.ZipFile(content) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(members["data"])
    data["policy_class"][":serialized:"] = base64.b64encode(cloudpickle.dumps(Trap(mark))).decode()
    members["data"] = json.dumps(data).encode()
    with zipfile.ZipFile(content, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "agent.zip"
    agents.make("ppo", ToyExposureEnv(windows=6), seed=0).save(path)
    return path


@pytest.fixture
def trapped(saved: Path, tmp_path: Path) -> Path:
    path = tmp_path / "stranger.zip"
    path.write_bytes(saved.read_bytes())
    armed(path, tmp_path / "ran")
    return path


def test_the_trap_works(trapped: Path, tmp_path: Path):
    with pytest.raises(RunFilesError):  # a path is no class of a policy
        load_agent(trapped, ToyExposureEnv(windows=6), trust=True)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("trust", [False, None, "true", 1])
def test_without_trust_nothing_runs(trapped: Path, tmp_path: Path, learn: bool, trust: Any):
    message = r"stranger\.zip: expected trust=true .*unpickled, which can run any code.*--trust-pickle"
    with pytest.raises(ConfigError, match=message):
        load_agent(trapped, ToyExposureEnv(windows=6), learn, trust=trust)
    with pytest.raises(ConfigError, match=message):
        agents.make(str(trapped), ToyExposureEnv(windows=6), learn=learn, trust=trust)
    with pytest.raises(ConfigError, match=message):
        SB3Agent.load(trapped, ToyExposureEnv(windows=6))
    with pytest.raises(ConfigError, match=message):
        resolve(str(trapped))
    assert not (tmp_path / "ran").exists()


def test_with_trust_it_decides(saved: Path):
    for agent in (
        agents.make(f"{saved}:trust=true", ToyExposureEnv()),
        agents.make(saved, ToyExposureEnv(), trust=True),
    ):
        assert agent.predict(ToyExposureEnv().reset(seed=0)[0], deterministic=True)[0].shape == (1,)


def test_an_agent_of_ours_needs_no_trust(tmp_path: Path):
    agents.make("beta", ToyExposureEnv(), seed=0).save(tmp_path / "beta.safetensors")
    assert agents.make(str(tmp_path / "beta.safetensors"), ToyExposureEnv())
    specs = ["beta", f"{tmp_path}/beta.safetensors", "fixed:0.5"]
    assert trusted(specs) == specs


def test_trust_is_no_part_of_an_agents_name():
    assert trusted(["a/b.zip", "b.zip:learn=true:trust=false"]) == ["a/b.zip:trust=true", "b.zip:learn=true:trust=true"]
    assert label("b.zip:trust=true:learn=true") == "b.zip:learn=true"


@pytest.mark.parametrize(
    "verb",
    [
        ["run", "--env", "ATESD-Toy-v0", "--windows", "6", "--agent"],
        ["compare", "--env", "ATESD-Toy-v0", "--windows", "6", "--agent", "fixed:1"],
        ["train", "--env", "ATESD-Toy-v0", "--windows", "6", "--total-windows", "12", "--agent"],
    ],
)
def test_every_verb_refuses_before_anything_is_made(verb: list[str], trapped: Path, tmp_path: Path):
    spec = f"{trapped}:learn=true" if verb[0] == "train" else str(trapped)
    result = typed(*verb, spec, "--out", tmp_path / "out")
    assert result.returncode == 2, result.stderr
    assert "expected trust=true" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "ran").exists()
    assert not [path for path in tmp_path.glob("out/**/*") if path.name != ".lock" and path.is_file()]


def test_a_zip_of_stable_baselines_own_is_called_what_it_is(tmp_path: Path):
    PPO("MlpPolicy", ToyExposureEnv(windows=10), n_steps=10, batch_size=10).save(tmp_path / "raw.zip")
    for trust in (True, False):
        with pytest.raises(
            RunFilesError, match=r"raw\.zip: expected an agent that .* wrote, got a zip without atesd\.json"
        ) as caught:
            load_agent(tmp_path / "raw.zip", ToyExposureEnv(), trust=trust)
        assert "cut short" not in str(caught.value)


def test_an_interrupted_training_goes_on_without_unpickling(tmp_path: Path):
    env = gymnasium.make_vec("ATESD-Toy-v0", num_envs=2, windows=6)
    beginning = agents.make("ppo", env, seed=0)
    arrays = state_arrays(beginning)
    path = tmp_path / "in the checkpoint.zip"
    path.write_bytes(arrays["zip"].tobytes())
    armed(path, tmp_path / "ran")
    arrays["zip"] = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    again = restored_agent(arrays, beginning, "checkpoint")
    assert not (tmp_path / "ran").exists()
    assert type(again.algorithm.policy) is type(beginning.algorithm.policy)


@pytest.mark.parametrize(
    ("member", "content"),
    [
        ("atesd.json", b"[]"),
        ("atesd.json", b"[" * 100_000),
        ("atesd.json", b'{"agent": 1, "groups": "x", "grid": [], "feature_names": 3, "seed": null}'),
        ("data", b"[" * 100_000),
        ("data", b"[1]"),
        ("data", b'{"policy_class": {":serialized:": 3}}'),
        ("data", b'{"policy_class": {":serialized:": "%%%"}}'),
        ("policy.pth", b"no weights"),
    ],
)
def test_odd_members_are_our_errors(member: str, content: bytes, saved: Path, tmp_path: Path):
    with zipfile.ZipFile(saved) as archive, zipfile.ZipFile(tmp_path / "odd.zip", "w") as odd:
        for name in archive.namelist():
            odd.writestr(name, content if name == member else archive.read(name))
    with pytest.raises((RunFilesError, ConfigError), match=r"odd\.zip: expected"):
        load_agent(tmp_path / "odd.zip", ToyExposureEnv(windows=6), trust=True)


def test_a_zip_that_unpacks_without_end_is_refused(saved: Path, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb:
        bomb.writestr("atesd.json", "{}")
        with bomb.open("zeros", "w") as member:
            for _ in range(1025):
                member.write(bytes(2**20))
    with pytest.raises(RunFilesError, match="unpacks to more than"):
        load_agent(tmp_path / "bomb.zip", ToyExposureEnv(), trust=True)
