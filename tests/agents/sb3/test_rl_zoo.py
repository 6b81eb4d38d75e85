"""hyperparams/ and docs/rl_zoo.md: the files say what Stable-Baselines3 accepts, and rl_zoo3 trains with them."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import sb3_contrib
import stable_baselines3
import yaml
from gymnasium.envs.registration import registry
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv

from analysis import load_runs
from atesd.commands.cli import main
from atesd_env.config import preset
from tests.programs import ran

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "rl_zoo.md").read_text()
ALGORITHMS = {
    "ppo": stable_baselines3.PPO,
    "a2c": stable_baselines3.A2C,
    "sac": stable_baselines3.SAC,
    "td3": stable_baselines3.TD3,
    "tqc": sb3_contrib.TQC,
    "ppo_lstm": sb3_contrib.RecurrentPPO,
}
"""The zoo's names of the algorithms."""
OF_THE_ZOO = {"n_timesteps", "n_envs", "env_wrapper", "noise_type", "noise_std"}
"""Keys that rl_zoo3 takes for itself; all others go to the algorithm's constructor."""
ENTRIES = [
    (path.stem, env_id, entry)
    for path in sorted((ROOT / "hyperparams").glob("*.yml"))
    for env_id, entry in yaml.safe_load(path.read_text()).items()
]


def made(algorithm: str, entry: dict[str, Any], **changes: Any) -> Any:
    """Returns the algorithm on the toy as the zoo would make it: wrapped, and with the constructor's arguments."""

    def wrapped() -> gym.Env[Any, Any]:
        env: gym.Env[Any, Any] = gym.make("ATESD-Toy-v0", windows=10)
        for wrapper in entry["env_wrapper"]:
            ((target, keywords),) = wrapper.items()
            module, _, name = target.rpartition(".")
            env = getattr(importlib.import_module(module), name)(env, **keywords)
        return env

    arguments = {key: value for key, value in entry.items() if key not in OF_THE_ZOO} | changes
    if "." in arguments["policy"]:
        module, _, name = arguments["policy"].rpartition(".")
        arguments["policy"] = getattr(importlib.import_module(module), name)
    if entry.get("noise_type") == "normal":
        arguments["action_noise"] = NormalActionNoise(np.zeros(1), np.full(1, entry["noise_std"]))
    return ALGORITHMS[algorithm](env=DummyVecEnv([wrapped] * entry["n_envs"]), seed=0, device="cpu", **arguments)


def test_there_is_a_file_for_each_algorithm_with_our_ids():
    assert {(name, env_id) for name, env_id, _ in ENTRIES} == {
        (name, env_id) for name in ALGORITHMS for env_id in ("ATESD-Toy-v0", "ATESD-Surrogate-v0", "ATESD-Tiny-v0")
    }
    assert all(f"`{name}`" in PAGE for name in ALGORITHMS)
    assert all(env_id in registry for _, env_id, _ in ENTRIES)


@pytest.mark.parametrize(("algorithm", "env_id", "entry"), ENTRIES)
def test_an_entry_fits_the_algorithm_and_the_environment(algorithm: str, env_id: str, entry: dict[str, Any]):
    model = made(algorithm, entry)
    known = inspect.signature(ALGORITHMS[algorithm]).parameters
    assert {key for key in entry if key not in OF_THE_ZOO} <= set(known)
    assert entry["n_timesteps"] > 0
    assert entry["gamma"] == model.gamma == preset("ATESD-Toy-v0").gamma == preset("ATESD-Tiny-v0").gamma
    assert (model.action_space.low, model.action_space.high) == (-1, 1)
    windows = preset("ATESD-Toy-v0" if env_id == "ATESD-Toy-v0" else "ATESD-Tiny-v0").windows
    if algorithm in ("ppo", "ppo_lstm"):
        assert entry["n_steps"] == windows
        assert entry["n_steps"] * entry["n_envs"] % entry["batch_size"] == 0
    if "learning_starts" in entry:
        assert entry["learning_starts"] == windows * entry["n_envs"]


def test_an_agent_of_the_zoo_decides_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (snippet,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    (line,) = re.findall(r"^atesd run .*$", PAGE, flags=re.MULTILINE)
    (path,) = re.findall(r"path=(\S+\.zip)", line)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "zoo_agent.py").write_text(snippet)
    (entry,) = (entry for name, env_id, entry in ENTRIES if (name, env_id) == ("ppo", "ATESD-Toy-v0"))
    model = made("ppo", entry, n_steps=10, batch_size=10)
    Path(path).parent.mkdir(parents=True)
    model.save(path)
    main(shlex.split(line)[1:])
    monkeypatch.delitem(sys.modules, "zoo_agent", raising=False)
    frame = load_runs(tmp_path / "runs" / "zoo")
    ratios = frame.loc[frame["agent"].astype(str).str.startswith("zoo_agent"), "exposure/reveal_ratio"]
    assert len(ratios) == preset("ATESD-Toy-v0").windows
    # A fresh Beta policy is symmetric, and decides for about the middle of [0, 1] (not of [-1, 1]).
    assert ratios.between(0.4, 0.6).all()


def zoo_python() -> str | None:
    """Returns a Python that has rl_zoo3: this one, or the one that ATESD_RL_ZOO_PYTHON names."""
    if importlib.util.find_spec("rl_zoo3") is not None:
        return sys.executable
    return os.environ.get("ATESD_RL_ZOO_PYTHON")


@pytest.mark.parametrize("env_id", ["ATESD-Toy-v0", "ATESD-Tiny-v0"])
def test_rl_zoo3_trains(env_id: str, tmp_path: Path):
    python = zoo_python()
    if python is None:
        pytest.skip(
            "rl_zoo3 is missing here (its pins need an environment of its own: docs/rl_zoo.md); ATESD_RL_ZOO_PYTHON names a Python "
            "that has it"
        )
    train, enjoy = (shlex.split(line) for line in re.findall(r"^zoo/bin/python (-m rl_zoo3.*)$", PAGE, re.MULTILINE))
    small = ["-n", "8", "--eval-freq", "-1", "--hyperparams", "n_envs:1", "n_steps:4", "batch_size:4"]
    fields = ["windows:4", "num_rollouts:2", "max_new_tokens:8", "probe_size:2", "hold_window:1"]
    for arguments in ([*train, *small, "--env-kwargs", *fields], [*enjoy[:-1], "4"]):
        command = [python, *(str(ROOT / part) if part.startswith("hyperparams/") else part for part in arguments)]
        command[command.index("ATESD-Toy-v0")] = env_id
        result = ran(*command, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "logs" / "ppo" / f"{env_id}_1" / f"{env_id}.zip").exists()
    assert "Episode Reward" in result.stdout
