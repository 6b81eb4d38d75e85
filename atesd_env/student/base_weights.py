"""A base too large for one device: its linear layers in 4 bits, or its decoder layers shared out over processes (FSDP2)."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from transformers import BitsAndBytesConfig, PreTrainedModel

from atesd_env.config import EnvConfig
from atesd_env.errors import StudentError
from atesd_env.student.ranks import Ranks


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


def shard_base(model: PreTrainedModel, ranks: Ranks, device: torch.device) -> None:
    """Shares a model's decoder layers out over processes, in place; each is gathered while it computes.

    The embeddings, the last norm and the output layer stay whole on every device: rollouts and divergence multiply with the
    output layer directly. Adapters are put on afterwards and stay whole too.

    Args:
        model: On the CPU; its layers are moved to the device one by one, as shares.
        ranks: The processes.
        device: This process's device.

    Raises:
        StudentError: If there is one process only, or the model has no list of layers.
    """
    if ranks.size == 1:
        raise StudentError(
            "base_sharding: expected several processes with 'fsdp2', got one; start them with `torchrun --nproc-per-node N "
            "$(which atesd) run ...`, or set base_sharding='none'."
        )
    layers = getattr(getattr(model, model.base_model_prefix), "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise StudentError(
            f"base_sharding: expected a model with a list of decoder layers, got {type(model).__name__}; set "
            "base_sharding='none'."
        )
    mesh = DeviceMesh.from_group(ranks.group, device.type)
    model.requires_grad_(False)  # before sharding: parameters that get no gradient need no buffers for one
    for layer in layers:
        # Each layer by itself, its weights given back as soon as it is through: there is no root whose weights would stay.
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    shards = {id(parameter) for layer in layers for parameter in layer.parameters()}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in shards and parameter.device != device:
                module._parameters[name] = nn.Parameter(parameter.to(device), requires_grad=False)
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    model.tie_weights()
