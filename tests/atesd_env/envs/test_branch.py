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
from atesd_env.envs.branch import OUTCOMES, counterfactual, exposure_scores
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
            exposure_scores(env, [0.0, 1.0])
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


@pytest.mark.parametrize("teacher", ["initial", "ema"])
def test_grounded_scores_are_those_of_the_windows_to_come(tiny_config: EnvConfig, teacher: str):
    """A fixed teacher's but for the order of a sum. An averaged one moves with the window, unless the student stands still."""
    moves = {"learning_rate": 1e-12} if teacher == "ema" else {}
    env = TeacherExposureEnv(tiny_config.replace(teacher=teacher, **moves))
    env.reset(seed=3)
    ratios = [0.0, 0.4, 1.0]
    scores = exposure_scores(env, ratios, with_mismatch=False)
    expected = [followed(env, ratio, 1)[0]["probe/grounded"] for ratio in ratios]
    np.testing.assert_allclose(scores.grounded[:, 0], expected, rtol=1e-12 if teacher == "initial" else 1e-6)
    assert len(set(expected)) == 3
    assert np.isnan(scores.mismatch).all()
    assert scores.num_sampled_tokens == 0


def test_scores_of_groups_are_means_over_their_problems(tiny_config: EnvConfig):
    """Together they are the score of all; asked twice, or of the vector environment's student, they are the same."""
    env = TeacherExposureEnv(tiny_config.replace(groups=2, probe_size=8))
    env.reset(seed=3)
    env.step(action(0.2, 0.9))
    instance = env.population.instances[0]
    counts = np.bincount([instance.groups.group(problem) for problem in instance.probe.problems], minlength=2)
    assert (counts > 0).all()
    first, again = exposure_scores(env, [0.0, 0.5, 1.0]), exposure_scores(env, [0.0, 0.5, 1.0])
    np.testing.assert_array_equal(first.mismatch, again.mismatch)
    assert (first.mismatch > 0).all()
    assert len(np.unique(first.mismatch)) > 3
    expected = [followed_score(env, ratio) for ratio in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(first.grounded @ counts / 8, expected, rtol=1e-9)
    envs = TeacherExposureVectorEnv(env.config, 2)
    envs.reset(seed=7)
    envs.restore(1, env.snapshot())
    second = exposure_scores(envs, [0.0, 0.5, 1.0], student=1)
    np.testing.assert_allclose(second.mismatch, first.mismatch, **CLOSE)
    assert second.num_sampled_tokens == first.num_sampled_tokens


def followed_score(env: Any, ratio: float) -> float:
    state = env.snapshot()
    score = env.step(action(ratio, ratio))[-1]["probe/grounded"]
    env.restore(state)
    return score


def test_the_mismatch_of_some_problems_and_what_asking_costs(env: TeacherExposureEnv):
    """Tokens by hand: of 6 problems the references behind each prompt, of the first 2 the rollouts, once and behind each."""
    ratios = [0.0, 1.0]
    few, all_ = exposure_scores(env, ratios, num_problems=2), exposure_scores(env, ratios)
    assert not np.array_equal(few.mismatch, all_.mismatch)
    np.testing.assert_array_equal(few.grounded, all_.grounded)
    np.testing.assert_array_equal(exposure_scores(env, ratios, num_problems=6).mismatch, all_.mismatch)
    probe, builder = env.population.instances[0].probe, env.population.instances[0].builder
    shown = [[len(builder.teacher_prompt(one, ratio).token_ids) for one in probe.problems] for ratio in ratios]
    references = sum(len(builder.reference_ids(one, env.config.probe_max_tokens)) for one in probe.problems)
    plain = sum(len(builder.student_prompt(one)) for one in probe.problems[:2])
    behind = plain + sum(sum(lengths[:2]) for lengths in shown) + 3 * few.num_sampled_tokens
    assert few.num_scored_tokens == sum(map(sum, shown)) + 2 * references + behind
    assert 0 < few.num_sampled_tokens < all_.num_sampled_tokens


def test_each_run_and_each_moment_samples_rollouts_of_its_own(tiny_config: EnvConfig):
    """The students are all the same: fresh, or standing still for a window."""
    env = TeacherExposureEnv(tiny_config.replace(learning_rate=1e-12))
    mismatches = []
    for seed in (3, 4):
        env.reset(seed=seed)
        mismatches.append(exposure_scores(env, [1.0]).mismatch.item())
    env.step(action(1.0))
    assert len({*mismatches, exposure_scores(env, [1.0]).mismatch.item()}) == 3


def test_scores_of_the_closed_form_are_its_own():
    env = ToyExposureEnv(groups=2, toy_best_ratio=0.5, toy_group_spread=1.0)
    env.reset(seed=0)
    for _ in range(9):
        env.step(action(0.0, 0.0))  # the first group learns, the second does not
    scores = exposure_scores(env, [0.0, 1.0])
    left = (np.array(env.snapshot().nll) - 0.5) / 3.5
    assert left[0] < 0.9 < left[1]
    np.testing.assert_allclose(scores.grounded, [[-0.3, -0.3], [-0.2, -0.2]])
    np.testing.assert_allclose(scores.mismatch, np.outer([0.5, 1.0], 0.5 + 0.5 * left))
    assert scores[2:] == (0, 0)


def test_who_cannot_be_asked_about_ratios_says_so():
    env = ToyExposureEnv()
    with pytest.raises(AtesdError, match="exposure_scores: expected a running episode"):
        exposure_scores(env, [0.5])
    env.reset(seed=0)
    for options, message in (
        ({"ratios": []}, "ratios: expected at least one reveal ratio"),
        ({"ratios": [1.5]}, r"reveal ratios in \[0, 1\]"),
        ({"ratios": [0.5], "num_problems": 0}, "num_problems: expected at least 1, got 0"),
        ({"ratios": [0.5], "student": 1}, r"student in 0\.\.0, got 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            exposure_scores(env, **options)
