"""A student's adapter added into the base model's weights, as a model directory that other engines read."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from atesd_env.student.adapters import AdapterStack
from atesd_env.student.model import Student


@torch.no_grad()
def merged_weights(student: Student, adapters: AdapterStack, index: int) -> dict[str, Tensor]:
    """Returns the base model's weights with student ``index``'s adapter added, under their own names, on the CPU.

    The sum is made in float32, then rounded to the base's number format. A head that is tied to the embedding is left out,
    as in model files.
    """
    update = adapters.state_dict(index)
    is_tied = bool(getattr(student.model.config.get_text_config(), "tie_word_embeddings", False))
    weights: dict[str, Tensor] = {}
    for name, tensor in student.model.state_dict().items():
        if is_tied and name.startswith("lm_head."):
            continue
        # A wrapped layer holds its frozen layer as "base".
        plain = name.replace(".base.weight", ".weight").replace(".base.bias", ".bias")
        weights[plain] = tensor.detach().cpu()
    for name in update:
        if name.endswith(".lora_A.weight"):
            layer = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            delta = update[name.replace("lora_A", "lora_B")] @ update[name] * adapters.scaling
            base = weights[f"{layer}.weight"]
            weights[f"{layer}.weight"] = (base.float() + delta).to(base.dtype)
    return weights


def save_merged(student: Student, adapters: AdapterStack, index: int, directory: Path) -> None:
    """Writes student ``index`` as a model directory without adapter: configuration and weights."""
    directory.mkdir(parents=True, exist_ok=True)
    student.model.config.save_pretrained(str(directory))
    weights = {name: tensor.contiguous() for name, tensor in merged_weights(student, adapters, index).items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
