"""Token after token with a key-value cache: the state of a decode loop, for both ways through a model.

A decoding holds R rows of S students (equal shares, in order). It begins with the prompts, makes a step for a token of each
row, and can drop rows that have ended.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from atesd_env.student.forward import FusedBody, PackedRows
from atesd_env.student.model import Student


class Decoding(Protocol):
    """Rows in the middle of being decoded."""

    hidden: Tensor
    """[R, D], final hidden states that predict each row's next token."""

    def step(self, token_ids: Tensor) -> None:
        """Feeds one token a row, [R] long."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Goes on with some rows only, [n] long, in the given order."""
        ...


def begin_decoding(
    student: Student, prompt_ids: Tensor, prompt_mask: Tensor, max_new_tokens: int, num_students: int = 1
) -> Decoding:
    """Feeds the prompts. Whose adapters act is the caller's choice (``AdapterStack.use``), here and in every step.

    Args:
        student: The model.
        prompt_ids: [R, P] long, left-padded.
        prompt_mask: [R, P] bool.
        max_new_tokens: Most steps.
        num_students: S; R is a multiple of it.
    """
    if student.fused is not None:
        return FusedDecoding(student.fused, prompt_ids, prompt_mask, max_new_tokens, num_students)
    return ModuleDecoding(student, prompt_ids, prompt_mask, max_new_tokens)


class ModuleDecoding:
    """Through transformers' modules and its cache."""

    def __init__(self, student: Student, prompt_ids: Tensor, prompt_mask: Tensor, max_new_tokens: int) -> None:
        self._student = student
        self._mask = functional.pad(prompt_mask, (0, max_new_tokens), value=True)
        self._num_tokens = 0
        self._cache = DynamicCache(config=student.model.config)
        self._feed(prompt_ids)

    def _feed(self, token_ids: Tensor) -> None:
        end = self._num_tokens + token_ids.shape[1]
        mask = self._mask[:, :end]
        positions = (mask.long().cumsum(dim=1) - 1).clamp_min(0)[:, self._num_tokens :]
        output = self._student.body(
            input_ids=token_ids, attention_mask=mask, position_ids=positions, cache=self._cache, use_cache=True
        )
        self.hidden: Tensor = output.last_hidden_state[:, -1]
        self._num_tokens = end

    def step(self, token_ids: Tensor) -> None:
        self._feed(token_ids[:, None])

    def keep(self, rows: Tensor) -> None:
        self._cache.batch_select_indices(rows)
        self._mask = self._mask[rows]
        self.hidden = self.hidden[rows]


class FusedDecoding:
    """Through ``FusedBody``: the adapters' matrices are laid together once, the cache is one tensor a layer and kind.

    Prompts end in the same column of the cache, so that each step writes one column.
    """

    def __init__(
        self, body: FusedBody, prompt_ids: Tensor, prompt_mask: Tensor, max_new_tokens: int, num_students: int = 1
    ) -> None:
        self._body = body
        self._low_ranks = [
            tuple(None if pair is None else (pair[0].contiguous(), pair[1].contiguous()) for pair in layer.low_ranks())
            for layer in body.layers
        ]
        lengths = prompt_mask.sum(dim=1)
        num_rows, prompt_length = prompt_ids.shape
        num_columns = prompt_length + max_new_tokens
        self._column = prompt_length
        device, dtype = prompt_ids.device, body.layers[0].qkv.weight.dtype
        shape = (len(body.layers), num_rows, body.num_key_value_heads)
        # Keys lie transposed: a step multiplies each head's query with all of them at once.
        self._keys = list(torch.zeros(*shape, body.head_dim, num_columns, dtype=dtype, device=device))
        self._values = list(torch.zeros(*shape, num_columns, body.head_dim, dtype=dtype, device=device))
        hidden = functional.pad(~prompt_mask, (0, max_new_tokens), value=False)
        self._bias = torch.zeros(num_rows, num_columns, dtype=dtype, device=device).masked_fill(hidden, -torch.inf)
        self._bias = self._bias.repeat_interleave(body.num_key_value_heads, dim=0)[:, None]
        new_positions = lengths[:, None] + torch.arange(max_new_tokens, device=device)
        self._rotary = body.rotary(new_positions)
        self._prefill(prompt_ids, prompt_mask, lengths, num_students)

    def _prefill(self, prompt_ids: Tensor, prompt_mask: Tensor, lengths: Tensor, num_students: int) -> None:
        body, length = self._body, prompt_ids.shape[1]
        packed = PackedRows.of(prompt_mask)
        token_ids = prompt_ids[prompt_mask]
        is_prompt = None
        if num_students > 1:
            # Students need equal numbers of tokens: shorter rows are filled up behind their ends, where nothing looks.
            places = packed.rows * length + packed.positions
            filled = prompt_ids.new_zeros(len(prompt_ids) * length).index_copy(0, places, token_ids)
            is_prompt = torch.zeros_like(filled, dtype=torch.bool).index_fill(0, places, True)
            token_ids, packed = filled, PackedRows.of(torch.ones_like(prompt_mask))
        columns = packed.positions + (length - lengths)[packed.rows]
        rows = packed.rows
        if is_prompt is not None:
            rows, columns = rows[is_prompt], columns[is_prompt]

        def attend(number: int, rotated: Tensor, value: Tensor) -> Tensor:
            key = rotated[:, body.num_heads :]
            self._keys[number][rows, :, :, columns] = key if is_prompt is None else key[is_prompt]
            self._values[number][rows, :, columns] = value if is_prompt is None else value[is_prompt]
            return packed.attend(number, rotated, value)

        hidden = body.embed(token_ids)
        rotary = body.rotary(packed.positions)
        last_tokens = (packed.positions == (lengths - 1)[packed.rows]).nonzero()[:, 0]
        for number, low_ranks in enumerate(self._low_ranks):
            keep = last_tokens if number == len(self._low_ranks) - 1 else None
            hidden = body.layer(number, hidden, low_ranks, rotary, attend, keep)
        self.hidden = body.finish(hidden)
        self._first_column = self._column

    def step(self, token_ids: Tensor) -> None:
        """Feeds one token a row, [R] long."""
        body, turn = self._body, self._column - self._first_column
        rotary = (self._rotary[0][:, turn], self._rotary[1][:, turn])
        hidden = body.embed(token_ids)
        for number, low_ranks in enumerate(self._low_ranks):
            hidden = body.layer(number, hidden, low_ranks, rotary, self._attend)
        self.hidden = body.finish(hidden)
        self._column += 1

    def _attend(self, number: int, rotated: Tensor, value: Tensor) -> Tensor:
        """Attention of one new token a row to its row's tokens so far, itself included."""
        keys, values, end = self._keys[number], self._values[number], self._column + 1
        query, key = rotated.split([self._body.num_heads, self._body.num_key_value_heads], dim=1)
        keys[..., self._column] = key
        values[:, :, self._column] = value
        # The heads that share a key-value head stand together and become the rows of one small product.
        grouped = query.reshape(keys.shape[0] * keys.shape[1], -1, query.shape[-1])
        scores = torch.baddbmm(
            self._bias[..., :end], grouped, keys.flatten(0, 1)[..., :end], alpha=query.shape[-1] ** -0.5
        )
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(values.dtype)
        return torch.bmm(weights, values.flatten(0, 1)[:, :end]).view(len(value), -1)

    def keep(self, rows: Tensor) -> None:
        """Goes on with some rows only, [n] long, in the given order."""
        heads = self._body.num_key_value_heads
        self._bias = self._bias.unflatten(0, (-1, heads))[rows].flatten(0, 1)
        self._keys = [keys[rows] for keys in self._keys]
        self._values = [values[rows] for values in self._values]
        self._rotary = (self._rotary[0][rows], self._rotary[1][rows])
        self.hidden = self.hidden[rows]
