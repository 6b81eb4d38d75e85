"""Who multiplies with the frozen base's weights on a CPU: PyTorch's BLAS, or oneDNN.

PyTorch's BLAS is Intel's, which takes half of what an AMD processor's cores can do (docs/log.md). PyTorch has oneDNN beside it, and
calls it in float32 only where a compiler asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

Products = Literal["blas", "onednn"]
"""Who multiplies by the frozen weights: BLAS (``torch.matmul``), or oneDNN where there is one."""
Product = Callable[[Tensor, Tensor], Tensor]
"""Maps inputs [N, in] and a frozen weight [in, out] to [N, out]."""


def product_by(name: Products, weight: Tensor) -> Product:
    """Returns what multiplies with weights like this one: oneDNN only where it is asked for, in float32, on a CPU that has it."""
    has_onednn = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if name == "onednn" and has_onednn and weight.dtype == torch.float32 and weight.device.type == "cpu":
        return onednn_product
    return torch.matmul


SMALLEST = 2**21
"""Multiplications below which BLAS is as fast: calling oneDNN takes longer."""


def onednn_product(inputs: Tensor, weight: Tensor) -> Tensor:
    """Maps [N, in] to [N, out]; the weight [in, out] is frozen."""
    if len(inputs) * weight.numel() < SMALLEST:
        return inputs @ weight
    if torch.is_grad_enabled() and inputs.requires_grad:
        output: Tensor = _OneDNNProduct.apply(inputs, weight)
        return output
    num_rows = len(inputs)
    # oneDNN compiles and keeps a product, half a MiB, for each number of rows that it meets: few numbers are asked of it.
    filled = -num_rows % (8 if num_rows <= 256 else 128)
    if filled:
        inputs = functional.pad(inputs, (0, 0, 0, filled))
    product: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight.t(), None, "none", [], "")
    return product[:num_rows]


class _OneDNNProduct(torch.autograd.Function):
    """oneDNN's product is unknown to autograd."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return onednn_product(inputs, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return onednn_product(grad, weight.t()), None
