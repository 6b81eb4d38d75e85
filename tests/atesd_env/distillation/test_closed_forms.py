"""The closed forms: by hand on three words, against float64 autograd, and what they must reduce to."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atesd_env.distillation.chunked import token_divergence
from atesd_env.distillation.divergence import DivergenceSpec, forward_kl
from tests.atesd_env.distillation.divergence_cases import (
    KINDS,
    SPECS,
    by_autograd,
    by_token_divergence,
    every_spec,
    make_inputs,
    merged,
    plain_loss,
    relative_error,
    spec_name,
)


def test_fast_path_on_three_words_by_hand() -> None:
    # With the identity as head the hidden states are the logits, and log-probabilities are logits.
    student = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64).log()
    teacher = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64).log()
    head, tokens = torch.eye(3, dtype=torch.float64), torch.tensor([2])
    forward = 0.6 * math.log(3) + 0.1 * math.log(0.2)
    reverse = 0.2 * math.log(1 / 3) + 0.5 * math.log(5)

    result, gradient = by_token_divergence(student, teacher, head, tokens, DivergenceSpec("forward_kl"))
    assert result.loss.item() == pytest.approx(forward, rel=1e-12)
    assert gradient[0].tolist() == pytest.approx([0.2 - 0.6, 0.0, 0.5 - 0.1], abs=1e-12)
    result, gradient = by_token_divergence(student, teacher, head, tokens, DivergenceSpec("reverse_kl"))
    assert result.loss.item() == pytest.approx(reverse, rel=1e-12)
    expected = [0.2 * (math.log(1 / 3) - reverse), 0.3 * -reverse, 0.5 * (math.log(5) - reverse)]
    assert gradient[0].tolist() == pytest.approx(expected, rel=1e-12)
    # Top 1 keeps the first word; the other two are one bucket, 0.8 of the student's mass and 0.4 of the teacher's.
    result, gradient = by_token_divergence(student, teacher, head, tokens, DivergenceSpec("forward_kl", top_k=1))
    assert result.loss.item() == pytest.approx(0.6 * math.log(3) + 0.4 * math.log(0.5), rel=1e-12)
    assert gradient[0].tolist() == pytest.approx([-0.4, 0.4 * 0.3 / 0.8, 0.4 * 0.5 / 0.8], rel=1e-12)

    assert result.mismatch.item() == pytest.approx(forward, rel=1e-12)  # full vocabulary, though the loss is not
    entropies = [-sum(p * math.log(p) for p in words) for words in ([0.2, 0.3, 0.5], [0.6, 0.3, 0.1])]
    assert [result.student_entropy.item(), result.teacher_entropy.item()] == pytest.approx(entropies, rel=1e-12)
    assert [result.student_log_prob.item(), result.teacher_log_prob.item()] == pytest.approx(
        [math.log(0.5), math.log(0.1)], rel=1e-12
    )
    assert result.top1_disagreement.item() == 1.0


# Against autograd.


@every_spec
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=["f64", "f32"])
def test_loss_and_gradient_equal_float64_autograd(spec: DivergenceSpec, dtype: torch.dtype, tolerance: float) -> None:
    student, teacher, head, tokens = make_inputs(40, 16, 300, gap=0.6, dtype=dtype)
    head = head / 2  # logits of about +-6: much larger ones lose digits in the float32 product already
    loss, gradient = by_autograd(student, teacher, head, spec)
    if spec.token_clip is not None:
        assert 0 < int((loss == spec.token_clip).sum()) < len(loss)  # both branches are in the comparison
    result, fast_gradient = by_token_divergence(student, teacher, head, tokens, spec)
    assert result.loss.dtype == fast_gradient.dtype == dtype
    assert relative_error(result.loss, loss) < tolerance
    assert relative_error(fast_gradient, gradient) < tolerance


@every_spec
def test_gradcheck(spec: DivergenceSpec) -> None:
    student, teacher, head, tokens = make_inputs()
    leaf = student.requires_grad_()
    assert torch.autograd.gradcheck(lambda hidden: token_divergence(hidden, teacher, head, tokens, spec).loss, leaf)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_keeps_more_digits_than_the_plain_definition(kind: Any) -> None:
    # A small divergence over a large flat vocabulary: log-probabilities near -10 carry rounding of 5e-7 each.
    student, teacher, head, tokens = make_inputs(8, 8, 20_000, gap=0.1, dtype=torch.float32)
    student, teacher, spec = student / 4, teacher / 4, DivergenceSpec(kind)
    exact, exact_gradient = by_autograd(student, teacher, head, spec)
    plain = plain_loss((student @ head.T).log_softmax(1), (teacher @ head.T).log_softmax(1), spec)
    result, gradient = by_token_divergence(student, teacher, head, tokens, spec)
    assert relative_error(result.loss, exact) < 0.5 * relative_error(plain, exact)
    assert relative_error(gradient, exact_gradient) < 5e-6


def test_statistics_equal_their_definitions() -> None:
    student, teacher, head, tokens = make_inputs(30, 8, 50)
    of_words = [(h @ head.T).log_softmax(1) for h in (student, teacher)]
    for spec in SPECS:
        result = token_divergence(student, teacher, head, tokens, spec)
        student_log_probs, teacher_log_probs = (merged(log_probs, spec) for log_probs in of_words)
        torch.testing.assert_close(result.mismatch, forward_kl(student_log_probs, teacher_log_probs))
        torch.testing.assert_close(result.student_entropy, torch.special.entr(student_log_probs.exp()).sum(1))
        torch.testing.assert_close(result.teacher_entropy, torch.special.entr(teacher_log_probs.exp()).sum(1))
        torch.testing.assert_close(result.student_log_prob, of_words[0][range(30), tokens])
        torch.testing.assert_close(result.teacher_log_prob, of_words[1][range(30), tokens])
        disagreement = (student_log_probs.argmax(1) != teacher_log_probs.argmax(1)).double()
        assert 0 < disagreement.sum() < 30
        torch.testing.assert_close(result.top1_disagreement, disagreement)


def test_head_bias_moves_both_models() -> None:
    student, teacher, head, tokens = make_inputs()
    bias = torch.linspace(-2, 2, len(head), dtype=torch.float64)
    loss, gradient = by_autograd(student, teacher, head, SPECS[0], bias)
    result, fast_gradient = by_token_divergence(student, teacher, head, tokens, SPECS[0], head_bias=bias)
    torch.testing.assert_close(result.loss, loss)
    torch.testing.assert_close(fast_gradient, gradient)
    assert not torch.allclose(loss, by_autograd(student, teacher, head, SPECS[0])[0])


def test_probabilities_that_underflow_stay_finite_and_right() -> None:
    # Logits hundreds apart: most float32 probabilities are exactly 0, their logarithms are not.
    student, teacher, head, tokens = make_inputs(20, 6, 40, gap=1.0, dtype=torch.float32)
    student, teacher = 80 * student, 80 * teacher
    assert ((student @ head.T).softmax(1) == 0).sum() > 20 * 40 / 2
    for spec in (spec for spec in SPECS if spec.token_clip is None):
        loss, gradient = by_autograd(student, teacher, head, spec)
        result, fast_gradient = by_token_divergence(student, teacher, head, tokens, spec)
        assert relative_error(result.loss, loss) < 1e-4, spec_name(spec)
        assert relative_error(fast_gradient, gradient) < 1e-3, spec_name(spec)


# Reductions and invariants.


@every_spec
def test_identical_distributions_have_no_loss_and_no_gradient(spec: DivergenceSpec) -> None:
    student, _, head, tokens = make_inputs(20, 8, 500, dtype=torch.float32)
    result, gradient = by_token_divergence(student, student.clone(), head, tokens, spec)
    assert result.loss.tolist() == result.mismatch.tolist() == result.top1_disagreement.tolist() == [0.0] * 20
    assert gradient.abs().max() < 1e-6
    torch.testing.assert_close(result.student_entropy, result.teacher_entropy, rtol=0, atol=0)


def test_jsd_is_symmetric_at_one_half_only() -> None:
    student, teacher, head, tokens = make_inputs()

    def loss(first: Tensor, second: Tensor, beta: float) -> Tensor:
        return token_divergence(first, second, head, tokens, DivergenceSpec("jsd", jsd_beta=beta)).loss

    torch.testing.assert_close(loss(student, teacher, 0.5), loss(teacher, student, 0.5))
    torch.testing.assert_close(loss(student, teacher, 0.3), loss(teacher, student, 0.7))
    assert not torch.allclose(loss(student, teacher, 0.3), loss(teacher, student, 0.3), rtol=1e-2)


def test_jsd_tends_to_the_kl_divergences_at_its_ends() -> None:
    # JSD_b / b -> KL(p_T || p_S) as b -> 0, and JSD_b / (1 - b) -> KL(p_S || p_T) as b -> 1.
    student, teacher, head, tokens = make_inputs(gap=0.2)

    def loss(**fields: Any) -> Tensor:
        return token_divergence(student, teacher, head, tokens, DivergenceSpec(**fields)).loss

    torch.testing.assert_close(loss(kind="jsd", jsd_beta=1e-6) / 1e-6, loss(kind="forward_kl"), rtol=1e-4, atol=0)
    torch.testing.assert_close(loss(kind="jsd", jsd_beta=1 - 1e-6) / 1e-6, loss(kind="reverse_kl"), rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_switches_that_change_nothing(kind: Any) -> None:
    student, teacher, head, tokens = make_inputs()
    result, gradient = by_token_divergence(student, teacher, head, tokens, DivergenceSpec(kind))
    for fields in ({"top_k": 13}, {"top_k": 99}, {"token_clip": 1e6}):
        same, same_gradient = by_token_divergence(student, teacher, head, tokens, DivergenceSpec(kind, **fields))
        torch.testing.assert_close(same, result, rtol=0, atol=0)
        torch.testing.assert_close(same_gradient, gradient, rtol=0, atol=0)
    # All words but one: the tail bucket is a single word, so nothing is lost although the code path differs.
    same, same_gradient = by_token_divergence(student, teacher, head, tokens, DivergenceSpec(kind, top_k=12))
    torch.testing.assert_close(same.loss, result.loss)
    torch.testing.assert_close(same_gradient, gradient)


@pytest.mark.parametrize("kind", KINDS)
def test_top_k_loses_some_divergence_and_never_the_tail(kind: Any) -> None:
    student, teacher, head, tokens = make_inputs(40)
    losses = [
        token_divergence(student, teacher, head, tokens, DivergenceSpec(kind, top_k=k)).loss for k in (1, 3, 6, 13)
    ]
    for coarse, fine in pairwise(losses):  # merging words cannot add divergence
        assert (coarse <= fine + 1e-12).all()
        assert (coarse < fine - 1e-6).any()
    # A student that differs in the tail only still has a loss: its tail has another mass.
    only_tail = torch.tensor([[4.0, 0.0, 0.0, 0.0], [4.0, 3.0, 3.0, 3.0]], dtype=torch.float64)
    result = token_divergence(
        only_tail[:1], only_tail[1:], torch.eye(4).double(), tokens[:1] * 0, DivergenceSpec(kind, top_k=1)
    )
    assert result.loss.item() > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_clipped_tokens_have_the_bound_as_loss_and_no_gradient(kind: Any) -> None:
    student, teacher, head, tokens = make_inputs(30)
    free, free_gradient = by_token_divergence(student, teacher, head, tokens, DivergenceSpec(kind))
    bound = free.loss.median().item()
    result, gradient = by_token_divergence(student, teacher, head, tokens, DivergenceSpec(kind, token_clip=bound))
    above = free.loss > bound
    assert 0 < above.sum() < 30
    assert result.loss[above].tolist() == [bound] * int(above.sum())
    assert not gradient[above].any()
    torch.testing.assert_close(result.loss[~above], free.loss[~above], rtol=0, atol=0)
    torch.testing.assert_close(gradient[~above], free_gradient[~above], rtol=0, atol=0)
    torch.testing.assert_close(result.mismatch, free.mismatch, rtol=0, atol=0)  # the statistic is never clipped


def test_end_tokens_that_disagree_are_no_loss_once_they_are_one() -> None:
    """Student and teacher stop as surely, with different tokens: by hand, and in every statistic but the sampled token's own."""
    student = torch.tensor([[0.5, 0.1, 0.4]], dtype=torch.float64).log()
    teacher = torch.tensor([[0.2, 0.4, 0.4]], dtype=torch.float64).log()
    head, tokens = torch.eye(3, dtype=torch.float64), torch.tensor([1])
    apart, _ = by_token_divergence(student, teacher, head, tokens, DivergenceSpec())
    as_one, gradient = by_token_divergence(student, teacher, head, tokens, DivergenceSpec(end_tokens=(0, 1)))
    assert apart.loss.item() > 0.3
    assert apart.top1_disagreement.item() == 1.0
    assert [as_one.loss.item(), as_one.mismatch.item()] == pytest.approx([0.0, 0.0], abs=1e-12)
    assert gradient[0].tolist() == pytest.approx([0.0] * 3, abs=1e-12)
    assert as_one.top1_disagreement.item() == 0.0
    entropy = -0.6 * math.log(0.6) - 0.4 * math.log(0.4)
    assert [as_one.student_entropy.item(), as_one.teacher_entropy.item()] == pytest.approx([entropy] * 2, rel=1e-12)
    assert as_one.student_log_prob.item() == pytest.approx(math.log(0.1), rel=1e-12)
    alone, _ = by_token_divergence(student, teacher, head, tokens, DivergenceSpec(end_tokens=(1,)))
    assert torch.equal(alone.loss, apart.loss)


def test_a_clip_of_tokens_never_reverses_a_gradient_and_a_clip_of_entries_does() -> None:
    """The derivation of docs/method.md: the teacher wants word 0, and clipping its entry alone pushes the student away from it."""
    student = torch.tensor([[0.1, 0.9]], dtype=torch.float64).log()
    teacher = torch.tensor([[0.55, 0.45]], dtype=torch.float64).log()
    head, tokens, clip = torch.eye(2, dtype=torch.float64), torch.tensor([0]), 0.2
    leaf = student.clone().requires_grad_()
    entries = teacher.exp() * (teacher - leaf.log_softmax(dim=1))
    by_entry = entries.clamp(max=clip).sum()
    by_entry.backward()
    assert by_entry.item() == pytest.approx(clip + 0.45 * math.log(0.5), rel=1e-12)
    assert by_entry.item() < 0, "no divergence any more"
    assert leaf.grad is not None
    assert leaf.grad[0, 0].item() == pytest.approx(0.1 * 0.45, rel=1e-12), "down, though the teacher wants more of it"
    _, free = by_token_divergence(student, teacher, head, tokens, DivergenceSpec())
    assert free[0, 0].item() == pytest.approx(0.1 - 0.55, rel=1e-12), "up"
    hidden = make_inputs(200, 6, 13, gap=2.0)
    _, free = by_token_divergence(*hidden, DivergenceSpec())
    result, clipped = by_token_divergence(*hidden, DivergenceSpec(token_clip=clip))
    assert 0 < int((result.loss == clip).sum()) < 200
    assert ((clipped * free) >= 0).all()
    assert (result.loss >= 0).all()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31 - 1),
    spec=st.sampled_from(SPECS),
    scale=st.sampled_from([1e-4, 0.01, 1.0, 30.0]),
    gap=st.sampled_from([0.0, 1e-7, 1e-4, 0.1, 3.0]),
    vocabulary=st.integers(5, 80),
)
def test_never_negative_and_never_above_its_bounds(
    seed: int, spec: DivergenceSpec, scale: float, gap: float, vocabulary: int
) -> None:
    student, teacher, head, tokens = make_inputs(5, 4, vocabulary, seed=seed, gap=gap, dtype=torch.float32)
    result, gradient = by_token_divergence(scale * student, scale * teacher, head, tokens, spec)
    assert (result.loss >= 0).all()
    assert (result.mismatch >= 0).all()
    assert (result.student_entropy >= 0).all()
    assert (result.student_entropy <= math.log(vocabulary) + 1e-5).all()
    assert (result.student_log_prob <= 0).all()
    assert gradient.isfinite().all()
    if spec.kind == "jsd":
        assert (result.loss <= math.log(2) + 1e-6).all()
    if spec.token_clip is not None:
        assert (result.loss <= spec.token_clip).all()
