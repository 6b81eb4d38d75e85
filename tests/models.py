"""Small models of random weights that tests save where a reader would have one."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from atesd_env.student.packaged import TINY_DIRECTORY

LONG_CONTEXT = 40_960


def save_narrow_qwen3(folder: Path) -> None:
    """Saves a Qwen3 of two narrow layers, with the context of a large one and the packaged tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(TINY_DIRECTORY, model_max_length=LONG_CONTEXT)
    shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            max_position_embeddings=LONG_CONTEXT,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **shape,
        )
        Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
