"""States of the real environment in memory and in files: what follows repeats bit for bit, and branches leave no trace."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from atesd_env.config import EnvConfig
from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.files.checkpoint import read_checkpoint, write_checkpoint
from atesd_env.population.environments import TeacherExposureEnv
from atesd_env.population.snapshot import from_checkpoint, on_host, to_checkpoint
from atesd_env.simulated.toy import ToyExposureEnv

Env = TeacherExposureEnv | ToyExposureEnv


def window(env: Env, ratio: float) -> tuple[Any, ...]:
    """Makes one window and returns everything that can be observed of it, adapter and optimizer bits included."""
    observation, reward, terminated, truncated, info = env.step(np.array([ratio], dtype=np.float32))
    # repr: NaN equals itself, and every bit of a float shows.
    seen = (observation.tobytes(), repr(reward), terminated, truncated, repr(info))
    if isinstance(env, ToyExposureEnv):
        return (*seen, repr(env.snapshot()))
    state = env.population.snapshot(0)
    moments = state.optimizer["state"].get(0, {})
    tensors = [state.adapter, state.teacher_adapter, *(moments[name] for name in sorted(moments))]
    return (*seen, *(None if tensor is None else tensor.numpy().tobytes() for tensor in tensors), repr(env.samples(9)))


def windows(env: Env, ratios: list[float]) -> list[tuple[Any, ...]]:
    return [window(env, ratio) for ratio in ratios]


def toy_env() -> ToyExposureEnv:
    return ToyExposureEnv(windows=6, toy_noise=0.1)


@pytest.fixture(params=["toy", "initial", "ema"])
def make_env(request: pytest.FixtureRequest, tiny_config: EnvConfig) -> Callable[[], Env]:
    """Makes fresh environments of one configuration: closed form, fixed teacher, averaging teacher."""
    if request.param == "toy":
        return toy_env
    config = tiny_config.replace(teacher=request.param, windows=4, hold_window=1, weight_decay=0.1)
    return lambda: TeacherExposureEnv(config)


@pytest.mark.parametrize("num_before", [0, 2])
def test_a_saved_state_goes_on_bit_for_bit_in_another_environment(
    make_env: Callable[[], Env], tmp_path: Path, num_before: int
):
    env = make_env()
    env.reset(seed=7)
    windows(env, [0.3, 0.9][:num_before])
    env.save_state(tmp_path / "state")
    followed = windows(env, [0.1, 0.6])
    other = make_env()
    other.load_state(tmp_path / "state")
    assert windows(other, [0.1, 0.6]) == followed
    env.load_state(tmp_path / "state")
    assert windows(env, [0.1, 0.6]) == followed, "the file is not used up, and what came after is forgotten"


def test_reset_to_a_state_gives_its_observation(make_env: Callable[[], Env], tmp_path: Path):
    env = make_env()
    env.reset(seed=7)
    observation, _, _, _, info = env.step(np.array([0.4], dtype=np.float32))
    env.save_state(tmp_path / "state")
    followed = windows(env, [0.2])
    other = make_env()
    seen, start = other.reset(seed=99, options={"state": tmp_path / "state"})
    np.testing.assert_array_equal(seen, observation)
    assert (start["seed"], start["probe/nll"]) == (7, info["probe/nll"])
    assert all(value == info[name] for name, value in start.items() if name.startswith("toy/"))
    assert windows(other, [0.2]) == followed


def test_reset_to_a_state_through_gymnasiums_wrappers(tmp_path: Path):
    env = gymnasium.make("ATESD-Toy-v0", windows=6, toy_noise=0.1)
    env.reset(seed=3)
    env.step(np.array([0.5], dtype=np.float32))
    env.unwrapped.save_state(tmp_path / "state")
    expected = env.step(np.array([0.5], dtype=np.float32))
    again = gymnasium.make("ATESD-Toy-v0", windows=6, toy_noise=0.1)
    again.reset(options={"state": str(tmp_path / "state")})
    np.testing.assert_equal(again.step(np.array([0.5], dtype=np.float32)), expected)


def test_a_broken_student_with_numbers_that_json_lacks_comes_back(tiny_config: EnvConfig, tmp_path: Path):
    env = TeacherExposureEnv(tiny_config)
    env.reset(seed=1)
    env.population.adapters.flat[0].fill_(float("nan"))
    *_, info = env.step(np.array([0.5], dtype=np.float32))
    assert "termination_reason" in info
    run = env.population.runs[0]
    run.probe_nll = math.nan
    run.rows[0]["student/loss"] = -math.inf
    env.save_state(tmp_path / "state")
    other = TeacherExposureEnv(tiny_config)
    other.load_state(tmp_path / "state")
    assert repr(other.population.runs[0]) == repr(run)
    assert torch.isnan(other.population.adapters.flat).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_r": 4}, r"lora_r \(8 there, 4 here\)"),
        ({"task": "math", "data_path": "gsm8k"}, r"task \('arithmetic' there, 'math' here\)"),
        ({"lora_targets": ("q_proj",)}, "lora_targets"),
        (
            {"learning_rate": 1e-3, "windows": 9},
            r"learning_rate \(0.002 there, 0.001 here\)|windows \(3 there, 9 here\)",
        ),
    ],
)
def test_a_state_of_another_configuration_is_refused_and_nothing_changes(
    tiny_config: EnvConfig, tmp_path: Path, changes: dict[str, Any], message: str
):
    env = TeacherExposureEnv(tiny_config)
    env.reset(seed=1)
    env.save_state(tmp_path / "state")
    other = tiny_config.replace(**changes)
    with pytest.raises(ConfigError, match=message):
        from_checkpoint(read_checkpoint(tmp_path / "state"), other, env.population.adapters.num_parameters)


def test_a_state_of_another_environment_or_base_model_is_refused(tiny_config: EnvConfig, tmp_path: Path):
    toy = toy_env()
    toy.reset(seed=1)
    toy.save_state(tmp_path / "toy")
    env = TeacherExposureEnv(tiny_config)
    env.reset(seed=2)
    before = env.population.adapters.flat.clone()
    with pytest.raises(ConfigError, match=r"student \('closed form' there, 'language model' here\)"):
        env.load_state(tmp_path / "toy")
    env.save_state(tmp_path / "state")
    with pytest.raises(ConfigError, match="another base model"):
        from_checkpoint(read_checkpoint(tmp_path / "state"), tiny_config, 5)
    with pytest.raises(ConfigError, match="student"):
        toy.load_state(tmp_path / "state")
    assert torch.equal(env.population.adapters.flat, before)


def test_a_cut_state_is_refused(tiny_config: EnvConfig, tmp_path: Path):
    toy = toy_env()
    toy.reset(seed=1)
    toy.save_state(tmp_path / "state")
    (tmp_path / "state").write_bytes((tmp_path / "state").read_bytes()[:-1])
    with pytest.raises(RunFilesError, match="state: expected a whole checkpoint"):
        toy.load_state(tmp_path / "state")


def test_snapshots_come_back_from_arrays_and_description(tiny_config: EnvConfig, tmp_path: Path):
    env = TeacherExposureEnv(tiny_config.replace(teacher="ema"))
    env.reset(seed=4)
    env.step(np.array([0.5], dtype=np.float32))
    snapshot = env.population.snapshot(0)
    write_checkpoint(tmp_path / "state", to_checkpoint(snapshot, env.config))
    back = from_checkpoint(read_checkpoint(tmp_path / "state"), env.config, env.population.adapters.num_parameters)
    assert back.run == snapshot.run
    assert torch.equal(back.adapter, snapshot.adapter)
    assert back.teacher_adapter is not None
    assert snapshot.teacher_adapter is not None
    assert torch.equal(back.teacher_adapter, snapshot.teacher_adapter)
    assert back.optimizer["param_groups"] == snapshot.optimizer["param_groups"]
    assert back.optimizer["state"].keys() == snapshot.optimizer["state"].keys()
    for name, moment in snapshot.optimizer["state"][0].items():
        assert torch.equal(back.optimizer["state"][0][name], moment)
        assert back.optimizer["state"][0][name].dtype == moment.dtype
    fields = {field.name for field in dataclasses.fields(snapshot)}
    assert fields == {"run", "adapter", "teacher_adapter", "optimizer"}, "a new field must go to the file too"


def walk_with_branches(env: Env, rng: np.random.Generator, path: Path) -> tuple[list[float], list[tuple[Any, ...]]]:
    """Walks one episode; at random points it branches off for a while and comes back, by memory or by file."""
    ratios: list[float] = []
    seen: list[tuple[Any, ...]] = []
    while len(ratios) < env.config.windows:
        if rng.random() < 0.5:
            by_file = rng.random() < 0.5
            snapshot: Any = env.snapshot()
            if by_file:
                env.save_state(path)
            num_left = env.config.windows - len(ratios)
            windows(env, rng.random(rng.integers(1, num_left + 1)).tolist())
            if rng.random() < 0.3:
                env.reset(seed=int(rng.integers(100)))
            if by_file:
                env.reset(options={"state": path})
            else:
                env.restore(snapshot)
        ratios.append(float(rng.random()))
        seen.append(window(env, ratios[-1]))
    return ratios, seen


def test_a_copy_on_the_host_shares_no_memory():
    """A GPU's: tests/gpu."""
    tensor = torch.arange(3.0)
    copied = on_host(tensor)
    tensor += 1
    assert copied.tolist() == [0.0, 1.0, 2.0]


def test_fuzz_walks_with_branches_on_the_toy(tmp_path: Path):
    rng = np.random.default_rng(0)
    for seed in range(60):
        env = toy_env()
        env.reset(seed=seed)
        ratios, seen = walk_with_branches(env, rng, tmp_path / "state")
        straight = toy_env()
        straight.reset(seed=seed)
        assert windows(straight, ratios) == seen, f"walk {seed}"


@pytest.mark.parametrize("teacher", ["initial", "ema"])
def test_fuzz_walks_with_branches_on_the_packaged_student(tiny_config: EnvConfig, tmp_path: Path, teacher: str):
    rng = np.random.default_rng(1)
    config = tiny_config.replace(teacher=teacher, windows=4, hold_window=1, num_rollouts=2, probe_size=3)
    env, straight = TeacherExposureEnv(config), TeacherExposureEnv(config)
    for seed in range(3):
        env.reset(seed=seed)
        ratios, seen = walk_with_branches(env, rng, tmp_path / "state")
        straight.reset(seed=seed)
        assert windows(straight, ratios) == seen, f"walk {seed}"


def test_the_fuzz_test_can_fail(tmp_path: Path):
    """A snapshot that forgets the noise-free state is found out."""

    class Forgetful(ToyExposureEnv):
        def restore(self, snapshot: Any) -> None:
            super().restore(dataclasses.replace(snapshot, nll=self.snapshot().nll))

    rng = np.random.default_rng(0)
    differs = []
    for seed in range(10):
        env = Forgetful(windows=6, toy_noise=0.1)
        env.reset(seed=seed)
        ratios, seen = walk_with_branches(env, rng, tmp_path / "state")
        straight = toy_env()
        straight.reset(seed=seed)
        differs.append(windows(straight, ratios) != seen)
    assert any(differs)
