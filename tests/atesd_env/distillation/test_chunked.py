"""The divergence a few tokens at a time: chunks and memory, gradients only where they belong, dtypes, errors."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from atesd_env.distillation.chunked import _even_share, _rows_in_block, token_divergence
from atesd_env.distillation.divergence import DivergenceSpec, forward_kl
from atesd_env.errors import ConfigError, NonFiniteError
from tests.atesd_env.distillation.divergence_cases import (
    SPECS,
    by_token_divergence,
    every_spec,
    make_inputs,
    plain_loss,
    relative_error,
)

# Chunks and memory.


def take_blocks_of(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let chunks be as small as they are asked to be, and the elementwise work take so many rows at a time."""
    monkeypatch.setattr("atesd_env.distillation.chunked.CHUNK_BYTES", 1)
    monkeypatch.setattr("atesd_env.distillation.chunked._rows_in_block", lambda *_: rows)


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
    chunked_spec = dataclasses.replace(spec, chunk_size=chunk_size)
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
