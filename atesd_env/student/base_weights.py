"""A base too large for a device: its linear layers in 4 bits."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from atesd_env.config import EnvConfig
from atesd_env.errors import StudentError


def quantization_options(config: EnvConfig, device: torch.device) -> dict[str, Any]:
    """Returns what ``from_pretrained`` is given beside the number format, for the configuration's ``base_quantization``.

    Output layer and embeddings stay as they are: the divergence multiplies with them itself.

    Raises:
        StudentError: If bitsandbytes is not installed.
    """
    if config.base_quantization == "none":
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise StudentError(
            "base_quantization: expected the package bitsandbytes for 'nf4', found none; install it with "
            "`pip install 'atesd-env[quantization]'`, or set base_quantization='none'."
        )
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, config.dtype)
    )
    return {"quantization_config": quantization, "device_map": {"": device}}


def differentiable_on_cpu(model: nn.Module) -> None:
    """Keeps bitsandbytes' 4-bit layers from a layout of their weights through which a CPU gives no right gradient.

    It packs them anew in the first pass without gradients, where the CPU has bf16 instructions, and the packed product has no
    backward pass: gradients of the layers before would be lost with no more than a warning.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 (no attribute that the type checker knows)
