"""Counterfactuals: each branch is what the environment itself would have done, and the environment never notices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pandas as pd
import pytest
import torch
from transformers import PreTrainedModel

import atesd_env  # noqa: F401  (registers the ids)
from atesd_env.config import EnvConfig
from atesd_env.envs.branch import OUTCOMES, counterfactual
from atesd_env.errors import AtesdError, ConfigError
from atesd_env.population.environments import TeacherExposureEnv, TeacherExposureVectorEnv
from atesd_env.simulated.toy import ToyExposureEnv
from atesd_env.student.adapters import AdapterStack
from atesd_env.student.model import Student, bare_copy

CLOSE = {"rtol": 1e-3, "atol": 1e-5}


def action(*ratios: float) -> np.ndarray:
    return np.array(ratios, dtype=np.float32)


@pytest.fixture
def env(tiny_config: EnvConfig) -> TeacherExposureEnv:
    """One window into an episode of four."""
    env = TeacherExposureEnv(tiny_config.replace(windows=4))
    env.reset(seed=3)
    env.step(action(0.5))
    return env


def followed(env: Any, ratio: float, windows: int) -> list[dict[str, Any]]:
    """Follows a ratio in the environment itself, and puts it back."""
    state = env.snapshot()
    infos = [env.step(action(ratio))[-1] for _ in range(windows)]
    env.restore(state)
    return infos


def assert_follows(frame: pd.DataFrame, infos: list[dict[str, Any]], gamma: float, **tolerance: float) -> None:
    assert frame["window"].tolist() == [info["window"] for info in infos]
    for name in OUTCOMES:
        expected = np.array([info[name] for info in infos], dtype=np.float64)
        np.testing.assert_allclose(frame[name], expected, **tolerance, err_msg=name)
    rewards = np.array([info["reward/total"] for info in infos])
    np.testing.assert_allclose(frame["return"], np.cumsum(rewards * gamma ** np.arange(len(rewards))), **tolerance)


def test_each_branch_is_the_environment_following_its_ratio(env: TeacherExposureEnv):
    frame = counterfactual(env, [0.0, 1.0, 0.4], 2)
    assert frame["branch"].tolist() == [0, 0, 1, 1, 2, 2]
    assert frame["offset"].tolist() == [1, 2] * 3
    for branch, ratio in enumerate([0.0, 1.0, 0.4]):
        part = frame[frame["branch"] == branch]
        assert (part["reveal_ratio"] == ratio).all()
        assert_follows(part, followed(env, ratio, 2), env.config.gamma, **CLOSE)
    assert frame["probe/accuracy"].notna().tolist() == [True, False] * 3, "windows 2 and 3; measured every second"
    assert frame.groupby("branch")["student/mismatch"].first().nunique() == 3


def test_the_environment_goes_on_to_the_bit_as_if_nothing_had_been_asked(tiny_config: EnvConfig):
    seen = []
    for asks in (False, True):
        env = TeacherExposureEnv(tiny_config)
        env.reset(seed=3)
        steps: list[Any] = [env.step(action(0.5))]
        if asks:
            counterfactual(env, [0.0, 1.0], 2)
        steps += [env.step(action(0.7)) for _ in range(2)]
        seen.append((steps, env.population.adapters.flat.clone(), env.samples(9), env.reset()[1]))
    for left, right in zip(seen[0][0], seen[1][0], strict=True):
        np.testing.assert_array_equal(left[0], right[0])
        assert left[1:] == right[1:]
    assert torch.equal(seen[0][1], seen[1][1])
    assert seen[0][2] == seen[1][2]


def test_the_order_of_ratios_does_not_matter(env: TeacherExposureEnv):
    forth, back = counterfactual(env, [0.0, 0.5, 1.0], 1), counterfactual(env, [1.0, 0.5, 0.0], 1)
    back = back.sort_values("reveal_ratio", ignore_index=True)
    for name in (*OUTCOMES, "return"):
        np.testing.assert_allclose(forth[name], back[name], **CLOSE, err_msg=name)


def test_branches_share_the_base_and_own_their_adapters(env: TeacherExposureEnv):
    twin = env.population.twin(2)
    ours = {parameter.data_ptr() for parameter in env.population.student.model.parameters()}
    assert {parameter.data_ptr() for parameter in twin.student.model.parameters()} == ours
    assert twin.adapters.flat.shape == (2, env.population.adapters.num_parameters)
    twin.reset(0, 1)
    with torch.no_grad():
        twin.adapters.flat.fill_(float("nan"))
    env.step(action(0.5))
    assert torch.isfinite(env.population.adapters.flat).all()
    assert env.population.runs[0].broken is None


def test_a_bare_copy_is_the_base_under_the_adapters(random_model: PreTrainedModel, as_student: Callable[..., Student]):
    """Qwen3 (tied head) and Llama: the same logits as before the adapters, whatever these do, and room for other ones."""
    tokens = torch.arange(5, 15)[None]
    base_logits = random_model(tokens).logits
    student = as_student(random_model)
    adapters = AdapterStack(random_model, 2, 4, 8.0, ("q_proj", "down_proj"))
    with torch.no_grad():
        adapters.flat.fill_(0.1)
    copy = bare_copy(student)
    second = AdapterStack(copy.model, 3, 4, 8.0, ("q_proj", "down_proj"))
    with adapters.use("student", [1]):
        assert not torch.allclose(random_model(tokens).logits, base_logits)
        assert torch.equal(copy.model(tokens).logits, base_logits)
        assert copy.body is getattr(copy.model, copy.model.base_model_prefix)
    assert second.flat.shape == (3, adapters.num_parameters)


@pytest.mark.parametrize("changes", [{"teacher": "ema", "ema_decay": 0.5}, {"gradient_checkpointing": True}])
def test_other_teachers_and_checkpointing_branch_too(tiny_config: EnvConfig, changes: dict[str, Any]):
    env = TeacherExposureEnv(tiny_config.replace(**changes))
    env.reset(seed=3)
    env.step(action(0.5))
    assert_follows(counterfactual(env, [0.3], 2), followed(env, 0.3, 2), env.config.gamma, **CLOSE)


def test_a_student_of_a_vector_environment(tiny_config: EnvConfig):
    env = TeacherExposureVectorEnv(tiny_config, 2)
    env.reset(seed=3)
    env.step(np.array([[0.5], [0.1]], dtype=np.float32))
    scalar = TeacherExposureEnv(tiny_config)
    scalar.restore(env.snapshot(1))
    frame = counterfactual(env, [0.8], 1, student=1)
    assert_follows(frame, followed(scalar, 0.8, 1), env.config.gamma, **CLOSE)
    with pytest.raises(ConfigError, match=r"student in 0\.\.1, got 2"):
        counterfactual(env, [0.8], 1, student=2)


def test_the_closed_form_exactly_and_through_gymnasiums_wrappers():
    env = gymnasium.make("ATESD-Toy-v0", windows=6, toy_best_ratio=0.4, toy_noise=0.1)
    env.reset(seed=1)
    env.step(action(0.9))
    frame = counterfactual(env, np.linspace(0, 1, 11), 3, gamma=1.0)
    for branch, ratio in enumerate(np.linspace(0, 1, 11)):
        infos = followed(env.unwrapped, ratio, 3)
        assert_follows(frame[frame["branch"] == branch], infos, 1.0, rtol=1e-6, atol=1e-8)  # actions are float32
    last = frame[frame["offset"] == 3]
    assert last.loc[last["probe/nll"].idxmin(), "reveal_ratio"] == pytest.approx(0.4), "noise is common, so it cancels"
    assert env.step(action(0.2))[-1]["window"] == 2


def test_a_branch_ends_where_its_episode_does(tiny_config: EnvConfig):
    toy = ToyExposureEnv(windows=3)
    toy.reset(seed=0)
    toy.step(action(0.5))
    frame = counterfactual(toy, [0.0, 1.0], 9)
    assert frame["window"].tolist() == [2, 3] * 2
    assert frame["truncated"].tolist() == [False, True] * 2
    env = TeacherExposureEnv(tiny_config.replace(collapse_nll=1e-6, learning_rate=0.5, windows=9))
    env.reset(seed=0)
    broken = counterfactual(env, [1.0], 9)
    assert broken["terminated"].tolist() == [False] * (len(broken) - 1) + [True]
    assert len(broken) < 9
    assert broken["reward/total"].iloc[-1] == -1e-6


def test_groups_have_a_ratio_each():
    env = ToyExposureEnv(groups=2)
    env.reset(seed=0)
    frame = counterfactual(env, [(0.0, 1.0), (0.5, 0.5)], 1)
    assert frame["reveal_ratio"].tolist() == [0.5, 0.5]
    assert frame["exposure/reveal_ratio_1"].tolist() == [1.0, 0.5]


def test_misuse_is_refused():
    env = ToyExposureEnv()
    with pytest.raises(AtesdError, match="call reset"):
        counterfactual(env, [0.5], 1)
    env.reset(seed=0)
    for arguments, message in (
        (([], 1), "at least one"),
        (([0.5], 0), "windows: expected at least 1"),
        (([1.5], 1), r"reveal ratios in \[0, 1\]"),
    ):
        with pytest.raises(ConfigError, match=message):
            counterfactual(env, *arguments)
    with pytest.raises(ConfigError, match="gamma"):
        counterfactual(env, [0.5], 1, gamma=2.0)
