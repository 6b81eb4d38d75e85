"""What the plan of a run must know about a base model: its sizes, counted from its configuration without its weights."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen3Config

from atesd_env.errors import AtesdError, StudentError
from atesd_env.student.adapters import AdapterStack
from atesd_env.student.loading import check_model_folder
from atesd_env.student.packaged import is_packaged, packaged_folder


def _qwen3(hidden: int, layers: int, heads: int, mlp: int, *, is_tied: bool) -> PretrainedConfig:
    return Qwen3Config(
        vocab_size=151_936,
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=is_tied,
        max_position_embeddings=40_960,
    )


PUBLISHED = {
    "Qwen/Qwen3-1.7B": _qwen3(2048, 28, 16, 6144, is_tied=True),
    "Qwen/Qwen3-4B": _qwen3(2560, 36, 32, 9728, is_tied=True),
    "Qwen/Qwen3-8B": _qwen3(4096, 36, 32, 12_288, is_tied=False),
    "HuggingFaceTB/SmolLM2-135M-Instruct": LlamaConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
        max_position_embeddings=8192,
    ),
}
"""Sizes of the presets' models as their model cards give them, so that a plan needs no network."""


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder.

    Attributes:
        num_parameters: All weights, a tied embedding once.
        num_matrix_parameters: Weights that every token is multiplied with: all but the input embedding.
        num_adapter_parameters: P, one student's adapter.
        hidden_size: D.
        num_layers: Decoder layers.
        num_heads: H.
        num_key_value_heads: G.
        head_dim: d.
        mlp_size: Width of the MLP, I.
        vocabulary_size: V.
        has_head_norm: Query and key heads are normed (Qwen3).
        lora_r: Rank of the adapters.
    """

    num_parameters: int
    num_matrix_parameters: int
    num_adapter_parameters: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    head_dim: int
    mlp_size: int
    vocabulary_size: int
    has_head_norm: bool
    lora_r: int

    @property
    def query_size(self) -> int:
        """H d, outputs of the query projection."""
        return self.num_heads * self.head_dim

    @property
    def key_value_size(self) -> int:
        """G d, outputs of the key projection, and of the value projection."""
        return self.num_key_value_heads * self.head_dim

    def replace(self, **changes: Any) -> ModelShape:
        """Returns a copy with some sizes changed."""
        return dataclasses.replace(self, **changes)


def shape_of(model_config: PretrainedConfig, lora_r: int, lora_targets: Sequence[str]) -> ModelShape:
    """Counts a model and its adapters on torch's meta device, which holds sizes and no numbers.

    Args:
        model_config: Of a Llama-type causal language model.
        lora_r: Rank.
        lora_targets: As ``EnvConfig.lora_targets``.

    Raises:
        ConfigError: If no layer matches the targets.

    >>> shape_of(PUBLISHED["Qwen/Qwen3-8B"], 64, ("q_proj",)).num_parameters
    8190735360
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(model_config, trust_remote_code=False)
    body = getattr(model, model.base_model_prefix)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    head: nn.Linear = model.get_output_embeddings()
    is_tied = head.weight is body.embed_tokens.weight
    adapters = AdapterStack(model, 1, lora_r, float(lora_r), lora_targets)
    sizes: Any = model_config
    return ModelShape(
        num_parameters=num_parameters,
        num_matrix_parameters=num_parameters if is_tied else num_parameters - body.embed_tokens.weight.numel(),
        num_adapter_parameters=adapters.num_parameters,
        hidden_size=sizes.hidden_size,
        num_layers=sizes.num_hidden_layers,
        num_heads=sizes.num_attention_heads,
        num_key_value_heads=sizes.num_key_value_heads,
        head_dim=getattr(sizes, "head_dim", None) or sizes.hidden_size // sizes.num_attention_heads,
        mlp_size=sizes.intermediate_size,
        vocabulary_size=sizes.vocab_size,
        has_head_norm=hasattr(body.layers[0].self_attn, "q_norm"),
        lora_r=lora_r,
    )


def student_shape(student: str, lora_r: int, lora_targets: Sequence[str]) -> ModelShape:
    """Returns the sizes of the model that ``EnvConfig.student`` names; downloads no weights.

    Raises:
        StudentError: If its configuration cannot be had.
    """
    if student in PUBLISHED:
        return shape_of(PUBLISHED[student], lora_r, lora_targets)
    source = (
        str(packaged_folder(student))
        if is_packaged(student)
        else os.path.expanduser(student)
        if os.path.exists(os.path.expanduser(student))
        else student
    )
    try:
        if os.path.isdir(source):
            check_model_folder(Path(source))
        return shape_of(AutoConfig.from_pretrained(source, trust_remote_code=False), lora_r, lora_targets)
    except AtesdError:
        raise
    except Exception as error:  # what a folder of any content makes the library raise
        raise StudentError(
            f"student: expected a Llama-type model whose config.json can be read, got {student!r} "
            f"({' '.join(str(error).split())[:120]}); pass student=... with a local model directory or one of "
            f"{', '.join(PUBLISHED)}."
        ) from error
