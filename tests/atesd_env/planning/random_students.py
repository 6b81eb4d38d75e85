"""A student of random weights, small enough to count what it does."""

from __future__ import annotations

import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from atesd_env.config import preset
from atesd_env.planning.shape import ModelShape, shape_of
from atesd_env.student.adapters import AdapterStack
from atesd_env.student.model import Student, wrap_student
from atesd_env.student.packaged import TINY_DIRECTORY


def random_student(
    dtype: str, forward: str, num_students: int = 1, num_layers: int = 6
) -> tuple[Student, AdapterStack, ModelShape]:
    """Returns a Qwen3 of random weights, adapters on all its layers, and its sizes."""
    sizes = Qwen3Config(
        vocab_size=100,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(sizes).to(getattr(torch, dtype)).eval()
    config = preset("ATESD-Tiny-v0", dtype=dtype, forward=forward)
    student = wrap_student(model, AutoTokenizer.from_pretrained(TINY_DIRECTORY), "random", config)
    adapters = AdapterStack(student.model, num_students, 4, 8.0, config.lora_targets)
    return student, adapters, shape_of(sizes, 4, config.lora_targets)
