"""K language models in one vector environment: each student as it would be alone, and what only a language model has."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from atesd_env.config import EnvConfig
from atesd_env.envs.branch import counterfactual
from atesd_env.envs.vector import ExposureVectorEnv
from atesd_env.errors import ConfigError
from atesd_env.population.environments import TeacherExposureEnv, TeacherExposureVectorEnv
from tests.atesd_env.envs.kinds import assert_same_step

VECTOR: dict[str, Any] = {"vectorization_mode": "vector_entry_point"}
CLOSE = {"rtol": 1e-3, "atol": 1e-5}
"""Batches of other sizes round differently; the tolerance of the population's own tests."""


@pytest.fixture
def trio(tiny_config: EnvConfig) -> TeacherExposureVectorEnv:
    return TeacherExposureVectorEnv(tiny_config, 3)


def column(*ratios: float) -> np.ndarray:
    """Actions [K, 1]."""
    return np.array(ratios, dtype=np.float32)[:, None]


def test_students_differ_and_the_whole_repeats_to_the_bit(tiny_config: EnvConfig):
    """Over an episode and the reset after it, adapters included; another seed gives another run."""

    def play(seed: int) -> tuple[list[tuple[Any, ...]], torch.Tensor]:
        env = TeacherExposureVectorEnv(tiny_config.replace(windows=2), 3)
        steps = [env.reset(seed=seed)] + [env.step(column(0.0, 0.5, 1.0)) for _ in range(3)]
        return steps, env.population.adapters.flat.clone()

    first, again, other = play(5), play(5), play(6)
    for left, right in zip(first[0], again[0], strict=True):
        assert_same_step(left, right)
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])
    losses = first[0][1][-1]["student/loss"]
    assert len(set(losses.tolist())) == 3
    assert losses[0] != other[0][1][-1]["student/loss"][0]


def test_a_student_that_breaks_starts_anew_while_the_others_train_on(trio: TeacherExposureVectorEnv):
    trio.reset(seed=0)
    trio.population.adapters.flat[1].fill_(float("nan"))
    observations, rewards, terminations, truncations, infos = trio.step(column(0.2, 0.5, 0.8))
    assert terminations.tolist() == [False, True, False]
    assert not truncations.any()
    assert rewards[1] == -trio.config.collapse_nll
    assert infos["_termination_reason"].tolist() == terminations.tolist()
    assert infos["termination_reason"][1].startswith("non-finite")
    assert infos["_student/loss"].tolist() == [True, False, True]
    assert trio.observation_space.contains(observations)
    before = trio.population.adapters.flat.clone()
    _, rewards, terminations, _, infos = trio.step(column(0.2, 0.5, 0.8))
    assert rewards[1] == 0.0
    assert not terminations.any()
    assert infos["_seed"].tolist() == [False, True, False]
    assert infos["window"].tolist() == [2, 0, 2]
    assert not torch.equal(trio.population.adapters.flat[0], before[0])
    assert torch.isfinite(trio.population.adapters.flat).all()
    *_, truncations, infos = trio.step(column(0.2, 0.5, 0.8))
    assert infos["window"].tolist() == [3, 1, 3]
    assert truncations.tolist() == [True, False, True]


def test_a_snapshot_repeats_in_its_slot_and_moves_to_another_and_to_a_scalar_environment(
    trio: TeacherExposureVectorEnv,
):
    trio.reset(seed=0)
    trio.step(column(0.2, 0.5, 0.8))
    states = [trio.snapshot(index) for index in range(3)]
    first = trio.step(column(0.2, 0.9, 0.8))
    for index, state in enumerate(states):
        trio.restore(index, state)
    assert_same_step(trio.step(column(0.2, 0.9, 0.8)), first)

    trio.restore(0, states[1])
    trio.restore(1, states[1])
    moved = trio.step(column(0.9, 0.9, 0.1))
    scalar = TeacherExposureEnv(trio.config)
    scalar.restore(states[1])
    observation, reward, _, _, info = scalar.step(np.array([0.9], dtype=np.float32))
    for index in (0, 1):
        np.testing.assert_allclose(moved[0][index], first[0][1], **CLOSE)
        np.testing.assert_allclose(moved[0][index], observation, **CLOSE)
        np.testing.assert_allclose(moved[1][index], reward, **CLOSE)
        assert moved[-1]["rollout/num_tokens"][index] == info["rollout/num_tokens"]
        assert moved[-1]["window"][index] == 2

    back = scalar.snapshot()
    trio.restore(2, back)
    assert torch.equal(trio.population.adapters.flat[2], scalar.population.adapters.flat[0])


def test_samples_and_adapters_are_a_students_own(trio: TeacherExposureVectorEnv, tmp_path):
    trio.reset(seed=0)
    trio.step(column(0.0, 0.5, 1.0))
    assert [trio.samples(index)[0]["reveal_ratio"] for index in range(3)] == [0.0, 0.5, 1.0]
    assert set(trio.timings) == {"time/rollout_sec", "time/update_sec", "time/probe_sec"}
    trio.save_adapter(1, tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
    again = TeacherExposureEnv(trio.config.replace(adapter=str(tmp_path / "adapter")))
    again.reset(seed=0)
    assert torch.equal(again.population.adapters.flat[0], trio.population.adapters.flat[1])


def test_students_of_different_instances_learn_what_they_would_learn_alone(tiny_config: EnvConfig):
    """Different problems and step sizes in one population; each student equals the scalar environment of its instance."""
    instances = [
        {"learning_rate": 5e-3, "min_addends": 2, "max_addends": 3},
        {"learning_rate": 5e-4},
        {"divergence": "jsd", "max_grad_norm": 0.1},
    ]
    config = tiny_config.replace(windows=2, hold_window=1)
    env = TeacherExposureVectorEnv(config, 3, instances=instances)
    env.reset(seed=[7, 7, 7])
    actions = column(0.5, 0.5, 0.5)
    env.step(actions)
    observations, rewards, *_ = env.step(actions)
    adapters = [env.snapshot(index).adapter for index in range(3)]
    assert not any(torch.allclose(adapters[left], adapters[right]) for left, right in ((0, 1), (0, 2), (1, 2)))
    for index, fields in enumerate(instances):
        alone = TeacherExposureEnv(config=config.replace(**fields))
        alone.reset(seed=7)
        alone.step(actions[index])
        observation, reward, *_ = alone.step(actions[index])
        np.testing.assert_allclose(observations[index], observation, **CLOSE)
        np.testing.assert_allclose(rewards[index], reward, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(adapters[index], alone.population.snapshot(0).adapter, rtol=0, atol=1e-3)


def test_instances_that_do_not_fit_are_refused(tiny_config: EnvConfig):
    for instances, message in (
        ([{}], "one dictionary of fields for each of 2 students, got 1"),
        ([{}, {"num_rollouts": 3}], "got 'num_rollouts'"),
        ([{}, {"learning_rat": 1e-3}], "did you mean 'learning_rate'"),
        ([{}, {"learning_rate": -1.0}], "learning_rate"),
    ):
        with pytest.raises(ConfigError, match=message):
            TeacherExposureVectorEnv(tiny_config, 2, instances=instances).reset(seed=0)
    with pytest.raises(ConfigError, match="closed form"):
        gymnasium.make_vec("ATESD-Toy-v0", num_envs=1, instances=[{}], **VECTOR)


def test_a_counterfactual_follows_the_instance_of_its_student(tiny_config: EnvConfig):
    """The second student takes no steps (learning rate 0), and neither do its branches."""
    config = tiny_config.replace(windows=3, hold_window=1)
    env = TeacherExposureVectorEnv(config, 2, instances=[{}, {"learning_rate": 0.0}])
    env.reset(seed=[1, 1])
    nll = [run.probe_nll for run in env.population.runs]
    still = counterfactual(env, [0.0, 1.0], windows=1, student=1)
    moving = counterfactual(env, [0.0, 1.0], windows=1, student=0)
    assert still["probe/nll"].tolist() == pytest.approx([nll[1]] * 2, abs=1e-6)
    assert abs(moving["probe/nll"] - nll[0]).min() > 1e-4


def play(env: ExposureVectorEnv, steps: int) -> list[tuple[Any, ...]]:
    """Steps with ratios that differ from student to student and from step to step."""
    return [
        env.step(np.linspace(0.1 * step, 1.0, env.num_envs, dtype=np.float32)[:, None] % 1.0) for step in range(steps)
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_of_language_model_students_repeats_bit_for_bit(tiny_config: EnvConfig, tmp_path, workers: int):
    config = tiny_config.replace(windows=2, hold_window=1, teacher="ema")
    make = lambda: TeacherExposureVectorEnv(config, 2, workers=workers, instances=[{}, {"learning_rate": 1e-4}])  # noqa: E731
    env = make()
    env.reset(seed=1)
    play(env, 1)
    env.save_state(tmp_path / "state")
    expected = play(env, 3)  # through an autoreset
    adapters = [env.snapshot(index).adapter for index in range(2)]
    env.close()
    again = make()
    again.load_state(tmp_path / "state")
    for ours, theirs in zip(play(again, 3), expected, strict=True):
        assert_same_step(ours, theirs)
    assert all(torch.equal(again.snapshot(index).adapter, adapters[index]) for index in range(2))
    again.close()
