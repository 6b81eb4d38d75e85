"""The divergences: by hand on two words, against float64 autograd, and what the fast path promises on top of that."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from atesd_env.distillation.divergence import (
    DivergenceSpec,
    TokenDivergence,
    _even_share,
    _rows_in_block,
    forward_kl,
    jsd,
    reverse_kl,
    rollout_weights,
    token_divergence,
)
from atesd_env.errors import ConfigError, NonFiniteError

KINDS = ["forward_kl", "reverse_kl", "jsd"]
SPECS = [
    DivergenceSpec("forward_kl"),
    DivergenceSpec("reverse_kl"),
    DivergenceSpec("jsd"),
    DivergenceSpec("jsd", jsd_beta=0.2),
    DivergenceSpec("forward_kl", top_k=4),
    DivergenceSpec("reverse_kl", top_k=4),
    DivergenceSpec("jsd", jsd_beta=0.7, top_k=1),
    DivergenceSpec("forward_kl", token_clip=0.4),
    DivergenceSpec("reverse_kl", token_clip=0.4, top_k=4),
]


def spec_name(spec: DivergenceSpec) -> str:
    return f"{spec.kind}-beta{spec.jsd_beta}-top{spec.top_k}-clip{spec.token_clip}"


every_spec = pytest.mark.parametrize("spec", SPECS, ids=spec_name)


def make_inputs(
    num_tokens: int = 9,
    width: int = 6,
    vocabulary: int = 13,
    *,
    seed: int = 0,
    gap: float = 0.8,
    dtype: Any = torch.float64,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Student hidden states, teacher hidden states at a distance of about `gap`, head, sampled tokens."""
    rng = torch.Generator().manual_seed(seed)
    student = torch.randn(num_tokens, width, generator=rng, dtype=torch.float64)
    teacher = student + gap * torch.randn(num_tokens, width, generator=rng, dtype=torch.float64)
    head = torch.randn(vocabulary, width, generator=rng, dtype=torch.float64)
    tokens = torch.randint(vocabulary, (num_tokens,), generator=rng)
    return student.to(dtype), teacher.to(dtype), head.to(dtype), tokens


def plain_loss(student_log_probs: Tensor, teacher_log_probs: Tensor, spec: DivergenceSpec) -> Tensor:
    """The definition, by differentiable steps only."""
    if spec.top_k is not None:
        top = torch.zeros_like(teacher_log_probs, dtype=torch.bool)
        top.scatter_(1, teacher_log_probs.topk(spec.top_k, dim=1).indices, True)

        def into_buckets(log_probs: Tensor) -> Tensor:
            tail = log_probs.masked_fill(top, -math.inf).logsumexp(dim=1, keepdim=True)
            return torch.cat([log_probs[top].view(-1, spec.top_k or 0), tail], dim=1)

        student_log_probs, teacher_log_probs = into_buckets(student_log_probs), into_buckets(teacher_log_probs)
    functions: dict[str, Callable[[], Tensor]] = {
        "forward_kl": lambda: forward_kl(student_log_probs, teacher_log_probs),
        "reverse_kl": lambda: reverse_kl(student_log_probs, teacher_log_probs),
        "jsd": lambda: jsd(student_log_probs, teacher_log_probs, spec.jsd_beta),
    }
    loss = functions[spec.kind]()
    return loss if spec.token_clip is None else loss.clamp(max=spec.token_clip)


def by_autograd(
    student: Tensor, teacher: Tensor, head: Tensor, spec: DivergenceSpec, bias: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """Loss and gradient of sum(loss * (1, 2, 3, ...)) in float64 over whole [N, V] tensors."""
    leaf = student.detach().double().requires_grad_()
    student_log_probs = torch.log_softmax(leaf @ head.double().T + bias, dim=1)
    teacher_log_probs = torch.log_softmax(teacher.double() @ head.double().T + bias, dim=1)
    loss = plain_loss(student_log_probs, teacher_log_probs, spec)
    (loss * torch.arange(1.0, len(loss) + 1)).sum().backward()
    assert leaf.grad is not None
    return loss.detach(), leaf.grad


def by_token_divergence(
    student: Tensor, teacher: Tensor, head: Tensor, tokens: Tensor, spec: DivergenceSpec, **keywords: Any
) -> tuple[TokenDivergence, Tensor]:
    leaf = student.detach().clone().requires_grad_()
    result = token_divergence(leaf, teacher, head, tokens, spec, **keywords)
    (result.loss * torch.arange(1.0, len(tokens) + 1)).sum().backward()
    assert leaf.grad is not None
    return result, leaf.grad


def relative_error(got: Tensor, expected: Tensor) -> float:
    return float((got.detach().double() - expected).norm() / expected.norm())


# The definitions, by hand.


def test_definitions_on_two_words_by_hand() -> None:
    student = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    teacher = torch.tensor([[0.75, 0.25]], dtype=torch.float64).log()
    forward = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # sum of p_T log(p_T / p_S)
    reverse = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)  # sum of p_S log(p_S / p_T)
    assert forward_kl(student, teacher).item() == pytest.approx(forward, rel=1e-12)
    assert reverse_kl(student, teacher).item() == pytest.approx(reverse, rel=1e-12)
    assert abs(forward - reverse) > 1e-2  # so that a swapped direction fails above
    m = (0.8 * 0.5 + 0.2 * 0.75, 0.8 * 0.5 + 0.2 * 0.25)  # beta = 0.2 is the teacher's share
    of_teacher = 0.75 * math.log(0.75 / m[0]) + 0.25 * math.log(0.25 / m[1])
    of_student = 0.5 * math.log(0.5 / m[0]) + 0.5 * math.log(0.5 / m[1])
    assert jsd(student, teacher, 0.2).item() == pytest.approx(0.2 * of_teacher + 0.8 * of_student, rel=1e-12)


def test_definitions_where_a_word_is_impossible() -> None:
    both, one = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[1.0, 0.0]]).log()
    assert forward_kl(both, one).item() == pytest.approx(math.log(2))
    assert forward_kl(one, both).item() == math.inf  # the teacher says what the student cannot
    assert reverse_kl(one, both).item() == pytest.approx(math.log(2))
    other = torch.tensor([[0.0, 1.0]]).log()
    assert jsd(one, other, 0.5).item() == pytest.approx(math.log(2))  # the largest JSD: nothing in common


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
    student_log_probs, teacher_log_probs = ((h @ head.T).log_softmax(1) for h in (student, teacher))
    for spec in SPECS:
        result = token_divergence(student, teacher, head, tokens, spec)
        torch.testing.assert_close(result.mismatch, forward_kl(student_log_probs, teacher_log_probs))
        torch.testing.assert_close(result.student_entropy, torch.special.entr(student_log_probs.exp()).sum(1))
        torch.testing.assert_close(result.teacher_entropy, torch.special.entr(teacher_log_probs.exp()).sum(1))
        torch.testing.assert_close(result.student_log_prob, student_log_probs[range(30), tokens])
        torch.testing.assert_close(result.teacher_log_prob, teacher_log_probs[range(30), tokens])
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


# Chunks and memory.


def take_blocks_of(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let chunks be as small as they are asked to be, and the elementwise work take so many rows at a time."""
    monkeypatch.setattr("atesd_env.distillation.divergence.CHUNK_BYTES", 1)
    monkeypatch.setattr("atesd_env.distillation.divergence._rows_in_block", lambda *_: rows)


def test_chunks_are_of_equal_size_and_blocks_give_every_thread_a_row() -> None:
    assert [_even_share(tokens, 128) for tokens in (0, 1, 128, 129, 256, 300)] == [1, 1, 128, 65, 128, 100]
    qwen_row, tiny_row = 151_936 * 4, 60 * 4
    rows, threads = _rows_in_block(qwen_row, torch.device("cpu")), torch.get_num_threads()
    assert rows == threads
    assert _rows_in_block(tiny_row, torch.device("cpu")) == threads * (2**20 // tiny_row)


@every_spec
@pytest.mark.parametrize(("chunk_size", "rows_in_block"), [(1, 1), (4, 3), (7, 7), (64, 5)])
def test_chunked_equals_whole(
    spec: DivergenceSpec, chunk_size: int, rows_in_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, teacher, head, tokens = make_inputs(23)
    whole, whole_gradient = by_token_divergence(student, teacher, head, tokens, spec)
    take_blocks_of(rows_in_block, monkeypatch)
    chunked_spec = DivergenceSpec(spec.kind, spec.jsd_beta, spec.token_clip, spec.top_k, chunk_size)
    chunked, chunked_gradient = by_token_divergence(student, teacher, head, tokens, chunked_spec)
    torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(chunked_gradient, whole_gradient, rtol=1e-12, atol=1e-14)


class MemoryMeter(TorchDispatchMode):
    """Records the largest result of any operation, and the most bytes of results alive at one time."""

    def __init__(self, *inputs: Tensor) -> None:
        super().__init__()
        self.given = {tensor.untyped_storage()._cdata for tensor in inputs}
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.largest_numel = self.peak_bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage())._cdata not in self.given:
                self.largest_numel = max(self.largest_numel, storage.nbytes() // tensor.element_size())
                self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
        self.peak_bytes = max(self.peak_bytes, sum(size for _, size in self.alive.values()))
        return result


@every_spec
def test_memory_does_not_grow_with_tokens_times_vocabulary(
    spec: DivergenceSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary, chunk_size, rows_in_block = 3000, 8, 2
    take_blocks_of(rows_in_block, monkeypatch)
    chunked_spec = DivergenceSpec(spec.kind, spec.jsd_beta, spec.token_clip, spec.top_k, chunk_size)

    def measure(num_tokens: int) -> MemoryMeter:
        student, teacher, head, tokens = make_inputs(num_tokens, 4, vocabulary, dtype=torch.float32)
        student.requires_grad_()
        with MemoryMeter(student, teacher, head, tokens) as meter:
            token_divergence(student, teacher, head, tokens, chunked_spec).loss.sum().backward()
        return meter

    short, long = measure(40), measure(400)
    assert long.largest_numel == 2 * chunk_size * vocabulary
    # Logits of a chunk, scratch of a block and the operations' own results on a block; and all that is [N, ...].
    assert long.peak_bytes <= 4 * vocabulary * (2 * chunk_size + 12 * rows_in_block) + 400 * 4 * 40
    assert long.peak_bytes - short.peak_bytes <= 360 * 4 * 40  # a [N, V] tensor would add 360 * 4 * 3000


def test_memory_meter_sees_the_naive_tensor() -> None:
    student, teacher, head, _ = make_inputs(40, 4, 3000, dtype=torch.float32)
    with MemoryMeter(student, teacher, head) as meter:
        forward_kl((student @ head.T).log_softmax(1), (teacher @ head.T).log_softmax(1))
    assert meter.largest_numel == 40 * 3000
    assert meter.peak_bytes >= 2 * 40 * 3000 * 4


def test_small_vocabularies_go_through_in_one_chunk() -> None:
    student, teacher, head, tokens = make_inputs(1000, 4, 60, dtype=torch.float32)
    with MemoryMeter(student, teacher, head, tokens) as meter:
        token_divergence(student, teacher, head, tokens, DivergenceSpec(chunk_size=64))
    assert meter.largest_numel == 6 * 1000 * 60  # the scratch of all tokens, not of 64


# Gradients only where they belong.


def test_nothing_but_the_student_gets_a_gradient() -> None:
    student, teacher, head, tokens = (
        tensor.requires_grad_() if tensor.is_floating_point() else tensor for tensor in make_inputs()
    )
    result = token_divergence(student, teacher, head, tokens, DivergenceSpec())
    assert [name for name, value in result._asdict().items() if value.requires_grad] == ["loss"]
    result.loss.sum().backward()
    assert student.grad is not None
    assert teacher.grad is None
    assert head.grad is None


def test_the_gradient_is_not_made_when_nobody_wants_it() -> None:
    student, teacher, head, tokens = make_inputs()

    def num_products(*, grad_enabled: bool) -> int:
        calls = []

        class Count(TorchDispatchMode):
            def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                calls.append(str(function))
                return function(*args, **(kwargs or {}))

        with torch.set_grad_enabled(grad_enabled), Count():
            result = token_divergence(student, teacher, head, tokens, DivergenceSpec())
        assert result.loss.requires_grad == (grad_enabled and student.requires_grad)
        return sum("aten.mm" in call for call in calls)

    assert num_products(grad_enabled=True) == 1
    student.requires_grad_()
    assert num_products(grad_enabled=False) == 1
    assert num_products(grad_enabled=True) == 2


def test_inputs_are_left_as_they_were() -> None:
    inputs = make_inputs()
    copies = [tensor.clone() for tensor in inputs]
    for spec in SPECS:
        by_token_divergence(*inputs, spec)
    for tensor, copy in zip(inputs, copies, strict=True):
        torch.testing.assert_close(tensor, copy, rtol=0, atol=0)


@every_spec
def test_no_tokens(spec: DivergenceSpec) -> None:
    student, teacher, head, tokens = make_inputs(0)
    result, gradient = by_token_divergence(student, teacher, head, tokens, spec)
    assert [list(value.shape) for value in result] == [[0]] * 7
    assert result.loss.sum().item() == 0.0
    assert list(gradient.shape) == [0, 6]


@every_spec
def test_no_tokens_of_a_batch_leave_zeros(spec: DivergenceSpec) -> None:
    hidden, _, head, _ = make_inputs(3)
    hidden.requires_grad_()
    nobody = torch.zeros(3, dtype=torch.bool)
    token_divergence(hidden[nobody], hidden[nobody], head, torch.zeros(0, dtype=torch.long), spec).loss.sum().backward()
    assert hidden.grad is not None
    assert not hidden.grad.any()


@every_spec
def test_bfloat16(spec: DivergenceSpec) -> None:
    # The same bfloat16 products, then float32 autograd: only the rounding of the gradient's product (1/256) remains.
    student, teacher, head, tokens = make_inputs(40, 16, 300, gap=0.6, dtype=torch.bfloat16)
    leaf = student.clone().requires_grad_()
    log_probs = [(hidden @ head.T).float().log_softmax(1) for hidden in (leaf, teacher)]
    loss = plain_loss(log_probs[0], log_probs[1], spec)
    (loss * torch.arange(1.0, 41)).sum().backward()
    assert leaf.grad is not None
    result, gradient = by_token_divergence(student, teacher, head, tokens, spec)
    assert {value.dtype for value in result} == {torch.float32}
    assert gradient.dtype == torch.bfloat16
    assert relative_error(result.loss, loss.detach().double()) < 1e-5
    assert relative_error(gradient, leaf.grad.double()) < 0.01


def test_bfloat16_logits_are_normalised_in_float32() -> None:
    # A flat bfloat16 softmax over 3000 words would be off by percents; the identity here has no product to blame.
    logits = torch.linspace(-1, 1, 3000).bfloat16()
    hidden = torch.cat([logits, torch.zeros(1)]).bfloat16()[None]
    head = torch.eye(3000, 3001).bfloat16()
    result = token_divergence(hidden, hidden, head, torch.tensor([7]), DivergenceSpec())
    exact = logits.double().log_softmax(0)
    assert result.student_log_prob.item() == pytest.approx(exact[7].item(), rel=1e-6)
    assert result.student_entropy.item() == pytest.approx(-(exact.exp() * exact).sum().item(), rel=1e-6)


def test_autocast_outside_changes_nothing() -> None:
    student, teacher, head, tokens = make_inputs(dtype=torch.float32)
    result = token_divergence(student, teacher, head, tokens, DivergenceSpec())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same = token_divergence(student, teacher, head, tokens, DivergenceSpec())
    torch.testing.assert_close(same, result, rtol=0, atol=0)


# Errors.


@every_spec
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_student_is_named_and_counted(spec: DivergenceSpec, value: float) -> None:
    student, teacher, head, tokens = make_inputs(dtype=torch.float32)
    student[2, 3] = student[5, 0] = value
    with pytest.raises(NonFiniteError, match=r"at 2 of 9 tokens: student 4 \(2\)\..* student 2, teacher 0 tokens"):
        token_divergence(student, teacher, head, tokens, spec, rows_owner="student 4")


def test_non_finite_teacher_is_told_apart() -> None:
    student, teacher, head, tokens = make_inputs()
    teacher[1, 1] = math.nan
    with pytest.raises(NonFiniteError, match=r"1 of 9 tokens: student \(1\).* student 0, teacher 1 tokens"):
        token_divergence(student, teacher, head, tokens, DivergenceSpec())


def test_logits_that_overflow_in_the_head() -> None:
    student, teacher, head, tokens = make_inputs(dtype=torch.float32)
    student[4] *= 1e38
    with pytest.raises(NonFiniteError, match=r"1 of 9 tokens.* student 0, teacher 0 tokens; the others overflowed"):
        token_divergence(student, teacher, head * 100, tokens, DivergenceSpec())


def test_rows_of_several_students() -> None:
    student, teacher, head, tokens = make_inputs()
    student[[0, 7, 8]] = math.nan
    owners = ["student 0"] * 4 + ["student 1"] * 5
    with pytest.raises(NonFiniteError, match=r"3 of 9 tokens: student 0 \(1\), student 1 \(2\)\."):
        token_divergence(student, teacher, head, tokens, DivergenceSpec(), rows_owner=owners)
    with pytest.raises(ConfigError, match="rows_owner: expected one label, or one for each of 9 rows; got 4"):
        token_divergence(student, teacher, head, tokens, DivergenceSpec(), rows_owner=owners[:4])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "kl"}, "kind: expected one of forward_kl, reverse_kl, jsd; got 'kl'"),
        ({"jsd_beta": 0.0}, "jsd_beta: expected a number strictly between 0 and 1; got 0.0"),
        ({"jsd_beta": 1.0}, "jsd_beta"),
        ({"jsd_beta": math.nan}, "jsd_beta"),
        ({"token_clip": 0.0}, "token_clip: expected None or a finite number above 0"),
        ({"token_clip": math.inf}, "token_clip"),
        ({"top_k": 0}, "top_k: expected None .* or at least 1"),
        ({"chunk_size": 0}, "chunk_size: expected at least 1"),
    ],
)
def test_specs_that_cannot_be_used(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DivergenceSpec(**fields)


def test_inputs_that_do_not_fit() -> None:
    student, teacher, head, tokens = make_inputs()

    def call(*arguments: Any, **keywords: Any) -> None:
        token_divergence(*arguments, spec=DivergenceSpec(), **keywords)

    with pytest.raises(
        ConfigError, match=r"got student_hidden \[9, 6\], teacher_hidden \[8, 6\], head_weight \[13, 6\]"
    ):
        call(student, teacher[:8], head, tokens)
    with pytest.raises(ConfigError, match=r"Select the scored positions first"):
        call(student[None], teacher[None], head, tokens)
    with pytest.raises(ConfigError, match=r"head_weight \[6, 13\]"):
        call(student, teacher, head.T, tokens)
    with pytest.raises(ConfigError, match=r"head_bias \[12\]"):
        call(student, teacher, head, tokens, head_bias=head[:12, 0])
    with pytest.raises(ConfigError, match=r"got student_hidden torch.float32, teacher_hidden torch.float64"):
        call(student.float(), teacher, head, tokens)
    with pytest.raises(ConfigError, match=r"tokens: expected torch\.int64; got torch\.int32"):
        call(student, teacher, head, tokens.int())
    tokens[3] = -100
    with pytest.raises(ConfigError, match=r"tokens: expected ids in 0..12; got -100.."):
        call(student, teacher, head, tokens)
    with pytest.raises(ConfigError, match="beta"):
        jsd(student, teacher, 1.5)


# The paper's mean over rollouts of the mean over tokens.


def test_rollout_weights_give_the_mean_of_means() -> None:
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 0, 0]], dtype=torch.bool)
    loss = torch.tensor([[1.0, 2, 3, 4], [10, 20, 0, 0], [0, 300, 0, 0]])
    weights = rollout_weights(mask)
    assert (weights * loss).sum().item() == pytest.approx((2.5 + 15 + 300) / 3)
    assert weights.sum().item() == pytest.approx(1.0)
    assert not weights[~mask].any()


def test_rollout_weights_count_an_empty_rollout() -> None:
    mask = torch.tensor([[True, True], [False, False]])
    assert rollout_weights(mask).tolist() == [[0.25, 0.25], [0.0, 0.0]]
    assert rollout_weights(torch.zeros(2, 3, dtype=torch.bool)).tolist() == [[0.0] * 3] * 2
    assert list(rollout_weights(torch.zeros(0, 3, dtype=torch.bool)).shape) == [0, 3]


def test_rollout_weights_refuse_what_is_no_mask() -> None:
    with pytest.raises(ConfigError, match=r"completion_mask: expected torch.bool \[B, T\]; got torch.float32 \[2, 3\]"):
        rollout_weights(torch.ones(2, 3))
    with pytest.raises(ConfigError, match="completion_mask"):
        rollout_weights(torch.ones(3, dtype=torch.bool))
