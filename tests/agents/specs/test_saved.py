"""Saved agents: what a file may do, and what is answered where it is not whole or does not fit."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from agents import make
from agents.base import Agent, AgentProtocol
from agents.beta import BetaController
from agents.schedules import FixedSchedule
from agents.specs.registry import resolve
from agents.specs.saved import Frozen
from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.simulated.toy import ToyExposureEnv
from tests.agents.playing import actions_of

BEFORE = Path(__file__).parents[2] / "data" / "before_rooms"
"""Agents for ATESD-Toy-v0 that were saved when every file of this package lay flat, and what they decide at ``RISING``."""
RISING = np.linspace(0.0, 1.0, ToyExposureEnv().observation_space.shape[0], dtype=np.float32)

OWN_MODULE = """
from agents.schedules import LinearSchedule

class Falling(LinearSchedule):
    pass

class Other:
    pass
"""


def file_of(path: Path, class_name: str, **options: Any) -> Path:
    """Writes a file as an agent of this class would have."""
    FixedSchedule(ToyExposureEnv()).save(path)
    _, description = FixedSchedule(ToyExposureEnv()).state()
    save_file({}, path, metadata={"agent": json.dumps({**description, "class": class_name, "options": options})})
    return path


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that can be imported and has not been; importing it is noticed in sys.modules."""
    (tmp_path / "own_saved_agents_for_test.py").write_text(OWN_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_saved_agents_for_test", raising=False)
    return "own_saved_agents_for_test"


def test_a_file_is_a_spec_and_keeps_what_was_learned(tmp_path: Path):
    agent = BetaController(ToyExposureEnv(), seed=1).learn(60)
    agent.save(tmp_path / "agent.safetensors")
    loaded = make(tmp_path / "agent.safetensors", ToyExposureEnv(), seed=7, learn=True)
    assert isinstance(loaded, BetaController)
    observation = agent.last_observation
    np.testing.assert_array_equal(
        loaded.predict(observation, deterministic=True)[0], agent.predict(observation, deterministic=True)[0]
    )
    assert loaded.num_updates == agent.num_updates > 0
    loaded.learn(20)
    assert loaded.num_updates > agent.num_updates


def test_a_loaded_agents_new_run_has_the_seed_that_is_asked_for(tmp_path: Path):
    make("random", ToyExposureEnv(), seed=1).learn(5).save(tmp_path / "agent.safetensors")
    env = ToyExposureEnv()
    loaded = make(f"{tmp_path / 'agent.safetensors'}:learn=true", env, seed=7)
    np.testing.assert_array_equal(actions_of(loaded, 5), actions_of(make("random", ToyExposureEnv(), seed=7), 5))
    assert env.snapshot().seed == 7


def test_without_learn_it_only_decides(tmp_path: Path):
    agent = BetaController(ToyExposureEnv(), seed=1).learn(60)
    agent.save(tmp_path / "agent.safetensors")
    frozen = make(tmp_path / "agent.safetensors", ToyExposureEnv())
    assert isinstance(frozen, Frozen)
    assert isinstance(frozen, AgentProtocol)
    assert not hasattr(frozen, "learn")
    observation = agent.last_observation
    expected = agent.predict(observation, deterministic=True)[0]
    assert frozen.predict(observation)[0] == frozen.predict(observation)[0] == expected
    random = make(f"{tmp_path / 'agent.safetensors'}:deterministic=false", ToyExposureEnv())
    assert random.predict(observation)[0] != random.predict(observation)[0]


def test_a_file_does_not_choose_what_is_imported(tmp_path: Path, own_module: str):
    path = file_of(tmp_path / "stranger.safetensors", f"{own_module}.Falling", start=1.0, end=0.5)
    with pytest.raises(ConfigError, match=re.escape(f"{path}:agent_class={own_module}:Falling")):
        make(path, ToyExposureEnv())
    assert own_module not in sys.modules, "refusing it must not import it"
    trusted = make(f"{path}:agent_class={own_module}:Falling:learn=true", ToyExposureEnv())
    assert (type(trusted).__name__, trusted.end) == ("Falling", 0.5)


def test_a_class_that_is_imported_already_needs_no_naming(tmp_path: Path, own_module: str):
    path = file_of(tmp_path / "mine.safetensors", f"{own_module}.Falling", start=1.0, end=0.5)
    kind, _ = resolve(f"{own_module}:Falling")
    assert type(make(path, ToyExposureEnv(), learn=True)) is kind
    assert type(make(path, ToyExposureEnv(), learn=True, agent_class=kind)) is kind


def test_a_file_that_a_script_saved_is_loaded_with_the_scripts_module(tmp_path: Path, own_module: str):
    path = file_of(tmp_path / "mine.safetensors", "__main__.Falling", start=1.0, end=0.5)
    with pytest.raises(ConfigError, match=r"name it: .*agent_class=__main__:Falling"):
        make(path, ToyExposureEnv())
    assert make(f"{path}:agent_class={own_module}:Falling:learn=true", ToyExposureEnv()).end == 0.5
    with pytest.raises(ConfigError, match=r"expected an agent of class agents\.schedules\.FixedSchedule, got __main__"):
        make(path, ToyExposureEnv(), agent_class=FixedSchedule)


def test_the_class_of_an_installed_package_may_be_imported(
    tmp_path: Path, own_module: str, monkeypatch: pytest.MonkeyPatch
):
    metadata = tmp_path / "own_saved_agents_for_test-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: own-saved-agents-for-test\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[atesd.agents]\nsinking = {own_module}:Falling\n")
    path = file_of(tmp_path / "mine.safetensors", f"{own_module}.Falling", start=1.0, end=0.5)
    assert type(make(path, ToyExposureEnv(), learn=True)).__name__ == "Falling"


@pytest.mark.parametrize(
    "name", ["subprocess.Popen", "os.system", "builtins.eval", "atesd.commands.cli.main", "agents.no.Such"]
)
def test_a_file_can_name_no_other_class(tmp_path: Path, name: str):
    path = file_of(tmp_path / "stranger.safetensors", name, args="true")
    with pytest.raises(ConfigError, match=r"not imported because a file says so|derives from agents\.base\.Agent"):
        make(path, ToyExposureEnv())


def test_a_named_class_must_be_an_agent(tmp_path: Path, own_module: str):
    path = file_of(tmp_path / "mine.safetensors", f"{own_module}.Other")
    with pytest.raises(ConfigError, match=r"agent_class: expected a class that derives from agents\.base\.Agent"):
        make(f"{path}:agent_class={own_module}:Other", ToyExposureEnv())


@pytest.mark.parametrize("size", [0, 5, 50, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int):
    path = tmp_path / "agent.safetensors"
    BetaController(ToyExposureEnv()).save(path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(RunFilesError, match=r"agent\.safetensors: expected an agent's file.*not cut off"):
        make(path, ToyExposureEnv())
    with pytest.raises(RunFilesError, match="expected an agent's file"):
        BetaController.load(path, ToyExposureEnv())


def test_safetensors_of_something_else_is_refused(tmp_path: Path):
    save_file({"weights": np.zeros(3)}, tmp_path / "adapter.safetensors")
    with pytest.raises(RunFilesError, match="expected an agent's file"):
        make(tmp_path / "adapter.safetensors", ToyExposureEnv())


def test_a_zip_goes_to_the_adapter_and_a_truncated_one_is_refused(tmp_path: Path):
    env = ToyExposureEnv(windows=6)
    loaded = make(f"{BEFORE / 'ppo.zip'}:learn=true:learning_rate=0.125:trust=true", env, seed=3)
    assert (loaded.env, loaded.seed, loaded.algorithm.learning_rate) == (env, 3, 0.125)
    (tmp_path / "agent.zip").write_bytes((BEFORE / "ppo.zip").read_bytes()[:-1])
    with pytest.raises(RunFilesError, match=r"agent\.zip: expected the whole zip file.*cut short"):
        make(tmp_path / "agent.zip", ToyExposureEnv())


def test_wrong_options_of_a_file_are_answered(tmp_path: Path):
    FixedSchedule(ToyExposureEnv()).save(tmp_path / "agent.safetensors")
    with pytest.raises(ConfigError, match=r"it has no lern \(did you mean 'learn'\?\)"):
        resolve(f"{tmp_path / 'agent.safetensors'}:lern=true")


@pytest.mark.parametrize("name", ["missing.safetensors", "missing.zip"])
def test_a_missing_file_is_named_before_anything_runs(tmp_path: Path, name: str):
    with pytest.raises(RunFilesError, match=rf"{name}: expected the file of a saved agent, found none"):
        resolve(tmp_path / name)


@pytest.mark.parametrize("kind", [FixedSchedule, BetaController])
def test_an_agent_for_other_groups_is_refused(tmp_path: Path, kind: type[Agent]):
    kind(ToyExposureEnv(groups=3)).save(tmp_path / "agent.safetensors")
    message = r"expected an agent for observations of shape \(17,\) and 1 group\(s\).*saved for .* and 3 group\(s\)"
    with pytest.raises(ConfigError, match=message):
        make(tmp_path / "agent.safetensors", ToyExposureEnv())


def test_an_agent_for_other_features_is_refused(tmp_path: Path):
    path = tmp_path / "agent.safetensors"
    agent = BetaController(ToyExposureEnv())
    arrays, description = agent.state()
    description["spaces"] = {"observation": [12], "action": [1]}
    save_file(arrays, path, metadata={"agent": json.dumps(description)})
    with pytest.raises(ConfigError, match=r"observations of shape \(17,\).*saved for observations of shape \(12,\)"):
        make(path, ToyExposureEnv())


@pytest.mark.parametrize(
    ("name", "decision"),
    [
        ("beta.safetensors", 0.5042420029640198),
        ("ucb.safetensors", 0.25),
        ("ppo.zip", 0.4993686378002167),
        ("recurrent_ppo.zip", 0.49894046783447266),
    ],
)
def test_files_of_before_the_rooms_are_read(name: str, decision: float):
    spec = f"{BEFORE / name}:trust=true" if name.endswith(".zip") else str(BEFORE / name)
    agent = make(spec, ToyExposureEnv())
    assert agent.predict(RISING)[0].tolist() == pytest.approx([decision], rel=1e-6)
    learning = make(f"{spec}:learn=true", ToyExposureEnv(windows=6))
    learning.learn(8)
    assert learning.diagnostics()
