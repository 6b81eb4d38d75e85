"""The terms of a plan: bytes of one kind of tensor each, as the code of this package holds them. Pure functions.

Notation as in ``ModelShape``: N tokens, D hidden size, H query and G key-value heads of d, I MLP width, V vocabulary, r rank.
"""

from __future__ import annotations

from atesd_env.distillation.chunked import BLOCK_BYTES_GPU, CHUNK_BYTES
from atesd_env.planning.shape import ModelShape
from atesd_env.rollouts.passes import PASS_BYTES, activation_bytes, fitting_tokens
from atesd_env.rollouts.sampling import KEPT_SHARE
from atesd_env.student.adapters import MOST_ZEROS, num_zeros

FLOAT_BYTES = 4
"""Of a float32 number."""
SAMPLING_BYTES = 40
"""Of one word of a row's vocabulary while a token is sampled: logits, their filtered and sorted copies, the order (int64), sums."""

_NF4_BYTES = 0.5 + 4 / 64  # of one weight: 4 bits, and a float32 scale for every 64


def base_bytes(shape: ModelShape, width: int, quantization: str = "none") -> dict[str, float]:
    """Returns the frozen base's bytes on one device, by part.

    Args:
        shape: The model's sizes.
        width: Bytes of a number of the base.
        quantization: As ``EnvConfig.base_quantization``: "nf4" holds the layers in 4 bits, and one product's weights unpacked.
    """
    in_layers = layer_parameters(shape)
    whole = (shape.num_parameters - in_layers) * width  # embedding, output layer, last norm
    if quantization == "nf4":
        unpacked = shape.hidden_size * shape.mlp_size * width
        return {"weights": whole + in_layers * _NF4_BYTES, "weights of one product, unpacked": unpacked}
    return {"weights": whole + in_layers * width}


def layer_parameters(shape: ModelShape) -> int:
    """Returns the weights of the decoder layers (the last norm, which is very small, among them)."""
    return shape.num_matrix_parameters - shape.vocabulary_size * shape.hidden_size


def cache_bytes(shape: ModelShape, num_rows: int, num_columns: int, width: int) -> int:
    """Returns the bytes of keys and values of ``num_rows`` rows of ``num_columns`` tokens, ``width`` bytes a number."""
    return 2 * shape.num_layers * num_rows * num_columns * shape.key_value_size * width


def cache_copies(shape: ModelShape) -> float:
    """Returns how many caches are held at most: rows that go on are copied when others have ended, a layer's keys or values at a time."""
    return 1 + KEPT_SHARE / (2 * shape.num_layers)


def token_bytes(shape: ModelShape, width: int) -> int:
    """Returns what a pass without gradients holds of one token (``activation_bytes``)."""
    return activation_bytes(shape.hidden_size, shape.query_size, shape.key_value_size, shape.mlp_size, width)


def forward_bytes(num_rows: int, num_columns: int, shape: ModelShape, width: int) -> int:
    """Returns what one layer holds at once without gradients, which is the most that such a pass needs.

    Adapters add no activation of their own: what they add is added in place, in the base's number format.

    Args:
        num_rows: Rows of the pass, of which as many are fed at once as ``PASS_BYTES`` allows, at least one.
        num_columns: Tokens of a row.
        shape: The model's sizes.
        width: Bytes of a number of the base.
    """
    one = token_bytes(shape, width)
    return min(num_rows, max(1, fitting_tokens(one) // num_columns)) * num_columns * one


def waiting_bytes(num_scored: int, shape: ModelShape, width: int) -> int:
    """Returns what the teacher's hidden states of ``num_scored`` tokens take, of one pass for students that wait for their turn."""
    return min(num_scored * shape.hidden_size * width, PASS_BYTES)


def saved_bytes(
    num_tokens: int, num_scored: int, shape: ModelShape, width: int, *, recompute: bool, in_modules: bool = False
) -> int:
    """Returns what a forward pass keeps for its backward pass.

    Args:
        num_tokens: N, prompts and rollouts.
        num_scored: Tokens that the last layer's MLP sees.
        shape: The model's sizes.
        width: Bytes of a number of the base.
        recompute: Gradient checkpointing: each layer's input, and one layer whole while its gradient is made.
        in_modules: Through transformers' modules, which keep float32 copies of a 16-bit base's activations.
    """
    attention, mlp = _saved_by_layer(shape, width)
    if in_modules and width < FLOAT_BYTES:
        more_attention, more_mlp = _copied_by_modules(shape, width)
        attention, mlp = attention + more_attention, mlp + more_mlp
    whole = num_tokens * (shape.num_layers - 1) * (attention + mlp) + num_tokens * attention + num_scored * mlp
    if not recompute:
        return whole
    inputs = shape.num_layers * num_tokens * shape.hidden_size * width
    # The gradients of gate and up, of their product and of the layer's output, while the layer's own tensors are there.
    gradients = num_tokens * (5 * shape.mlp_size + 2 * shape.hidden_size) * width
    return min(whole, inputs + num_tokens * (attention + mlp) + gradients)


def _saved_by_layer(shape: ModelShape, width: int) -> tuple[int, int]:
    """Returns (attention's, MLP's) bytes of one token: what the norms, products, adapters and SwiGLU keep."""
    rotated = shape.query_size + shape.key_value_size
    heads = shape.query_size + 2 * shape.key_value_size
    in_attention = 2 * shape.hidden_size + (rotated if shape.has_head_norm else 0) + heads + 2 * shape.query_size
    in_mlp = 2 * shape.hidden_size + 4 * shape.mlp_size
    return (in_attention + 4 * shape.lora_r) * width, (in_mlp + 3 * shape.lora_r) * width


def _copied_by_modules(shape: ModelShape, width: int) -> tuple[int, int]:
    """Returns what modules keep of a token beyond ``_saved_by_layer``: float32 inputs of every norm, not 16-bit ones."""
    rotated = shape.query_size + shape.key_value_size if shape.has_head_norm else 0
    wider = FLOAT_BYTES - width
    return (shape.hidden_size + rotated) * wider, shape.hidden_size * wider


def joined_adapters(shape: ModelShape) -> int:
    """Returns the numbers of adapters on all layers, in the base's format, as they are multiplied.

    Those of layers with the same input are laid side by side (query, key and value; gate and up), zeros between them if these are few.
    """
    rank, hidden, mlp = shape.lora_r, shape.hidden_size, shape.mlp_size
    groups = (
        (hidden, (shape.query_size, shape.key_value_size, shape.key_value_size)),
        (shape.query_size, (hidden,)),
        (hidden, (mlp, mlp)),
        (mlp, (hidden,)),
    )
    total = 0
    for inputs, outputs in groups:
        zeros = num_zeros(rank, outputs, sum(outputs))
        total += rank * (len(outputs) * inputs + sum(outputs)) + (zeros if zeros <= MOST_ZEROS else 0)
    return shape.num_layers * total


def divergence_bytes(num_scored: int, shape: ModelShape, chunk_size: int, width: int) -> int:
    """Returns what the divergence of ``num_scored`` tokens holds at once: both models' logits of a chunk, and scratch."""
    row_bytes = shape.vocabulary_size * FLOAT_BYTES
    chunk = max(1, min(num_scored, max(chunk_size, CHUNK_BYTES // row_bytes)))
    block = min(chunk, max(1, BLOCK_BYTES_GPU // row_bytes))
    return shape.vocabulary_size * (2 * chunk * width + 6 * block * FLOAT_BYTES)
