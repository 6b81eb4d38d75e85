"""The environment's contract: both checkers, exact twins, branches, pickling, the end of an episode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

import atesd_env  # noqa: F401  (registers the ids)
from atesd_env.config import EnvConfig, preset
from atesd_env.envs.columns import COLUMNS, HEALTH_COLUMNS
from atesd_env.envs.observation import FEATURE_NAMES
from atesd_env.errors import AtesdError
from atesd_env.population.environments import TeacherExposureEnv

SB3_ADVICE = "We recommend you to use a symmetric and normalized Box action space"


@pytest.fixture
def env(tiny_config: EnvConfig) -> TeacherExposureEnv:
    return TeacherExposureEnv(tiny_config)


def play(env: TeacherExposureEnv, seed: int, ratios: list[float]) -> list[tuple[Any, ...]]:
    """Plays windows and returns everything that can be observed of them, adapter bits included."""
    seen: list[tuple[Any, ...]] = [env.reset(seed=seed)]
    for ratio in ratios:
        step = env.step(np.array([ratio], dtype=np.float32))
        seen.append((*step, env.population.adapters.flat.clone(), env.samples(99)))
    return seen


def assert_same(first: list[tuple[Any, ...]], second: list[tuple[Any, ...]]) -> None:
    assert len(first) == len(second)
    for left, right in zip(first, second, strict=True):
        np.testing.assert_array_equal(left[0], right[0])
        assert left[1:5] == right[1:5]
        assert torch.equal(left[-2], right[-2]) if len(left) > 5 else True
        assert left[-1] == right[-1]


def test_twins_are_identical_over_an_episode_and_another_seed_differs(tiny_config: EnvConfig):
    ratios = [0.2, 0.9, 0.5]
    first = play(TeacherExposureEnv(tiny_config), 5, ratios)
    assert_same(first, play(TeacherExposureEnv(tiny_config), 5, ratios))
    other = play(TeacherExposureEnv(tiny_config), 6, ratios)
    assert not torch.equal(first[-1][-2], other[-1][-2])
    assert first[1][4]["student/loss"] != other[1][4]["student/loss"]


def test_another_action_differs_where_it_should(env: TeacherExposureEnv):
    """Same seed, same first rollouts: what the teacher sees changes the loss, the gradient and the adapter."""
    low, high = play(env, 5, [0.0]), play(env, 5, [1.0])
    assert low[1][-1][0]["problem"] == high[1][-1][0]["problem"]
    assert low[1][4]["exposure/shown_ratio"] == 0.0
    assert high[1][4]["exposure/shown_ratio"] == 1.0
    assert low[1][4]["student/loss"] != high[1][4]["student/loss"]
    assert not torch.equal(low[1][-2], high[1][-2])


def test_without_a_teachers_context_the_action_is_without_effect(tiny_config: EnvConfig):
    env = TeacherExposureEnv(tiny_config.replace(exposure="none"))
    low, high = play(env, 5, [0.0]), play(env, 5, [1.0])
    assert torch.equal(low[1][-2], high[1][-2])
    # At the first update student and teacher are the same network with the same prompt.
    config = tiny_config.replace(exposure="none", hold_window=1)
    assert play(TeacherExposureEnv(config), 5, [0.5])[1][4]["student/mismatch"] < 1e-6


def test_row_has_every_column_and_accuracy_only_when_measured(env: TeacherExposureEnv):
    steps = play(env, 0, [0.5, 0.5, 0.5])
    for number, step in enumerate(steps[1:], start=1):
        info = step[4]
        assert set(info) == {column.name for column in (*COLUMNS, *HEALTH_COLUMNS)}
        assert info["window"] == number
        assert info["update"] == 2 * number
        assert (info["probe/accuracy"] is None) == (number == 1), "every second window, and the last"
        assert info["rollout/num_tokens"] == info["rollout/length"] * 8
    assert env.feature_names == FEATURE_NAMES
    assert set(env.timings) == {"time/rollout_sec", "time/update_sec", "time/probe_sec"}
    assert all(seconds > 0 for seconds in env.timings.values())


def test_restored_snapshot_repeats_and_a_branch_leaves_its_parent(env: TeacherExposureEnv):
    env.reset(seed=4)
    env.step(np.array([0.3], dtype=np.float32))
    state = env.snapshot()

    def go_on(ratio: float) -> tuple[Any, ...]:
        env.restore(state)
        steps = [env.step(np.array([ratio], dtype=np.float32)) for _ in range(2)]
        return steps, env.population.adapters.flat.clone()

    first, branch, again = go_on(0.8), go_on(0.1), go_on(0.8)
    assert not torch.equal(first[1], branch[1])
    assert torch.equal(first[1], again[1])
    for left, right in zip(first[0], again[0], strict=True):
        np.testing.assert_array_equal(left[0], right[0])
        assert left[1:] == right[1:]


def test_collapse_terminates_with_a_reason_and_a_penalty(tiny_config: EnvConfig):
    env = TeacherExposureEnv(tiny_config.replace(learning_rate=5.0, max_grad_norm=100.0, collapse_nll=0.5, windows=20))
    env.reset(seed=0)
    for _ in range(20):
        observation, reward, terminated, truncated, info = env.step(np.array([1.0], dtype=np.float32))
        if terminated:
            break
    assert terminated
    assert not truncated
    assert reward == -0.5
    assert "collapse_nll=0.5" in info["termination_reason"]
    assert env.observation_space.contains(observation)
    with pytest.raises(AtesdError, match="call reset"):
        env.step(np.array([1.0], dtype=np.float32))


def test_non_finite_loss_terminates_with_a_reason(env: TeacherExposureEnv):
    env.reset(seed=0)
    env.step(np.array([1.0], dtype=np.float32))
    env.population.adapters.flat.fill_(float("nan"))
    observation, reward, terminated, _, info = env.step(np.array([1.0], dtype=np.float32))
    assert terminated
    assert reward == -env.config.collapse_nll
    assert info["termination_reason"].startswith("non-finite")
    assert info["student/loss"] is None
    assert env.observation_space.contains(observation)
    env.reset(seed=0)
    assert torch.isfinite(env.population.adapters.flat).all()


def test_difficulty_groups_get_their_own_ratio(tiny_config: EnvConfig):
    env = TeacherExposureEnv(tiny_config.replace(groups=2, num_rollouts=12))
    env.reset(seed=0)
    *_, info = env.step(np.array([0.0, 1.0], dtype=np.float32))
    assert (info["exposure/reveal_ratio_0"], info["exposure/reveal_ratio_1"]) == (0.0, 1.0)
    for sample in env.samples(12):
        is_hard = sample["problem"].count("+") == 4
        assert sample["num_shown"] == (sample["num_steps"] if is_hard else 0)
    assert 0.0 < info["exposure/shown_ratio"] < 1.0


def test_statistics_by_group_are_of_its_rollouts_and_null_without_one(tiny_config: EnvConfig):
    env = TeacherExposureEnv(tiny_config.replace(groups=2, num_rollouts=12, hold_window=1))
    env.reset(seed=0)
    *_, info = env.step(np.array([0.0, 1.0], dtype=np.float32))
    lengths: dict[int, list[int]] = {0: [], 1: []}
    for sample in env.samples(12):
        is_finished = len(sample["rollout"]) < env.config.max_new_tokens  # a token is a character, and one ends it
        lengths[sample["problem"].count("+") == 4].append(len(sample["rollout"]) + is_finished)
    assert all(lengths.values())
    for group, its_lengths in lengths.items():
        assert info[f"rollout/length_{group}"] == pytest.approx(np.mean(its_lengths))
        others = (info[f"student/{name}_{group}"] - info[f"student/{name}"] for name in ("entropy", "mismatch"))
        assert all(others), "no group is the whole batch"
    env = TeacherExposureEnv(tiny_config.replace(groups=2, num_rollouts=1, hold_window=1))
    env.reset(seed=0)
    *_, info = env.step(np.array([0.5, 0.5], dtype=np.float32))
    measured = [group for group in range(2) if info[f"rollout/length_{group}"] is not None]
    assert len(measured) == 1
    assert info[f"student/mismatch_{measured[0]}"] == pytest.approx(info["student/mismatch"])
    assert info[f"student/entropy_{1 - measured[0]}"] is None


def test_samples_show_both_prompts(env: TeacherExposureEnv):
    env.reset(seed=0)
    env.step(np.array([0.5], dtype=np.float32))
    (sample,) = env.samples(1)
    assert sample["student_prompt"] == f"<|user|>{sample['problem']}<|end|><|assistant|>"
    assert sample["teacher_prompt"].startswith(f"<|user|>{sample['problem']}|")
    assert sample["teacher_prompt"].endswith(f"#{sample['answer']}<|end|><|assistant|>")


def test_pass_at_k_column(tiny_config: EnvConfig):
    env = TeacherExposureEnv(tiny_config.replace(probe_pass_k=3, min_addends=2, max_addends=3))
    env.reset(seed=0)
    *_, info = env.step(np.array([0.5], dtype=np.float32))
    assert 0.5 < info["probe/pass_at_k"] <= 1.0, "the packaged student solves short sums"


def test_wide_vocabulary_qwen3_runs_a_window(tmp_path, qwen_tokenizer, tiny_config: EnvConfig):
    """Qwen3 of random weights and small width, with the full vocabulary of 151,936 and Qwen's own tokens."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=151_936,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=16,
                tie_word_embeddings=True,
                max_position_embeddings=2048,
            )
        )
    model.save_pretrained(tmp_path / "narrow")
    qwen_tokenizer.save_pretrained(tmp_path / "narrow")
    config = preset(
        "ATESD-Qwen3-1.7B-v0",
        student=str(tmp_path / "narrow"),
        device="cpu",
        windows=1,
        hold_window=1,
        num_rollouts=3,
        micro_batch_size=2,
        max_new_tokens=6,
        max_prompt_tokens=600,
        probe_size=2,
        probe_max_tokens=30,
        learning_rate=1e-2,
    )
    env = TeacherExposureEnv(config)
    env.reset(seed=0)
    before = env.population.adapters.flat.clone()
    _, _, terminated, truncated, info = env.step(np.array([0.5], dtype=np.float32))
    assert (terminated, truncated) == (False, True)
    assert info["student/entropy"] > 10, "random weights are nearly uniform over 151,936 words (log V = 11.9)"
    assert not torch.equal(env.population.adapters.flat, before)
    assert "<think>\n\n</think>" in env.samples(1)[0]["student_prompt"]
