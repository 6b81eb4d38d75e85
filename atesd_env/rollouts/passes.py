"""How much a pass without gradients works on at once: as many rows as its activations may take memory for."""

from __future__ import annotations

from typing import Any

from atesd_env.student.model import Student

PASS_BYTES = 2 << 30
"""What one layer's activations may take, the most that such a pass holds beside the cache: many more tokens than keep a device busy,
and more than any window of the packaged student has."""


def activation_bytes(hidden_size: int, query_size: int, key_value_size: int, mlp_size: int, width: int) -> int:
    """Returns what one token takes in the layer that a pass is in, ``width`` bytes a number: inputs, norms, heads, gate and up.

    The cache, which is there whole from the beginning, and logits, which are made of last positions once all are fed, come on top.
    """
    heads, rotated = query_size + 2 * key_value_size, query_size + key_value_size
    in_attention = 2 * hidden_size + 2 * heads + rotated + 2 * query_size
    in_mlp = 3 * hidden_size + heads + rotated + query_size + 3 * mlp_size
    return max(in_attention, in_mlp) * width


def fitting_tokens(token_bytes: int) -> int:
    """Returns how many tokens of ``activation_bytes`` are worked on at once, as far as rows allow: a pass has at least one row."""
    return max(1, PASS_BYTES // token_bytes)


def tokens_at_once(student: Student) -> int:
    """Returns ``fitting_tokens`` of a student."""
    sizes: Any = student.model.config.get_text_config()
    hidden, num_heads = sizes.hidden_size, sizes.num_attention_heads
    head_dim = getattr(sizes, "head_dim", None) or hidden // num_heads
    shared = getattr(sizes, "num_key_value_heads", None) or num_heads
    mlp = getattr(sizes, "intermediate_size", None) or 4 * hidden  # some other architectures say it by leaving it out
    return fitting_tokens(
        activation_bytes(hidden, num_heads * head_dim, shared * head_dim, mlp, student.head_weight.element_size())
    )
