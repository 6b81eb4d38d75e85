"""Gradients that are written down, against finite differences and against what autograd derives."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from atesd_env.student.forward import LONGEST_ALIKE
from atesd_env.student.operations import (
    attend_rows,
    causal_attention,
    gather_rows,
    head_for_each,
    linear_with_adapter,
    rms_norm,
    scatter_rows,
    swiglu,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def test_rms_norm():
    inputs, weight = random(5, 3, 8), random(3, 8, seed=1).detach()
    expected = functional.rms_norm(inputs, (8,), None, 1e-6) * weight
    torch.testing.assert_close(rms_norm(inputs, weight, 1e-6), expected)
    assert torch.autograd.gradcheck(lambda x: rms_norm(x, weight, 1e-6), inputs)
    with torch.no_grad():
        torch.testing.assert_close(rms_norm(inputs, weight, 1e-6), expected.detach())


def test_rms_norm_of_zeros_is_finite():
    inputs = torch.zeros(2, 4, requires_grad=True)
    rms_norm(inputs, torch.ones(4), 1e-6).sum().backward()
    assert inputs.grad is not None
    assert torch.isfinite(inputs.grad).all()


def test_rms_norm_rounds_bfloat16_once():
    inputs = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    exact = rms_norm(inputs.bfloat16().float(), torch.ones(32), 1e-6)
    rounded = rms_norm(inputs.bfloat16(), torch.ones(32, dtype=torch.bfloat16), 1e-6)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=2**-8, atol=0)


def test_rms_norm_in_bfloat16_has_the_gradient_of_autograd():
    """Each within a rounding or two of what autograd derives of the same steps, and none kept in float32."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(32, generator=generator).bfloat16()
    ours, theirs = (
        torch.randn(64, 32, generator=torch.Generator().manual_seed(1)).bfloat16().requires_grad_() for _ in range(2)
    )
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        output = rms_norm(ours, weight, 1e-6)
    assert [tensor.dtype for tensor in kept if tensor.numel() == ours.numel()] == [torch.bfloat16]
    expected = functional.rms_norm(theirs, (32,), None, 1e-6) * weight
    torch.testing.assert_close(output, expected, rtol=2**-7, atol=0)
    grad = torch.randn(64, 32, generator=generator).bfloat16()
    output.backward(grad)
    expected.backward(grad)
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=2**-6, atol=2**-7)
    with torch.no_grad():
        assert torch.equal(rms_norm(ours, weight, 1e-6), output)


def test_linear_with_adapter_in_bfloat16_adds_up_in_float32_and_keeps_no_float32_activation():
    """Its sum, which a 16-bit sum of 4,096 terms would miss by percents, is right to the rounding of what it returns."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((6, 4096), (4096, 3), (3, 4), (4096, 4))
    inputs, matrix_a, matrix_b, weight = (torch.rand(shape, generator=generator).bfloat16() for shape in shapes)
    exact = [tensor.double().requires_grad_() for tensor in (inputs, matrix_a, matrix_b)]
    kept: list[torch.Tensor] = []
    leaves = [tensor.requires_grad_() for tensor in (inputs, matrix_a, matrix_b)]
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        output = linear_with_adapter(leaves[0], weight, leaves[1], [(0, leaves[2])])
    expected = exact[0] @ weight.double() + exact[0] @ exact[1] @ exact[2]
    grad = torch.rand(output.shape, generator=generator).bfloat16()
    output.backward(grad)
    expected.backward(grad.double())
    assert {tensor.dtype for tensor in (*kept, output)} == {torch.bfloat16}
    for ours, theirs in zip(
        (output, *(leaf.grad for leaf in leaves)), (expected, *(leaf.grad for leaf in exact)), strict=True
    ):
        torch.testing.assert_close(ours.double(), theirs, rtol=2**-6, atol=0)


def test_swiglu():
    gate_up = random(6, 10)
    gate, up = gate_up.chunk(2, dim=-1)
    expected = functional.silu(gate) * up
    torch.testing.assert_close(swiglu(gate_up), expected)
    assert torch.autograd.gradcheck(swiglu, gate_up)
    with torch.no_grad():
        torch.testing.assert_close(swiglu(gate_up), expected.detach())


PARTS = {
    "one": ([(0, random(3, 4, seed=2))], lambda b: b),
    "two, with outputs before and between that have none": (
        [(1, random(2, 1, seed=2)), (3, random(1, 1, seed=4))],
        lambda b, c: torch.cat([functional.pad(b, (1, 2)), functional.pad(c, (3, 0))]),
    ),
}


@pytest.mark.parametrize("merges", [False, True])
@pytest.mark.parametrize("kind", list(PARTS))
def test_linear_with_adapter(kind: str, merges: bool):
    """One product with the sum of weight and adapters, or three; the inputs' gradient and the adapters' either way."""
    parts, whole = PARTS[kind]
    starts, matrices_b = zip(*parts, strict=True)
    inputs, matrix_a = random(7, 5), random(5, 3, seed=1)
    weight = random(5, 4, seed=3).detach()
    expected = inputs @ weight + inputs @ matrix_a @ whole(*matrices_b)

    def ours(x: torch.Tensor, a: torch.Tensor, *b: torch.Tensor) -> torch.Tensor:
        return linear_with_adapter(x, weight, a, list(zip(starts, b, strict=True)), merges=merges)

    kept = weight.clone()
    torch.testing.assert_close(ours(inputs, matrix_a, *matrices_b), expected)
    assert torch.autograd.gradcheck(ours, (inputs, matrix_a, *matrices_b))
    with torch.no_grad():
        torch.testing.assert_close(ours(inputs, matrix_a, *matrices_b), expected.detach())
    assert torch.equal(weight, kept), "the base is frozen"


def test_causal_attention_with_a_head_for_each_is_that_with_shared_heads():
    """What a GPU is given in float32, by the definition."""
    query, key, value = torch.randn(2, 6, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    scores = (query @ head_for_each(key, 6).transpose(2, 3)) / 8**0.5
    visible = torch.ones(5, 5, dtype=torch.bool).tril()
    expected = scores.masked_fill(~visible, -torch.inf).softmax(dim=-1) @ head_for_each(value, 6)
    assert torch.equal(head_for_each(key, 6)[:, 3], key[:, 1]), "three neighbours share a head"
    torch.testing.assert_close(causal_attention(query, key, value), expected)


@pytest.mark.parametrize(("length", "filled"), [(16, 32), (48, 80), (112, LONGEST_ALIKE), (160, LONGEST_ALIKE)])
def test_a_rows_attention_does_not_depend_on_how_far_it_is_filled_up(length: int, filled: int):
    """The same bits on a CPU, and those of its gradient: rows may stand in the block of their own length."""
    heads, grad = torch.randn(2, filled, 8, 32), torch.zeros(2, filled, 4 * 32)
    grad[:, :length] = torch.randn(2, length, 4 * 32)
    found = []
    for tokens in (filled, length):
        inputs = heads[:, :tokens].clone().requires_grad_()
        attended = attend_rows(inputs, num_shared=2)
        attended.backward(grad[:, :tokens].flatten(0, 1))
        found.append((attended.detach().unflatten(0, (2, tokens))[:, :length], inputs.grad[:, :length]))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_scatter_and_gather_undo_each_other():
    places = torch.tensor([4, 0, 3])
    first, second = random(3, 2, 5), random(3, 1, 5, seed=1)
    scattered = scatter_rows((first, second), places, 6)
    assert scattered.shape == (6, 3, 5)
    assert torch.equal(scattered[[1, 2, 5]], torch.zeros(3, 3, 5, dtype=torch.float64))
    assert torch.equal(gather_rows(scattered, places), torch.cat([first, second], dim=1))
    assert torch.autograd.gradcheck(lambda a, b: scatter_rows((a, b), places, 6), (first, second))
    assert torch.autograd.gradcheck(lambda x: gather_rows(x, places), random(6, 2))
