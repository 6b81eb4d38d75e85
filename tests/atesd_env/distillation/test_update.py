"""One update against an independent implementation: plain peft, full logits, torch autograd, torch's AdamW."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from atesd_env.config import EnvConfig
from atesd_env.distillation.update import Learner
from atesd_env.errors import NonFiniteError
from atesd_env.rollouts.sampling import Rollouts
from atesd_env.rollouts.scoring import forced_rollouts
from atesd_env.student.adapters import AdapterStack

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
NUM_ROWS = 5


def config(**changes: Any) -> EnvConfig:
    return EnvConfig(**{"learning_rate": 1e-2, "max_grad_norm": 1e9, **changes})


@pytest.fixture(params=["fused", "modules"])
def forward(request: pytest.FixtureRequest) -> str:
    """Both ways through the model."""
    return request.param


@pytest.fixture
def make_learner(random_model, as_student, forward):
    """Returns a function that makes a learner on a fresh copy of one random model, with the same random adapters."""

    def make(num_students: int = 1, keep_teacher: bool = False, **changes: Any) -> Learner:
        student = as_student(
            copy.deepcopy(random_model),
            gradient_checkpointing=changes.get("gradient_checkpointing", False),
            forward=forward,
        )
        stack = AdapterStack(student.model, num_students, 4, 8.0, TARGETS, keep_teacher)
        stack.flat.copy_(0.2 * torch.randn(stack.flat.shape[1], generator=torch.Generator().manual_seed(5)))
        return Learner(student, stack, [config(**changes)] * num_students)

    return make


@pytest.fixture
def batch(random_model, as_student, make_prompts) -> tuple[Rollouts, list[list[int]]]:
    """Rollouts of different lengths, and teacher prompts that are longer than the student's."""
    student = as_student(copy.deepcopy(random_model))
    rollouts = forced_rollouts(student, make_prompts(NUM_ROWS), make_prompts(NUM_ROWS, seed=9, shortest=2, longest=7))
    return rollouts, make_prompts(NUM_ROWS, seed=11, shortest=10, longest=20)


def reference_loss(
    base: Any, peft_model: Any, rollouts: Rollouts, teacher_prompts: list[list[int]], cap: float | None = None
) -> torch.Tensor:
    """The paper's loss with full logits, row by row, no padding: mean over rollouts of mean over tokens of KL(T||S).

    With a cap, each token's loss is multiplied by min(cap, p_trainer / p_engine), a constant.
    """
    losses = []
    for row in range(NUM_ROWS):
        answer = rollouts.completion_ids[row][rollouts.completion_mask[row]]
        prompt = rollouts.prompt_ids[row][rollouts.prompt_mask[row]]
        student_ids = torch.cat([prompt, answer])[None]
        teacher_ids = torch.cat([torch.tensor(teacher_prompts[row]), answer])[None]
        student = peft_model(input_ids=student_ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        with torch.no_grad():
            teacher = base(input_ids=teacher_ids).logits[0, len(teacher_prompts[row]) - 1 : -1].log_softmax(-1)
        loss = (teacher.exp() * (teacher - student)).sum(-1)
        if cap is not None:
            assert rollouts.token_log_probs is not None
            engine = rollouts.token_log_probs[row][rollouts.completion_mask[row]]
            own = student.detach().gather(1, answer[:, None])[:, 0]
            loss = loss * (own - engine).exp().clamp(max=cap)
        losses.append(loss.mean())
    return torch.stack(losses).mean()


def in_peft(random_model: Any, learner: Learner) -> Any:
    """Returns plain peft's model with the learner's first adapter."""
    config = LoraConfig(r=4, lora_alpha=8, target_modules=list(TARGETS), lora_dropout=0.0)
    model = get_peft_model(copy.deepcopy(random_model), config)
    start = learner.adapters.state_dict(0).items()
    model.load_state_dict({name.replace(".weight", ".default.weight"): one for name, one in start}, strict=False)
    return model


def test_update_equals_plain_peft_autograd_and_adamw(random_model, make_learner, batch):
    rollouts, teacher_prompts = batch
    learner = make_learner()
    base, reference = copy.deepcopy(random_model), in_peft(random_model, learner)
    optimizer = torch.optim.AdamW([p for p in reference.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)

    for _ in range(3):
        loss = reference_loss(base, reference, rollouts, teacher_prompts)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 1e9)
        optimizer.step()
        ours = learner.update(0, rollouts, teacher_prompts)
        assert ours.loss == pytest.approx(loss.item(), rel=1e-4)
        assert ours.mismatch == pytest.approx(loss.item(), rel=1e-4)
        assert ours.grad_norm == pytest.approx(float(norm), rel=1e-3)
    learned = reference.state_dict()
    for name, matrix in learner.adapters.state_dict(0).items():
        torch.testing.assert_close(matrix, learned[name.replace(".weight", ".default.weight")], rtol=0, atol=2e-4)


def test_another_engines_tokens_are_weighted_by_importance(random_model, make_learner, batch):
    """An engine whose probabilities are half of the trainer's for even tokens, and twice them for odd ones; the cap is 1.5."""
    rollouts, teacher_prompts = batch
    learner = make_learner(importance_cap=1.5)
    base, reference = copy.deepcopy(random_model), in_peft(random_model, learner)
    own = torch.zeros(rollouts.completion_ids.shape)
    for row in range(NUM_ROWS):
        prompt = rollouts.prompt_ids[row][rollouts.prompt_mask[row]]
        answer = rollouts.completion_ids[row][rollouts.completion_mask[row]]
        with torch.no_grad():
            logits = reference(input_ids=torch.cat([prompt, answer])[None]).logits[0, len(prompt) - 1 : -1]
        own[row, : len(answer)] = logits.log_softmax(-1).gather(1, answer[:, None])[:, 0]
    even = rollouts.completion_ids % 2 == 0
    rollouts = dataclasses.replace(rollouts, token_log_probs=own + math.log(2.0) * torch.where(even, -1.0, 1.0))
    loss = reference_loss(base, reference, rollouts, teacher_prompts, cap=1.5)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 1e9)
    ours = learner.update(0, rollouts, teacher_prompts)
    assert ours.loss == pytest.approx(loss.item(), rel=1e-4)
    assert ours.grad_norm == pytest.approx(float(norm), rel=1e-3)
    mask = rollouts.completion_mask
    assert ours.agreement is not None
    assert ours.agreement.num_capped == int((even & mask).sum()) > 0
    assert ours.agreement.means()["engine/log_prob_difference"] == pytest.approx(math.log(2.0), rel=1e-4)
    assert ours.agreement.sum_weight == pytest.approx(float(torch.where(even, 1.5, 0.5)[mask].sum()), rel=1e-4)


@pytest.mark.parametrize("micro_batch_size", [1, 2, 3, 5, 99])
def test_micro_batches_add_up_to_the_whole_batch(make_learner, batch, micro_batch_size: int):
    whole, parts = make_learner(), make_learner(micro_batch_size=micro_batch_size)
    first, second = whole.update(0, *batch), parts.update(0, *batch)
    torch.testing.assert_close(parts.adapters.flat_grad, whole.adapters.flat_grad, rtol=1e-4, atol=1e-7)
    assert second.loss == pytest.approx(first.loss, rel=1e-5)
    assert second.student_entropy == pytest.approx(first.student_entropy, rel=1e-5)


@pytest.mark.parametrize("micro_batch_size", [2, None])
def test_statistics_by_group_are_those_of_the_groups_own_rollouts(make_learner, batch, micro_batch_size: int | None):
    """Micro-batches cut across a group; the third group is empty; asking changes nothing else."""
    rollouts, teacher_prompts = batch
    changes = {"groups": 3, "micro_batch_size": micro_batch_size}
    asked = make_learner(**changes).update(0, *batch, groups=[0, 0, 1, 1, 1])
    plain = make_learner(**changes).update(0, *batch)
    assert dataclasses.replace(asked, by_group=None) == plain
    weights, entropies, mismatches = asked.by_group
    np.testing.assert_allclose(weights, [2 / NUM_ROWS, 3 / NUM_ROWS, 0.0], rtol=1e-6)
    for group, rows in enumerate((slice(0, 2), slice(2, 5))):
        alone = make_learner().update(0, rollouts.rows(rows), teacher_prompts[rows])
        assert entropies[group] / weights[group] == pytest.approx(alone.student_entropy, rel=1e-4)
        assert mismatches[group] / weights[group] == pytest.approx(alone.mismatch, rel=1e-4)


def test_gradient_checkpointing_gives_the_same_gradient(make_learner, batch, forward):
    plain, recomputed = make_learner(), make_learner(gradient_checkpointing=True)
    assert recomputed.student.model.is_activation_checkpointing
    calls = []
    if recomputed.student.fused is None:
        layer = recomputed.student.body.layers[0].mlp
        layer.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    else:
        body = recomputed.student.fused
        compute = body.layer
        body.layer = lambda number, *rest: (calls.append(number) if number == 0 else None, compute(number, *rest))[1]
    plain.update(0, *batch)
    recomputed.update(0, *batch)
    # One pass of the teacher, one of the student, and one more in the student's backward pass.
    assert len(calls) == 3
    torch.testing.assert_close(recomputed.adapters.flat_grad, plain.adapters.flat_grad, rtol=1e-5, atol=1e-8)
    assert not recomputed.student.model.training


def test_gradient_is_clipped_to_the_norm(make_learner, batch):
    free, clipped = make_learner(), make_learner(max_grad_norm=0.01)
    norm = free.update(0, *batch).grad_norm
    assert clipped.update(0, *batch).grad_norm == pytest.approx(norm), "what is reported is the norm before clipping"
    torch.testing.assert_close(clipped.adapters.flat_grad, free.adapters.flat_grad * (0.01 / norm))
    assert float(clipped.adapters.flat_grad.norm()) == pytest.approx(0.01, rel=1e-4)


def test_updates_bring_the_student_to_the_teacher(make_learner, batch):
    learner = make_learner()
    losses = [learner.update(0, *batch).loss for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]


def test_initial_teacher_is_the_bare_base_and_never_moves(make_learner, batch):
    learner = make_learner()
    before = copy.deepcopy(
        {name: tensor for name, tensor in learner.student.model.state_dict().items() if "base" in name}
    )
    learner.update(0, *batch)
    assert learner.teacher_bank is None
    for name, tensor in before.items():
        assert torch.equal(tensor, learner.student.model.state_dict()[name])


def test_averaging_teacher_follows_the_student(make_learner, batch):
    learner = make_learner(keep_teacher=True, teacher="ema", ema_decay=0.75)
    learner.adapters.teacher_flat.copy_(learner.adapters.flat)
    start = learner.adapters.flat.clone()
    learner.update(0, *batch)
    torch.testing.assert_close(learner.adapters.teacher_flat, 0.75 * start + 0.25 * learner.adapters.flat)
    teacher = learner.adapters.teacher_flat.clone()
    learner.update(0, *batch)
    torch.testing.assert_close(learner.adapters.teacher_flat, 0.75 * teacher + 0.25 * learner.adapters.flat)


def test_averaging_teacher_scores_with_its_own_adapter(make_learner, make_prompts):
    """A teacher with the student's weights and the student's prompt has no mismatch; the bare base has."""
    prompts = make_prompts(NUM_ROWS)
    same = make_learner(keep_teacher=True, teacher="ema", ema_decay=0.9)
    same.adapters.teacher_flat.copy_(same.adapters.flat)
    rollouts = forced_rollouts(same.student, prompts, make_prompts(NUM_ROWS, seed=9))
    assert same.update(0, rollouts, prompts).mismatch < 1e-6
    assert make_learner().update(0, rollouts, prompts).mismatch > 1e-3


def test_other_students_are_untouched(make_learner, batch):
    learner = make_learner(num_students=3)
    before = learner.adapters.flat.clone()
    learner.update(1, *batch)
    assert not torch.equal(learner.adapters.flat[1], before[1])
    assert torch.equal(learner.adapters.flat[[0, 2]], before[[0, 2]])
    assert not learner.optimizers[0].state


def test_empty_rollouts_carry_no_loss_and_no_gradient(make_learner, batch):
    rollouts, teacher_prompts = batch
    empty = dataclasses.replace(rollouts, completion_mask=torch.zeros_like(rollouts.completion_mask))
    learner = make_learner()
    before = learner.adapters.flat.clone()
    update = learner.update(0, empty, teacher_prompts)
    assert update.loss == update.grad_norm == 0.0
    assert torch.equal(learner.adapters.flat, before)


def test_one_empty_rollout_among_others_scales_the_loss(make_learner, batch):
    """Four fifths of the batch's weight are left when one of five rollouts is empty (the mean is over all rollouts)."""
    rollouts, teacher_prompts = batch
    mask = rollouts.completion_mask.clone()
    mask[0] = False
    partly = dataclasses.replace(rollouts, completion_mask=mask)
    rest = make_learner().update(0, rollouts.rows(slice(1, None)), teacher_prompts[1:])
    for learner in (make_learner(), make_learner(micro_batch_size=1)):
        assert learner.update(0, partly, teacher_prompts).loss == pytest.approx(0.8 * rest.loss, rel=1e-5)


def test_non_finite_loss_names_the_student_and_leaves_its_adapter(make_learner, batch):
    learner = make_learner(num_students=2)
    learner.adapters.flat[1].fill_(float("nan"))
    learner.adapters.flat[1, : learner.adapters.num_parameters // 2] = 0.0
    before = learner.adapters.flat.clone()
    with pytest.raises(NonFiniteError, match="student 1"):
        learner.update(1, *batch)
    assert torch.equal(learner.adapters.flat.nan_to_num(7.0), before.nan_to_num(7.0))
    assert not learner.student.model.training
    assert learner.adapters.active is None


def test_bfloat16_base_learns(random_model, as_student, batch):
    student = as_student(copy.deepcopy(random_model).to(torch.bfloat16))
    stack = AdapterStack(student.model, 1, 4, 8.0, TARGETS)
    stack.initialise(0, torch.Generator().manual_seed(0))
    learner = Learner(student, stack, [config()])
    losses = [learner.update(0, *batch).loss for _ in range(20)]
    assert stack.flat.dtype == torch.float32
    assert losses[-1] < 0.9 * losses[0]


def test_scored_positions_are_those_that_predict_the_answer(make_learner, batch):
    """Confidence is the log-probability of the answer's own tokens: shifting by one position changes it."""
    rollouts, teacher_prompts = batch
    learner = make_learner()
    rows = []
    with torch.no_grad(), learner.adapters.use("student", [0]):
        for row in range(NUM_ROWS):
            prompt = rollouts.prompt_ids[row][rollouts.prompt_mask[row]]
            answer = rollouts.completion_ids[row][rollouts.completion_mask[row]]
            log_probs = learner.student.model(input_ids=torch.cat([prompt, answer])[None]).logits[0].log_softmax(-1)
            rows.append(log_probs[len(prompt) - 1 : -1].gather(1, answer[:, None]).mean())
    assert learner.update(0, rollouts, teacher_prompts).log_confidence == pytest.approx(
        float(torch.stack(rows).mean()), rel=1e-4
    )


@pytest.mark.parametrize("with_engine", [False, True])
def test_a_loss_horizon_scores_the_rollouts_beginnings(make_learner, batch, with_engine: bool):
    """The same gradient, statistics and mismatches as of rollouts that were cut there; a horizon beyond all of them changes nothing."""
    rollouts, shown = batch
    if with_engine:
        engine = torch.randn(rollouts.completion_ids.shape, generator=torch.Generator().manual_seed(3)) - 3
        rollouts = dataclasses.replace(rollouts, token_log_probs=engine)
    cut = dataclasses.replace(
        rollouts,
        completion_ids=rollouts.completion_ids[:, :3],
        completion_mask=rollouts.completion_mask[:, :3],
        token_log_probs=rollouts.token_log_probs[:, :3] if rollouts.token_log_probs is not None else None,
    )
    assert int(cut.lengths.min()) < 3 < int(rollouts.lengths.max()), "some rollouts end before it"
    for given, horizon in ((cut, 3), (rollouts, 99)):
        ours, plain = make_learner(loss_horizon=horizon), make_learner()
        before = ours.mismatches(0, rollouts, [shown]), plain.mismatches(0, given, [shown])
        np.testing.assert_array_equal(*before)
        assert ours.update(0, rollouts, shown) == plain.update(0, given, shown)
        assert torch.equal(ours.adapters.flat, plain.adapters.flat)


def test_end_tokens_are_merged_where_it_is_asked_for(make_learner, batch):
    """The student's own end tokens: several of them change the loss, one alone does not."""
    rollouts, shown = batch
    losses = {}
    for ends in ((3,), (3, 5, 8)):
        for merged in (False, True):
            learner = make_learner(merge_end_tokens=merged)
            learner.student = dataclasses.replace(learner.student, eos_token_ids=ends)
            losses[len(ends), merged] = learner.update(0, rollouts, shown).loss
    assert losses[1, False] == losses[1, True] == losses[3, False]
    assert losses[3, True] < losses[3, False], "merging words cannot add divergence"


@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_mismatches_under_several_exposures_are_those_of_updates(make_learner, batch, make_prompts, micro_batch_size):
    """The mean over rollouts is what an update measures before its step; adapters and gradients stay as they are."""
    rollouts, shown = batch
    others = make_prompts(NUM_ROWS, seed=12, shortest=4, longest=9)
    learner = make_learner(num_students=2, micro_batch_size=micro_batch_size)
    with torch.no_grad():
        learner.adapters.flat[0].zero_()  # another student
    before = learner.adapters.flat.clone()
    found = learner.mismatches(1, rollouts, [shown, others])
    assert found.shape == (2, NUM_ROWS)
    assert torch.equal(learner.adapters.flat, before)
    assert not learner.adapters.flat_grad.any()
    for means, prompts in zip(found, (shown, others), strict=True):
        measured = make_learner(num_students=2).update(1, rollouts, prompts).mismatch
        assert means.mean() == pytest.approx(measured, rel=1e-5)
    alone = learner.mismatches(1, rollouts.rows(slice(3, 4)), [shown[3:4]])
    assert alone[0, 0] == pytest.approx(found[0, 3], rel=1e-4)
