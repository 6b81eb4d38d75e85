"""Products with frozen weights by oneDNN: BLAS's numbers and gradients, up to rounding."""

from __future__ import annotations

import pytest
import torch

from atesd_env.student.products import SMALLEST, onednn_product, product_by


@pytest.mark.skipif(product_by("onednn", torch.zeros(1)) is torch.matmul, reason="this PyTorch has no oneDNN")
@pytest.mark.parametrize("num_rows", [70, 301])  # neither is a number of rows that oneDNN is asked for
def test_onednn_gives_the_product_and_its_gradient(num_rows: int):
    generator = torch.Generator().manual_seed(0)
    inputs, weight = torch.randn(num_rows, 160, generator=generator), torch.randn(160, 192, generator=generator)
    assert num_rows * weight.numel() >= SMALLEST
    grad = torch.randn(num_rows, 192, generator=generator)
    found, expected = (inputs.clone().requires_grad_() for _ in range(2))
    product = onednn_product(found, weight)
    product.backward(grad)
    (expected @ weight).backward(grad)
    torch.testing.assert_close(product.detach(), inputs @ weight, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-4)


def test_onednn_multiplies_in_float32_where_it_is_asked_for():
    assert product_by("blas", torch.zeros(1)) is torch.matmul
    assert product_by("onednn", torch.zeros(1, dtype=torch.bfloat16)) is torch.matmul
