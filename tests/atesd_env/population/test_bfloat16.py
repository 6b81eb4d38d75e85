"""A 16-bit base with float32 adapters in every phase of a window, against the same in float32.

A number of bfloat16 is right to 1/256. Adapters of the size used here move a token's log-probability by 0.4 to 0.6 nats on average, so
what is near float32 to 0.03 has them, and has them at their right size.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atesd_env.config import preset
from atesd_env.evaluation.evaluator import Evaluator, Request
from atesd_env.population.decision import Decision
from atesd_env.population.population import Population
from atesd_env.rollouts.decoding import begin_decoding
from atesd_env.rollouts.sampling import Rollouts, SamplingSpec, generate, left_pad
from atesd_env.rollouts.scoring import forced_rollouts, scored_hidden, token_log_probs
from atesd_env.tasks.base import Task

NATS = 0.03
"""How far a mean of log-probabilities may be from float32's."""
SHARE = 0.06
"""How far a gradient, or what a step changes, may be from float32's, as a share of its own norm."""
HALF = np.array([[0.5]])


def population(dtype: str, forward: str, num_students: int = 1, **fields: Any) -> Population:
    """Returns students of the packaged base whose adapters, and whose teachers', change much and each other things."""
    config = preset(
        "ATESD-Tiny-v0",
        **{"windows": 4, "hold_window": 2, "num_rollouts": 8, "probe_size": 8, "max_new_tokens": 32, "teacher": "ema"}
        | {"dtype": dtype, "forward": forward, "probe_accuracy_every": 0, "ema_decay": 0.75}
        | fields,
    )
    one = Population(config, num_students)
    generator = torch.Generator().manual_seed(1)
    for index in range(num_students):
        one.reset(index, 3 + index)
    for flat in (one.adapters.flat, one.adapters.teacher_flat):
        assert flat is not None
        flat.add_(0.06 * torch.randn(flat.shape, generator=generator))
    return one


@pytest.fixture(params=["fused", "modules"])
def both(request: pytest.FixtureRequest) -> tuple[Population, Population]:
    """Two students each, in bfloat16 and in float32."""
    return population("bfloat16", request.param, 2), population("float32", request.param, 2)


def prompts_of(one: Population) -> list[list[int]]:
    builder = one.instances[0].builder
    return [list(builder.student_prompt(problem)) for problem in one.instances[0].probe.problems]


def references(one: Population) -> Rollouts:
    """Returns the probe's reference solutions as rollouts."""
    return forced_rollouts(one.student, prompts_of(one), one.instances[0].probe._references)


def log_probs(one: Population, bank: Any, students: list[int]) -> torch.Tensor:
    rollouts = references(one)
    with torch.no_grad(), one.adapters.use(bank, students):
        hidden = scored_hidden(one.student, rollouts.prompt_ids, rollouts.prompt_mask, rollouts)
        assert hidden.dtype == one.student.head_weight.dtype
        return token_log_probs(one.student, hidden, rollouts.completion_ids[rollouts.completion_mask])


def test_what_is_16_bit_and_what_is_not(both: tuple[Population, Population]) -> None:
    half, _ = both
    row = half.window(np.full((2, 1), 0.5))[0]
    assert all(
        parameter.dtype == torch.bfloat16
        for parameter in half.student.model.parameters()
        if not parameter.requires_grad
    )
    state = half.snapshot(0)
    moments = state.optimizer["state"][0]
    for tensor in (half.adapters.flat, half.adapters.flat_grad, half.adapters.teacher_flat, state.adapter):
        assert tensor.dtype == torch.float32
    assert moments["exp_avg"].dtype == moments["exp_avg_sq"].dtype == torch.float32
    assert all(isinstance(value, int | float | None) for value in row.values())


@pytest.mark.parametrize("bank", ["student", "teacher"])
def test_scoring(both: tuple[Population, Population], bank: str) -> None:
    half, whole = both
    for index in range(2):
        exact = log_probs(whole, bank, [index])
        assert float((exact - log_probs(whole, None, [])).abs().mean()) > 10 * NATS, (
            "adapters that change little prove little"
        )
        assert float((log_probs(half, bank, [index]) - exact).abs().mean()) < NATS


def test_sampling(both: tuple[Population, Population]) -> None:
    """Token after token of the same answers, two students' rows together; and rollouts of the same random numbers."""
    found = []
    for one in both:
        prompts = prompts_of(one)
        answers = torch.tensor([reference[:8] for reference in one.instances[0].probe._references])
        told = []
        with torch.no_grad(), one.adapters.use("student", [0, 1]):
            decoding = begin_decoding(one.student, *left_pad(prompts, one.student.pad_token_id), 8, 2)
            for turn in range(8):
                assert decoding.hidden.dtype == one.student.head_weight.dtype
                told.append(token_log_probs(one.student, decoding.hidden, answers[:, turn]))
                decoding.step(answers[:, turn])
        uniforms = torch.rand(len(prompts), 16, generator=torch.Generator().manual_seed(0))
        with one.adapters.use("student", [0, 1]):
            rollouts = generate(one.student, prompts, SamplingSpec(16), uniforms, 2)
        found.append((torch.stack(told), rollouts.completion_ids[:, :4]))
    (half, half_tokens), (whole, whole_tokens) = found
    assert float((half - whole).abs().mean()) < NATS
    assert float((half_tokens == whole_tokens).float().mean()) > 0.8


def test_update(both: tuple[Population, Population]) -> None:
    """On the same rollouts: statistics, gradient, step, and the averaged teacher after it."""
    found = []
    for one in both:
        rollouts = references(one)
        builder = one.instances[0].builder
        problems = one.instances[0].probe.problems
        taught = [list(builder.teacher_prompt(problem, 0.5, "reference", problem).token_ids) for problem in problems]
        before = one.adapters.flat[1].clone(), one.adapters.teacher_flat[1].clone()
        statistics = one.learner.update(1, rollouts, taught)
        gradient = one.adapters.flat_grad[1].clone()
        torch.testing.assert_close(one.adapters.teacher_flat[1], before[1].lerp(one.adapters.flat[1].detach(), 0.25))
        found.append((dataclasses.asdict(statistics), gradient, one.adapters.flat[1].detach() - before[0]))
    (half, half_gradient, half_step), (whole, gradient, step) = found
    for name in ("loss", "mismatch", "student_entropy", "teacher_entropy", "log_confidence"):
        assert half[name] == pytest.approx(whole[name], abs=NATS), name
    assert half["grad_norm"] == pytest.approx(whole["grad_norm"], rel=SHARE)
    assert float((half_gradient - gradient).norm() / gradient.norm()) < SHARE
    # AdamW's first step is the gradient's sign, which rounding turns where the gradient is next to nothing.
    assert float(torch.nn.functional.cosine_similarity(half_step, step, dim=0)) > 0.95


def test_checkpointed_update_is_the_same_bit_for_bit() -> None:
    gradients = []
    for fields in ({}, {"gradient_checkpointing": True}):
        one = population("bfloat16", "fused", **fields)
        one.window(HALF)
        gradients.append(one.adapters.flat_grad.clone())
    assert torch.equal(*gradients)


def test_probe(both: tuple[Population, Population]) -> None:
    half, _ = both
    for index in range(2):
        measured = [one.instances[index].probe.nll(index) for one in both]
        assert measured[0] == pytest.approx(measured[1], abs=NATS)
        grounded = [one.instances[index].grounded(index, Decision(HALF[0]), "teacher") for one in both]
        assert grounded[0] == pytest.approx(grounded[1], abs=NATS)
    assert abs(half.instances[0].probe.nll(0) - half.instances[1].probe.nll(1)) > NATS, "each student has its own"


def test_evaluation(both: tuple[Population, Population], tmp_path: Path) -> None:
    """Greedy answers of a saved adapter, where no two tokens are near each other in what they are thought to be."""
    texts = []
    for one in both:
        one.save_adapter(0, tmp_path / one.config.dtype)
        problems = one.instances[0].probe.problems
        task: Task = one.instances[0].task
        evaluator = Evaluator(one.config, task, SamplingSpec(12, temperature=0.0), seed=0, batch_size=8)
        rows = evaluator.samples("one", tmp_path / one.config.dtype, [Request(problem, 0) for problem in problems])
        texts.append([row.text for row in rows])
    agreed = [
        sum(a == b for a, b in zip(*pair, strict=False)) / max(map(len, pair)) for pair in zip(*texts, strict=True)
    ]
    assert np.mean(agreed) > 0.8, texts


def test_snapshot_and_restore_repeat_bit_for_bit(both: tuple[Population, Population]) -> None:
    half, _ = both
    ratios = np.full((2, 1), 0.5)
    half.window(ratios)
    states = [half.snapshot(index) for index in range(2)]
    wanted, adapters = half.window(ratios), half.adapters.flat.clone()
    for index, state in enumerate(states):
        half.restore(index, half.restored(index, half.checkpoint(index)))
        half.restore(index, state)
    assert half.window(ratios) == wanted
    assert torch.equal(half.adapters.flat, adapters)


def test_a_run_in_16_bits_is_near_one_in_32() -> None:
    """Two windows of training: the probe's loss falls by nearly the same."""
    fallen = []
    for dtype in ("bfloat16", "float32"):
        one = population(dtype, "fused", num_rollouts=16)
        before = one.instances[0].probe.nll(0)
        fallen.append(before - [one.window(HALF)[0]["probe/nll"] for _ in range(2)][-1])
    assert fallen[1] > 3 * NATS
    assert fallen[0] == pytest.approx(fallen[1], rel=0.3)
