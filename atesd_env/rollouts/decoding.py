"""Token after token with a key-value cache: the state of a decode loop, for both ways through a model.

A decoding holds R rows of S students (equal shares, in order). It begins with the prompts, makes a step for a token of each
row, and can drop rows that have ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from atesd_env.rollouts.passes import tokens_at_once
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
        kind = FixedDecoding if student.cuda_graph else FusedDecoding
        return kind(student.fused, prompt_ids, prompt_mask, max_new_tokens, num_students, tokens_at_once(student))
    return ModuleDecoding(student, prompt_ids, prompt_mask, max_new_tokens)


class ModuleDecoding:
    """Through transformers' modules and its cache."""

    def __init__(self, student: Student, prompt_ids: Tensor, prompt_mask: Tensor, max_new_tokens: int) -> None:
        self._student = student
        self._mask = functional.pad(prompt_mask, (0, max_new_tokens), value=True)
        self._num_tokens = 0
        self._cache = DynamicCache(config=student.model.config)
        for columns in prompt_ids.split(max(1, tokens_at_once(student) // len(prompt_ids)), dim=1):
            self._feed(columns)

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

    A pass over the prompts has at most ``pass_tokens`` tokens, but at least one row.

    Prompts end in the same column of the cache, so that each step writes one column.
    """

    def __init__(
        self,
        body: FusedBody,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        max_new_tokens: int,
        num_students: int,
        pass_tokens: int,
    ) -> None:
        body = body.merged() if body.merges and num_students == 1 else body
        self._body = body
        self._low_ranks = [
            tuple(None if low_rank is None else low_rank.contiguous() for low_rank in layer.low_ranks())
            for layer in body.layers
        ]
        lengths = prompt_mask.sum(dim=1)
        num_rows, prompt_length = prompt_ids.shape
        num_columns = prompt_length + max_new_tokens
        self._column = prompt_length
        device, dtype = prompt_ids.device, body.layers[0].qkv.weight.dtype
        # Keys lie transposed: a step multiplies each head's query with all of them at once.
        shape, zeros = (num_rows, body.num_key_value_heads), body.layers[0].qkv.weight.new_zeros
        self._keys = [zeros(*shape, body.head_dim, num_columns) for _ in body.layers]
        self._values = [zeros(*shape, num_columns, body.head_dim) for _ in body.layers]
        hidden = functional.pad(~prompt_mask, (0, max_new_tokens), value=False)
        self._bias = torch.zeros(num_rows, num_columns, dtype=dtype, device=device).masked_fill(hidden, -torch.inf)
        self._bias = self._bias.repeat_interleave(body.num_key_value_heads, dim=0)[:, None]
        new_positions = lengths[:, None] + torch.arange(max_new_tokens, device=device)
        self._rotary = body.rotary(new_positions)
        self._first_column = self._column
        parts = _parts(num_rows, max(1, pass_tokens // prompt_length), num_students)
        self.hidden = torch.cat(
            [self._prefill(prompt_ids[rows], prompt_mask[rows], rows.start, students) for rows, students in parts]
        )

    def _prefill(self, prompt_ids: Tensor, prompt_mask: Tensor, first_row: int, students: slice) -> Tensor:
        """Feeds the prompts of consecutive rows, all of ``students`` or some of one; returns their last hidden states."""
        body, length, lengths = self._body, prompt_ids.shape[1], prompt_mask.sum(dim=1)
        packed = PackedRows.of(prompt_mask)
        token_ids = prompt_ids[prompt_mask]
        is_prompt = None
        if students.stop - students.start > 1:
            # Students need equal numbers of tokens: shorter rows are filled up behind their ends, where nothing looks.
            places = packed.rows * length + packed.positions
            filled = prompt_ids.new_zeros(len(prompt_ids) * length).index_copy(0, places, token_ids)
            is_prompt = torch.zeros_like(filled, dtype=torch.bool).index_fill(0, places, True)
            token_ids, packed = filled, PackedRows.of(torch.ones_like(prompt_mask))
        columns = packed.positions + (length - lengths)[packed.rows]
        rows = packed.rows + first_row
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
            theirs = [None if low_rank is None else low_rank.of(students) for low_rank in low_ranks]
            hidden = body.layer(number, hidden, theirs, rotary, attend, keep)
        return body.finish(hidden)

    def step(self, token_ids: Tensor) -> None:
        """Feeds one token a row, [R] long."""
        turn = self._column - self._first_column
        self._feed(token_ids, (self._rotary[0][:, turn], self._rotary[1][:, turn]))
        self._column += 1

    def _feed(self, token_ids: Tensor, rotary: tuple[Tensor, Tensor]) -> None:
        body = self._body
        hidden = body.embed(token_ids)
        for number, low_ranks in enumerate(self._low_ranks):
            hidden = body.layer(number, hidden, low_ranks, rotary, self._attend)
        self.hidden = body.finish(hidden)

    def _attend(self, number: int, rotated: Tensor, value: Tensor) -> Tensor:
        """Attention of one new token a row to its row's tokens so far, itself included."""
        query, key = rotated.split_with_sizes([self._body.num_heads, self._body.num_key_value_heads], 1)
        keys, values, bias = self._extended(number, key, value)
        # The heads that share a key-value head stand together and become the rows of one small product.
        grouped = query.reshape(len(keys), -1, query.shape[-1])
        scores = torch.baddbmm(bias, grouped, keys, alpha=query.shape[-1] ** -0.5)
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(values.dtype)
        return torch.bmm(weights, values).view(len(value), -1)

    def _extended(self, number: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns a layer's keys [R G, d, T], values [R G, T, d] and their mask, a new token's [R, G, d] at their end."""
        keys, values, end = self._keys[number], self._values[number], self._column + 1
        keys.select(3, self._column).copy_(key)
        values.select(2, self._column).copy_(value)
        return (
            keys.flatten(0, 1).narrow(2, 0, end),
            values.flatten(0, 1).narrow(1, 0, end),
            self._bias.narrow(2, 0, end),
        )

    def keep(self, rows: Tensor) -> None:
        """Goes on with some rows only, [n] long, in the given order."""
        heads = self._body.num_key_value_heads
        self._bias = self._bias.unflatten(0, (-1, heads))[rows].flatten(0, 1)
        for cache in (self._keys, self._values):
            for number, whole in enumerate(cache):
                cache[number] = whole[rows]  # one after the other, so that one alone is there twice
        self._rotary = (self._rotary[0][rows], self._rotary[1][rows])
        self.hidden = self.hidden[rows]


class FixedDecoding(FusedDecoding):
    """The same in steps of one shape, for a CUDA graph: a step looks at the whole cache, and a mask hides what is not there yet."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._bias[..., self._first_column :] = -torch.inf
        self._turn = torch.zeros(1, dtype=torch.long, device=self._bias.device)

    def step(self, token_ids: Tensor) -> None:
        """Feeds one token a row, [R] long."""
        self._place = self._turn + self._first_column
        self._bias.index_fill_(2, self._place, 0.0)
        cosine, sine = (part.index_select(1, self._turn)[:, 0] for part in self._rotary)
        self._feed(token_ids, (cosine, sine))
        self._turn += 1

    def _extended(self, number: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values = self._keys[number], self._values[number]
        keys.index_copy_(3, self._place, key.unsqueeze(3))
        values.index_copy_(2, self._place, value.unsqueeze(2))
        return keys.flatten(0, 1), values.flatten(0, 1), self._bias


def _parts(num_rows: int, fitting: int, num_students: int) -> Iterator[tuple[slice, slice]]:
    """Yields (rows, their students) of at most ``fitting`` rows: all rows of some students, or some rows of one.

    >>> list(_parts(num_rows=4, fitting=2, num_students=2))
    [(slice(0, 2, None), slice(0, 1, None)), (slice(2, 4, None), slice(1, 2, None))]
    """
    share = num_rows // num_students
    together = max(1, fitting // share)
    for student in range(0, num_students, together):
        students = slice(student, min(student + together, num_students))
        for row in range(students.start * share, students.stop * share, min(fitting, together * share)):
            yield slice(row, min(row + fitting, students.stop * share)), students
