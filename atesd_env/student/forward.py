"""The forward pass of Llama-type students, written out: the numbers of transformers' modules in fewer, larger steps.

It is worth its lines because a window of a small student is bound by the number of operations, not by their size:

- Rows are packed: no product touches a padding token, and the last layer's MLP sees only the tokens that are asked for.
- Query, key and value are one product, gate and up are one, and so are the adapters on them.

Architectures that are not known here run through their modules (``decoding.py``, ``scoring.scored_hidden``), and the
tests hold the two against each other.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from atesd_env.student.adapters import LowRank, active_low_rank
from atesd_env.student.operations import (
    attend_rows,
    each_part,
    gather_rows,
    linear_with_adapter,
    merged,
    rms_norm,
    scatter_rows,
    swiglu,
)
from atesd_env.student.products import Product, Products, product_by

MODEL_TYPES = ("llama", "qwen2", "qwen3")
"""The architectures that are known, by transformers' names."""
_FIXED_ROTARY = ("default", "linear", "llama3", "yarn")  # others change their frequencies with the sequence's length

ALIGNMENT = 16
"""Rows are filled up to a multiple of this for attention, which on a CPU is up to 40% slower at 63 tokens than at 64."""

LONGEST_ALIKE = 176
"""Up to so many tokens a row's attention has the same bits on a CPU, however far the row is filled up."""

Attend = Callable[[int, Tensor, Tensor], Tensor]
"""Attention of one layer: (its number, query and key heads [N, H + G, d], value heads [N, G, d]) to [N, H * d]."""


class Packed(Protocol):
    """Rows laid one behind the other, N tokens in all, that look only at what stands before them in their row."""

    @property
    def positions(self) -> Tensor:
        """[N] long, each token's place in its row, from 0."""
        ...

    def attend(self, number: int, rotated: Tensor, value: Tensor) -> Tensor:
        """Causal attention, as ``Attend``."""
        ...


@dataclass(frozen=True)
class Projection:
    """Linear layers that read the same input, as one product.

    Attributes:
        parent: Module that holds them; they are asked for by name, since adapters are wrapped around them later.
        names: Their names.
        weight: [in, out], the layers' outputs side by side; the layers' own weights are views into it.
        bias: [out] or None.
        product: Multiplies with the weight.
        merges: Whether one student's adapters are added to the weight before the product.
    """

    parent: nn.Module
    names: tuple[str, ...]
    weight: Tensor
    bias: Tensor | None
    product: Product
    merges: bool

    @staticmethod
    def fuse(parent: nn.Module, *names: str, product: Product, merges: bool = False) -> Projection:
        """Moves the layers' weights into one tensor, without keeping a second copy."""
        layers = [cast(nn.Linear, parent.get_submodule(name)) for name in names]
        with torch.no_grad():
            weight = torch.cat([layer.weight for layer in layers]).t().contiguous()
            for layer, part in zip(layers, weight.split([layer.out_features for layer in layers], dim=1), strict=True):
                layer.weight = nn.Parameter(part.t(), requires_grad=False)
            bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
        return Projection(parent, names, weight, bias, product, merges)

    def low_rank(self) -> LowRank | None:
        """Returns the adapters that are switched on, in the weight's number format; None if there are none."""
        layers = [cast(nn.Linear, self.parent.get_submodule(name)) for name in self.names]
        return active_low_rank(layers, self.weight.dtype)

    def merged(self) -> Projection:
        """Returns the product with the sum of weight and adapters that are on, one student's, for many passes without gradients."""
        low_rank = self.low_rank()
        if low_rank is None:
            return self
        parts = [(start, matrix_b[0]) for start, matrix_b in low_rank.parts]
        with torch.no_grad():
            return replace(self, names=(), weight=merged(self.weight, low_rank.matrix_a[0], parts))

    def __call__(self, inputs: Tensor, low_rank: LowRank | None, residual: Tensor | None = None) -> Tensor:
        """Maps [N, in] to [N, out], adapters and ``residual`` [N, out] added.

        With adapters of several students, N rows belong to them in equal shares, in order.
        """
        if low_rank is not None and len(low_rank.matrix_a) == 1:
            parts = [(start, matrix_b[0]) for start, matrix_b in low_rank.parts]
            outputs = linear_with_adapter(
                inputs, self.weight, low_rank.matrix_a[0], parts, self.product, merges=self.merges
            )
            if self.bias is not None:
                outputs = outputs + self.bias
            return outputs if residual is None else outputs + residual
        if residual is not None and self.product is torch.matmul:
            outputs = torch.addmm(residual, inputs, self.weight)
        else:
            outputs = self.product(inputs, self.weight)
            outputs = outputs if residual is None else outputs + residual
        if self.bias is not None:
            outputs = outputs + self.bias
        if low_rank is None:
            return outputs
        shared = (len(low_rank.matrix_a), -1)
        inner = torch.bmm(inputs.view(*shared, inputs.shape[-1]), low_rank.matrix_a)
        for its, into, matrix_b in each_part(inner, outputs.view(*shared, outputs.shape[-1]), low_rank.parts):
            into.baddbmm_(its, matrix_b)
        return outputs


@dataclass(frozen=True)
class FusedLayer:
    """One decoder layer's weights.

    Attributes:
        attention_norm: [D].
        qkv: Query, key and value projection.
        head_norm: [H + G, d], the norms of query and key heads; None where the architecture has none.
        output: Attention's output projection.
        mlp_norm: [D].
        gate_up: Gate and up projection.
        down: Down projection.
    """

    attention_norm: Tensor
    qkv: Projection
    head_norm: Tensor | None
    output: Projection
    mlp_norm: Tensor
    gate_up: Projection
    down: Projection

    def low_ranks(self) -> tuple[LowRank | None, ...]:
        """Returns the active adapters of qkv, output, gate_up and down."""
        return tuple(part.low_rank() for part in (self.qkv, self.output, self.gate_up, self.down))

    def merged(self) -> FusedLayer:
        """Returns the layer with ``Projection.merged``."""
        names = ("qkv", "output", "gate_up", "down")
        return replace(self, **{name: getattr(self, name).merged() for name in names})


class FusedBody:
    """A model's decoder: token ids to final hidden states.

    Args:
        model: A model that ``is_known``; its linear layers' weights become views into fused ones, in place, and no longer
            contiguous: it computes as before, but ``save_pretrained`` refuses it.
        products: Who multiplies with the weights.
        merges: Multiply with the sum of a float32 weight and the adapters on it, where these are one student's.

    Attributes:
        product: Multiplies with the weights.
        merges: Whether adapters are added to the weights.
        num_heads: H.
        num_key_value_heads: G.
        head_dim: d.
    """

    def __init__(self, model: PreTrainedModel, products: Products = "blas", *, merges: bool = False) -> None:
        self._set_model(model)
        self.product = product_by(products, self._body.embed_tokens.weight)
        # In 16 bits a sum would lose most of what the adapters add.
        self.merges = merges and self._body.embed_tokens.weight.dtype == torch.float32
        config: Any = model.config
        self.num_heads: int = config.num_attention_heads
        self.num_key_value_heads: int = config.num_key_value_heads
        self.head_dim: int = getattr(config, "head_dim", None) or config.hidden_size // self.num_heads
        self.eps: float = config.rms_norm_eps
        self.layers = [self._fuse(layer) for layer in self._body.layers]

    def _set_model(self, model: PreTrainedModel) -> None:
        self._body: Any = getattr(model, model.base_model_prefix)

    def _fuse(self, layer: Any) -> FusedLayer:
        attention, mlp = layer.self_attn, layer.mlp
        head_norm = None
        if hasattr(attention, "q_norm"):
            head_norm = torch.cat(
                [
                    attention.q_norm.weight.detach().expand(self.num_heads, -1),
                    attention.k_norm.weight.detach().expand(self.num_key_value_heads, -1),
                ]
            )
        fuse = functools.partial(Projection.fuse, product=self.product, merges=self.merges)
        return FusedLayer(
            attention_norm=layer.input_layernorm.weight,
            qkv=fuse(attention, "q_proj", "k_proj", "v_proj"),
            head_norm=head_norm,
            output=fuse(attention, "o_proj"),
            mlp_norm=layer.post_attention_layernorm.weight,
            gate_up=fuse(mlp, "gate_proj", "up_proj"),
            down=fuse(mlp, "down_proj"),
        )

    def merged(self) -> FusedBody:
        """Returns the body of the student whose adapters are on, for many passes without gradients: a copy of the layers' weights."""
        other = copy.copy(self)
        other.layers = [layer.merged() for layer in self.layers]
        return other

    def on(self, model: PreTrainedModel) -> FusedBody:
        """Returns the same weights with the adapters of another model's modules, which must share the weights."""
        other = copy.copy(self)
        other._set_model(model)
        other.layers = [
            replace(
                layer,
                qkv=replace(layer.qkv, parent=module.self_attn),
                output=replace(layer.output, parent=module.self_attn),
                gate_up=replace(layer.gate_up, parent=module.mlp),
                down=replace(layer.down, parent=module.mlp),
            )
            for layer, module in zip(self.layers, other._body.layers, strict=True)
        ]
        return other

    def embed(self, token_ids: Tensor) -> Tensor:
        """Returns the embeddings [N, D] of token ids [N]."""
        embeddings: Tensor = self._body.embed_tokens(token_ids)
        return embeddings

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (cosine, signed sine), each [*positions, 1, d]: the rotation of x is x * cosine + roll(x) * sine."""
        cosine, sine = self._body.rotary_emb(self._body.embed_tokens.weight, positions)
        half = self.head_dim // 2
        return cosine.unsqueeze(-2), torch.cat([-sine[..., :half], sine[..., half:]], dim=-1).unsqueeze(-2)

    def layer(
        self,
        number: int,
        hidden: Tensor,
        low_ranks: Sequence[LowRank | None],
        rotary: tuple[Tensor, Tensor],
        attend: Attend,
        keep: Tensor | None = None,
    ) -> Tensor:
        """Maps [N, D] through one layer to [N, D], or to [M, D] for the M tokens in ``keep``."""
        layer = self.layers[number]
        qkv_low_rank, output_low_rank, gate_up_low_rank, down_low_rank = low_ranks
        heads = layer.qkv(rms_norm(hidden, layer.attention_norm, self.eps), qkv_low_rank).unflatten(
            -1, (-1, self.head_dim)
        )
        rotated, value = heads.split_with_sizes(
            [self.num_heads + self.num_key_value_heads, self.num_key_value_heads], 1
        )
        if layer.head_norm is not None:
            rotated = rms_norm(rotated, layer.head_norm, self.eps)
        cosine, sine = rotary
        rotated = torch.addcmul(rotated * cosine, rotated.roll(self.head_dim // 2, dims=-1), sine)
        attended = attend(number, rotated, value)
        if keep is not None:
            attended, hidden = gather_rows(attended, keep), gather_rows(hidden, keep)
        hidden = layer.output(attended, output_low_rank, residual=hidden)
        gate_up = layer.gate_up(rms_norm(hidden, layer.mlp_norm, self.eps), gate_up_low_rank)
        return layer.down(swiglu(gate_up), down_low_rank, residual=hidden)

    def finish(self, hidden: Tensor) -> Tensor:
        """Applies the final norm, [N, D]."""
        return rms_norm(hidden, self._body.norm.weight, self.eps)

    def hidden(self, token_ids: Tensor, mask: Tensor, wanted: Tensor, *, recompute_activations: bool = False) -> Tensor:
        """Returns final hidden states of some tokens; the adapters that are on must be one student's.

        Args:
            token_ids: [R, T] long.
            mask: [R, T] bool; each row's tokens stand together, padding may lie on both sides.
            wanted: [R, T] bool, a subset of ``mask``.
            recompute_activations: Gradient checkpointing, layer by layer.

        Returns:
            [M, D], M the wanted tokens, row by row.
        """
        order = (mask.flatten().cumsum(0) - 1)[wanted.flatten()]
        return self.packed_hidden(token_ids[mask], PackedRows.of(mask), order, recompute_activations)

    def packed_hidden(
        self, token_ids: Tensor, packed: Packed, wanted: Tensor, recompute_activations: bool = False
    ) -> Tensor:
        """Returns the same, [M, D], of packed tokens [N] and the numbers of those that are wanted [M], each at most once."""
        hidden = self.embed(token_ids)
        rotary = self.rotary(packed.positions)
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            arguments = (number, hidden, layer.low_ranks(), rotary, packed.attend, wanted if number == last else None)
            if recompute_activations and torch.is_grad_enabled():
                hidden = checkpoint(self.layer, *arguments, use_reentrant=False)
            else:
                hidden = self.layer(*arguments)
        return self.finish(hidden)


@dataclass(frozen=True)
class PackedRows:
    """Rows of different lengths laid one behind the other, N tokens in all.

    Attributes:
        rows: [N] long.
        positions: [N] long, from 0 in each row.
        blocks: For attention, (rows, tokens of each), a multiple of ``ALIGNMENT``: rows of one length stand together.
        places: [N] long, where each token stands in the blocks, one behind the other.
    """

    rows: Tensor
    positions: Tensor
    blocks: list[tuple[int, int]]
    places: Tensor

    @staticmethod
    def of(mask: Tensor) -> PackedRows:
        """Returns the packing of the tokens in a mask [R, T]."""
        rows, positions = mask.nonzero()[:, 0], (mask.long().cumsum(dim=1) - 1)[mask]
        lengths = [-(-length // ALIGNMENT) * ALIGNMENT for length in mask.sum(dim=1).tolist()]
        if mask.is_cuda or max(lengths) > LONGEST_ALIKE:
            lengths = [max(lengths)] * len(lengths)  # a GPU does one large block sooner than several small ones
        starts, blocks, begin = [0] * len(lengths), [], 0
        for length in sorted(set(lengths)):
            of_length = [row for row, its in enumerate(lengths) if its == length]
            for row in of_length:
                starts[row], begin = begin, begin + length
            blocks.append((len(of_length), length))
        return PackedRows(rows, positions, blocks, torch.tensor(starts, device=mask.device)[rows] + positions)

    def attend(self, number: int, rotated: Tensor, value: Tensor) -> Tensor:
        """Causal attention within each row, as ``Attend``."""
        # Rows begin at 0 and padding follows them, so that the causal mask alone hides it.
        sizes = [num_rows * length for num_rows, length in self.blocks]
        heads, num_shared = scatter_rows((rotated, value), self.places, sum(sizes)), value.shape[1]
        if len(sizes) == 1:
            attended = attend_rows(heads.unflatten(0, self.blocks[0]), num_shared)
        else:
            parts = zip(heads.split(sizes), self.blocks, strict=True)
            attended = torch.cat([attend_rows(part.unflatten(0, block), num_shared) for part, block in parts])
        return gather_rows(attended, self.places)


def is_known(model: PreTrainedModel) -> bool:
    """Returns whether ``FusedBody`` has this model's mathematics: a Llama-type decoder with nothing unusual about it."""
    config: Any = model.config
    if config.model_type not in MODEL_TYPES:
        return False
    layers = getattr(model, model.base_model_prefix).layers
    linear = [module for layer in layers for module in layer.modules() if hasattr(module, "in_features")]
    return (
        config.hidden_act == "silu"
        and all(kind == "full_attention" for kind in getattr(config, "layer_types", None) or ())
        and (config.rope_parameters or {}).get("rope_type", "default") in _FIXED_ROTARY
        and getattr(config, "pretraining_tp", 1) in (None, 1)
        and all(type(module) is nn.Linear for module in linear)  # a quantised layer has no plain weight
    )
