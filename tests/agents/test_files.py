"""Files of agents with odd content: refused by name when they are loaded, and not in the middle of a run."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import agents
from agents.base import Agent
from agents.beta import BetaController
from agents.files import agent_file
from agents.specs.registry import resolve
from agents.specs.table import AGENTS, Entry
from atesd_env.errors import AtesdError, ConfigError, RunFilesError
from atesd_env.simulated.toy import ToyExposureEnv

Parts = tuple[dict[str, Any], dict[str, Any]]
"""Arrays and description of an agent's file."""
Edit = Callable[[dict[str, Any], dict[str, Any]], Any]


def said(**changes: Any) -> Edit:
    return lambda arrays, description: description.update(changes)


def option(**changes: Any) -> Edit:
    return lambda arrays, description: description["options"].update(changes)


def array(name: str, change: Callable[[Any], Any]) -> Edit:
    def edit(arrays: dict[str, Any], description: dict[str, Any]) -> None:
        found = min(one for one in arrays if name in one)
        arrays[found] = change(arrays[found])

    return edit


ODD: dict[str, Edit] = {
    "no class": said(**{"class": None}),
    "a class that is a list": said(**{"class": ["a"]}),
    "a class of nobody": said(**{"class": "agents.nothing.Here"}),
    "a class with dots alone": said(**{"class": "agents..."}),
    "a class that is none": said(**{"class": "agents.base.read_agent_file"}),
    "the class that others derive from": said(**{"class": "agents.base.Agent"}),
    "another version": said(format_version=99),
    "no seed": lambda arrays, description: description.pop("seed"),
    "a seed in words": said(seed="zero"),
    "a seed below 0": said(seed=-1),
    "a number of windows in words": said(num_timesteps="many"),
    "spaces in words": said(spaces="large"),
    "spaces of nothing": said(spaces={}),
    "options in words": said(options="all"),
    "an unknown option": option(other=1),
    "an option in words": option(batch_size="large"),
    "an option of 400 digits": option(batch_size=int("9" * 308)),
    "no generator": lambda arrays, description: description.pop("rng"),
    "a generator in words": said(rng="PCG64"),
    "a generator of another kind": said(rng={"bit_generator": "MT19937"}),
    "no network": lambda arrays, description: [
        arrays.pop(name) for name in list(arrays) if name.startswith("network/")
    ],
    "a matrix of another shape": array("network/", lambda one: np.zeros((3, 3), np.float32)),
    "an array of nobody": lambda arrays, description: arrays.update(other=np.zeros(3)),
    "no number": array("network/", lambda one: np.full_like(one, np.nan)),
    "a count of nothing": array("num_updates", lambda one: np.zeros((2, 2))),
    "a last observation of another shape": lambda arrays, description: arrays.update(last_observation=np.zeros(3)),
}


@pytest.fixture(scope="module")
def parts() -> Parts:
    agent = BetaController(ToyExposureEnv(windows=4), seed=0)
    agent.learn(4)
    return agent.state()


@pytest.mark.parametrize("what", ODD)
def test_an_odd_agent_is_refused_by_name(what: str, parts: Parts, tmp_path: Path):
    arrays, description = {name: np.asarray(one) for name, one in parts[0].items()}, json.loads(json.dumps(parts[1]))
    ODD[what](arrays, description)
    path = tmp_path / "odd[bold].safetensors"
    save_file(
        {name: np.ascontiguousarray(one) for name, one in arrays.items()}, path, {"agent": json.dumps(description)}
    )
    with pytest.raises(AtesdError, match=r"odd\[bold\]\.safetensors: .*expected") as caught:
        agents.make(str(path), ToyExposureEnv(windows=4))
    assert isinstance(caught.value, RunFilesError | ConfigError)


@pytest.mark.parametrize(
    "odd",
    [
        {"exp_avg": np.zeros(3)},
        {"exp_avg": np.full((32, 6), np.nan)},
        {"step": np.asarray(np.inf)},
        {"other": np.zeros(3)},
        {"exp_avg_sq": None},
    ],
)
def test_odd_moments_of_the_optimizer_are_refused(odd: dict[str, Any], tmp_path: Path):
    agent = BetaController(ToyExposureEnv(windows=8), seed=0)
    agent.learn(8)
    arrays, description = agent.state()
    assert arrays["optimizer/0/exp_avg"].shape == (32, 6)
    changed = {**arrays, **{f"optimizer/0/{name}": array for name, array in odd.items()}}
    kept = {name: array for name, array in changed.items() if array is not None}
    with pytest.raises(RunFilesError, match="other moments of parameter 0 than Adam's"):
        BetaController.from_state(kept, description, ToyExposureEnv(windows=8))
    BetaController.from_state(arrays, description, ToyExposureEnv(windows=8))


@pytest.mark.parametrize("entry", AGENTS, ids=lambda entry: entry.name)
def test_every_agent_of_ours_is_loaded_as_it_was_saved(entry: Entry, tmp_path: Path):
    factory, _ = resolve(spec := entry.name + ":0.5" * (entry.least or entry.num_ratios))
    if not (isinstance(factory, type) and issubclass(factory, Agent)):
        pytest.skip(f"{spec} is Stable-Baselines3's")
    if entry.name == "oracle":
        pytest.skip("the oracle plays the schedules of a bench's set alone (test_oracle.py)")
    agent = agents.make(spec, ToyExposureEnv(windows=4), seed=0)
    agent.learn(4)
    agent.save(tmp_path / "agent")
    again = type(agent).load(tmp_path / "agent", ToyExposureEnv(windows=4))
    arrays, description = agent.state()
    assert again.state()[1] == description
    assert all(np.array_equal(again.state()[0][one], arrays[one], equal_nan=True) for one in arrays)


@pytest.mark.parametrize(
    "metadata",
    [
        "[",
        "[]",
        "[" * 100_000,
        '{"class": NaN}',
        '{"seed": ' + "9" * 5000 + "}",
        "\udcff".encode("utf-8", "replace").decode(),
    ],
)
def test_a_description_of_odd_json_is_refused(metadata: str, tmp_path: Path):
    save_file({"a": np.zeros(1)}, tmp_path / "odd.safetensors", {"agent": metadata})
    with pytest.raises(RunFilesError, match=r"odd\.safetensors: expected an agent's file"):
        agents.make(str(tmp_path / "odd.safetensors"), ToyExposureEnv())


@pytest.mark.parametrize("what", ["a flipped bit", "another seed", "no checksum in a file with more"])
def test_a_changed_file_does_not_match_its_checksum_and_one_of_before_has_none(what: str, parts: Parts, tmp_path: Path):
    arrays, text = parts[0], json.dumps(parts[1])
    path = tmp_path / "agent.safetensors"
    save_file(arrays, path, {"agent": text})
    agents.make(str(path), ToyExposureEnv(windows=4))  # of before
    content = agent_file(arrays, text)
    assert all(agent_file(arrays, text) == content for _ in range(10)), "several entries are written in any order"
    path.write_bytes(content)
    agents.make(str(path), ToyExposureEnv(windows=4))
    changed = {
        "a flipped bit": content[:-1] + bytes([content[-1] ^ 1]),
        "another seed": re.sub(rb'(seed\\+": )0', rb"\g<1>1", content),
        "no checksum in a file with more": content.replace(b"sha256", b"sha257"),
    }[what]
    assert changed != content
    path.write_bytes(changed)
    with pytest.raises(
        RunFilesError, match=r"agent\.safetensors: expected an agent's file.* does not match its checksum"
    ):
        agents.make(str(path), ToyExposureEnv(windows=4))


ODD_BANDIT: dict[str, Edit] = {
    "returns without a number": array("history/returns", lambda one: np.full_like(one, np.nan)),
    "returns of other pulls": array("history/returns", lambda one: one[:-1]),
    "arms that there are not": array("history/arms", lambda one: np.full_like(one, 2**31 - 1)),
    "arms of other groups": array("history/arms", lambda one: np.concatenate([one, one], axis=1)),
    "waiting contexts of another size": array("pending/contexts", lambda one: np.concatenate([one, one], axis=1)),
    "waiting numbers without a number": array("pending/numbers", lambda one: np.full_like(one, np.nan)),
    "weights of other arms": array("arm_weights", lambda one: one[:, 1:]),
    "weights without a number": array("arm_weights", lambda one: np.full_like(one, np.nan)),
}


@pytest.mark.parametrize("what", ODD_BANDIT)
def test_an_odd_bandit_is_refused_before_it_learns(what: str, tmp_path: Path):
    agent = agents.make("exp3s", ToyExposureEnv(windows=9), seed=0)
    agent.learn(8)
    arrays, description = agent.state()
    ODD_BANDIT[what](arrays, description)
    path = tmp_path / "odd.safetensors"
    path.write_bytes(agent_file(arrays, json.dumps(description)))
    with pytest.raises(RunFilesError, match=r"odd\.safetensors: .*that such an agent has not"):
        agents.make(f"{path}:learn=true", ToyExposureEnv(windows=9))


def test_a_pipe_is_no_agent(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(RunFilesError, match=r"pipe\.safetensors: expected"):
        BetaController.load(tmp_path / "pipe.safetensors", ToyExposureEnv())
    with pytest.raises(RunFilesError, match=r"pipe\.safetensors: expected"):
        agents.make(str(tmp_path / "pipe.safetensors"), ToyExposureEnv())
