"""Answers behind prompts that begin alike: what rows have in common is computed once.

A teacher that is asked about several reveal ratios reads the same problem, and the same first steps, behind each of them. Here
the rows are laid into the tree of their beginnings: products meet each token of the tree once; only attention goes row by row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from atesd_env.rollouts.passes import tokens_at_once
from atesd_env.student.forward import ALIGNMENT
from atesd_env.student.model import Student
from atesd_env.student.operations import attend_rows


@dataclass(frozen=True)
class SharedRows:
    """Rows as the tree of their beginnings, N tokens in all (``forward.Packed``); without gradients.

    Attributes:
        token_ids: [N] long.
        positions: [N] long, from 0 at the root.
        paths: Each row's tokens, from the root on: their numbers in the tree.
        sources: For the rows of each length, filled up to a multiple of ``ALIGNMENT``: the token in each place, [rows, length] long;
            any behind a row's end, where nothing looks.
        places: [N] long, where among all places of ``sources`` each token stands, in the first row that has it.
    """

    token_ids: Tensor
    positions: Tensor
    paths: list[Tensor]
    sources: list[Tensor]
    places: Tensor

    @staticmethod
    def of(rows: Sequence[Sequence[int]], device: torch.device) -> SharedRows:
        """Returns the tree of rows of token ids."""
        numbers: dict[tuple[int, int], int] = {}
        positions: list[int] = []
        paths: dict[tuple[int, ...], Tensor] = {}
        for row in dict.fromkeys(tuple(row) for row in rows):
            number, passed = -1, []
            for position, token_id in enumerate(row):
                number = numbers.setdefault((number, token_id), len(numbers))
                if number == len(positions):
                    positions.append(position)
                passed.append(number)
            paths[row] = torch.tensor(passed, device=device)
        by_length = defaultdict(list)
        for path in paths.values():
            by_length[-(-len(path) // ALIGNMENT) * ALIGNMENT].append(path)
        filled = [
            torch.stack([functional.pad(path, (0, length - len(path)), value=-1) for path in group])
            for length, group in by_length.items()
        ]
        numbered = torch.cat([rows_of_length.flatten() for rows_of_length in filled])
        is_token = numbered >= 0
        at = torch.arange(len(numbered), device=device)[is_token]
        places = at.new_full((len(numbers),), len(numbered)).scatter_reduce(0, numbered[is_token], at, "amin")
        return SharedRows(
            torch.tensor([token_id for _, token_id in numbers], device=device),
            torch.tensor(positions, device=device),
            [paths[tuple(row)] for row in rows],
            [rows_of_length.clamp_min(0) for rows_of_length in filled],
            places,
        )

    def attend(self, number: int, rotated: Tensor, value: Tensor) -> Tensor:
        """Causal attention within each row, as ``forward.Attend``."""
        num_shared = value.shape[1]
        together, attended = torch.cat([rotated, value], dim=1), []
        for source in self.sources:
            heads = together.index_select(0, source.flatten()).unflatten(0, source.shape)
            attended.append(attend_rows(heads, num_shared))
        return torch.cat(attended).index_select(0, self.places)


def answers_hidden(
    student: Student, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> list[Tensor]:
    """Returns the final hidden states that predict answers behind their prompts, [its tokens, D] for each answer.

    The numbers of ``scoring.scored_hidden``; rows that begin alike should stand together.

    Args:
        student: The model, written out (``fused``); whose adapters act is the caller's choice, and they must be one student's.
        prompts: R prompts of token ids.
        answers: R answers.
    """
    assert student.fused is not None
    with torch.no_grad():
        # The last answer token predicts nothing that is scored, so it is not fed.
        rows = [(*prompt, *answer[:-1]) for prompt, answer in zip(prompts, answers, strict=True)]
        hidden: list[Tensor] = []
        for part in in_parts(list(map(len, rows)), tokens_at_once(student)):
            shared = SharedRows.of(rows[part], student.device)
            predicting = [
                path[len(prompt) - 1 :][: len(answer)]
                for path, prompt, answer in zip(shared.paths, prompts[part], answers[part], strict=True)
            ]
            wanted, order = torch.cat(predicting).unique(return_inverse=True)
            predicted = student.fused.packed_hidden(shared.token_ids, shared, wanted)[order]
            hidden += predicted.split(list(map(len, answers[part])))
        return hidden


def in_parts(lengths: Sequence[int], most_tokens: int) -> Iterator[slice]:
    """Yields consecutive places of at most so many tokens together, or one place."""
    start, num_tokens = 0, 0
    for place, length in enumerate(lengths):
        if place > start and num_tokens + length > most_tokens:
            yield slice(start, place)
            start, num_tokens = place, 0
        num_tokens += length
    yield slice(start, len(lengths))
