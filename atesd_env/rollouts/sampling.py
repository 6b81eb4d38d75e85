"""Rollouts: the student samples answers, in a decode loop of our own that stops working on rows that have ended.

Every random number is drawn before the loop, one for each row and position. So a row's tokens depend neither on the other
rows nor on when those end or are looked at, and the caller's generator advances by the same amount in every call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from atesd_env.config import EnvConfig
from atesd_env.rollouts.capture import Captured
from atesd_env.rollouts.decoding import Decoding, begin_decoding
from atesd_env.student.model import Student

KEPT_SHARE = 0.75
"""Rows that have ended are dropped from the batch once at most this share of it is left: dropping copies the cache."""
CAPTURED_KEPT_SHARE = 0.5
"""The same where steps are captured: fewer rows are another shape, and that is captured anew."""
CHECK_TOKENS = {"cuda": 8}
"""After how many tokens, by kind of device, the host looks whether rows go on (others: 1): a GPU's queue runs empty meanwhile."""
NUCLEUS = 512
"""So many likeliest words are looked at for top-p on a CPU, before all of them are sorted."""
TIES = 44
"""Words that share the last place of top-k and are kept beside ``top_k``, at most: coarse number formats have many."""


@dataclass(frozen=True)
class SamplingSpec:
    """How tokens are drawn.

    Attributes:
        max_new_tokens: Longest rollout, in tokens.
        temperature: Divides the logits; 0 is greedy.
        top_p: Keep the smallest set of tokens with at least this probability; 1 is off.
        top_k: Keep this many tokens; 0 is off.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    @classmethod
    def of(cls, config: EnvConfig) -> SamplingSpec:
        """Returns how a configuration samples rollouts."""
        return cls(config.max_new_tokens, config.temperature, config.top_p, config.top_k)


@dataclass(frozen=True)
class Rollouts:
    """Sampled answers behind their prompts.

    Attributes:
        prompt_ids: [R, P] long, left-padded.
        prompt_mask: [R, P] bool.
        completion_ids: [R, T] long, right-padded; T is the longest answer's length.
        completion_mask: [R, T] bool; the end token counts.
        is_finished: [R] bool; False where the answer was cut at max_new_tokens.
        token_log_probs: [R, T] float32, what another engine says the tokens' log-probabilities were (at temperature 1, over the
            full vocabulary; 0 where masked). None where the trainer's own numbers were sampled from.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    completion_ids: Tensor
    completion_mask: Tensor
    is_finished: Tensor
    token_log_probs: Tensor | None = None

    @property
    def lengths(self) -> Tensor:
        """[R] long, tokens of each answer."""
        return self.completion_mask.sum(dim=1)

    @property
    def answers(self) -> list[list[int]]:
        """The tokens of each answer."""
        rows = zip(self.completion_ids.tolist(), self.lengths.tolist(), strict=True)
        return [token_ids[:length] for token_ids, length in rows]

    def beginning(self, num_tokens: int | None) -> Rollouts:
        """Returns the answers' first tokens, at most so many of each; None is all."""
        return dataclasses.replace(
            self,
            completion_ids=self.completion_ids[:, :num_tokens],
            completion_mask=self.completion_mask[:, :num_tokens],
            token_log_probs=None if self.token_log_probs is None else self.token_log_probs[:, :num_tokens],
        )

    def rows(self, selection: slice) -> Rollouts:
        """Returns some of the rows, without completion columns that none of them uses."""
        mask = self.completion_mask[selection]
        longest = int(mask.sum(dim=1).max()) if mask.numel() else 0
        return Rollouts(
            self.prompt_ids[selection],
            self.prompt_mask[selection],
            self.completion_ids[selection, :longest],
            mask[:, :longest],
            self.is_finished[selection],
            None if self.token_log_probs is None else self.token_log_probs[selection, :longest],
        )


def left_pad(
    prompts: Sequence[Sequence[int]], pad_token_id: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Returns prompts of different lengths as (token ids [R, P] long, mask [R, P] bool), aligned at their ends."""
    return _padded(prompts, pad_token_id, device, "left")


def right_pad(
    answers: Sequence[Sequence[int]], pad_token_id: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Returns answers of different lengths as (token ids [R, T] long, mask [R, T] bool), aligned at their starts."""
    return _padded(answers, pad_token_id, device, "right")


def _padded(
    rows: Sequence[Sequence[int]], pad_token_id: int, device: torch.device | str, side: str
) -> tuple[Tensor, Tensor]:
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    token_ids = pad_sequence(tensors, batch_first=True, padding_value=pad_token_id, padding_side=side)
    ones = [torch.ones_like(tensor, dtype=torch.bool) for tensor in tensors]
    return token_ids.to(device), pad_sequence(ones, batch_first=True, padding_side=side).to(device)


def position_ids(mask: Tensor) -> Tensor:
    """Returns positions [R, T] that count from 0 at the first unmasked token of each row."""
    return (mask.long().cumsum(dim=1) - 1).clamp_min(0)


def kept_probabilities(logits: Tensor, spec: SamplingSpec) -> tuple[Tensor, Tensor | None]:
    """Returns what may be drawn after temperature, then top-k, then top-p, in the order and with the ties of transformers.

    With top-k only the C likeliest words are looked at, so that nothing of the vocabulary's size is sorted.

    Args:
        logits: [R, V].
        spec: Its temperature must be positive.

    Returns:
        (probabilities [R, C] float32, 0 for what was removed, the others not yet divided by their sum; the words that the columns
        stand for [R, C] long, ascending, or None where C is V).
    """
    words = None
    if 0 < spec.top_k < logits.shape[-1]:
        likeliest = logits.topk(min(spec.top_k + TIES, logits.shape[-1]), dim=-1)
        # In the vocabulary's order a number chooses the word that it would choose among all.
        words, order = likeliest.indices.sort(dim=-1)
        scaled = _tempered(likeliest.values, spec)
        logits = scaled.gather(1, order)
        logits = logits.masked_fill(logits < scaled[:, spec.top_k - 1 : spec.top_k], -torch.inf)
    else:
        logits = _tempered(logits, spec)
    probabilities = logits.softmax(dim=-1)
    if spec.top_p < 1.0:
        is_long = probabilities.shape[-1] > 4 * NUCLEUS and not probabilities.is_cuda
        probabilities = (_nucleus_by_likeliest if is_long else _nucleus)(probabilities, spec.top_p)
    return probabilities, words


def _tempered(logits: Tensor, spec: SamplingSpec) -> Tensor:
    """Returns logits over the temperature, float32."""
    return logits.float() if spec.temperature == 1.0 else logits.float() / spec.temperature


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Returns probabilities [R, C] with 0 for what top-p removes."""
    ascending, order = probabilities.sort(dim=-1)
    remove = ascending.cumsum(dim=-1) <= 1.0 - top_p
    remove[:, -1] = False  # the most likely token always stays
    return probabilities.masked_fill(remove.scatter(1, order, remove), 0.0)


def _nucleus_by_likeliest(probabilities: Tensor, top_p: float) -> Tensor:
    """Returns the same numbers, of rows whose likeliest words have ``top_p``, without sorting the others; for a CPU.

    A row is sorted after all where it is flatter, where two words share the last place, or where the sum is too near its bound for
    rounding not to matter (what is left of a sum in float64 and the float32 of ``_nucleus`` are less than 1e-8 apart).
    """
    likeliest = probabilities.topk(NUCLEUS, dim=-1).values
    before = likeliest.cumsum(dim=-1, dtype=torch.float64) - likeliest
    left = probabilities.sum(dim=-1, keepdim=True, dtype=torch.float64) - before - (1.0 - top_p)
    num_kept = (left > 0).sum(dim=-1, keepdim=True).clamp(1, NUCLEUS - 1)
    highest_removed, lowest_kept = likeliest.gather(1, num_kept), likeliest.gather(1, num_kept - 1)
    is_clear = (left[:, -1:] < 0) & (highest_removed < lowest_kept) & (left.abs().amin(dim=-1, keepdim=True) > 1e-8)
    kept = probabilities.masked_fill(probabilities <= highest_removed, 0.0)
    unclear = (~is_clear[:, 0]).nonzero()[:, 0]
    return kept.index_copy(0, unclear, _nucleus(probabilities[unclear], top_p)) if len(unclear) else kept


def sample_next_token(logits: Tensor, uniforms: Tensor, spec: SamplingSpec) -> Tensor:
    """Returns one token a row, [R] long, by inverting the cumulative distribution.

    Args:
        logits: [R, V].
        uniforms: [R] in [0, 1); ignored if the temperature is 0 (greedy).
        spec: How to sample.
    """
    if spec.temperature == 0:
        return logits.argmax(dim=-1)
    probabilities, words = kept_probabilities(logits, spec)
    cumulative = probabilities.cumsum(dim=-1)
    # Scaling by the last entry instead of 1 keeps a rounding error of the sum from ever choosing a removed token.
    targets = uniforms[:, None].to(cumulative.dtype) * cumulative[:, -1:]
    columns = torch.searchsorted(cumulative, targets, right=True)
    last_possible = torch.searchsorted(cumulative, cumulative[:, -1:].contiguous())
    # Logits that are not finite lead past the vocabulary; such a row goes on, and its student is named when it is scored.
    columns = torch.minimum(columns, last_possible).clamp_max(cumulative.shape[-1] - 1)
    return (columns if words is None else words.gather(1, columns))[:, 0]


def generate(
    student: Student,
    prompts: Sequence[Sequence[int]],
    spec: SamplingSpec,
    uniforms: Tensor | None = None,
    num_students: int = 1,
) -> Rollouts:
    """Samples one answer to each prompt. Whose adapters act is the caller's choice (``AdapterStack.use``).

    Args:
        student: The model.
        prompts: R prompts of token ids.
        spec: How to sample.
        uniforms: [R, max_new_tokens] in [0, 1), drawn by the caller; may be None if the temperature is 0.
        num_students: Whose adapters act; R is a multiple of it.

    Returns:
        The rollouts; all tensors on the student's device. The loop ends when every row has ended.
    """
    prompt_ids, prompt_mask = left_pad(prompts, student.pad_token_id, student.device)
    if uniforms is None:
        uniforms = torch.zeros(len(prompts), spec.max_new_tokens)
    with torch.inference_mode():
        decoded = _decode(student, prompt_ids, prompt_mask, spec, uniforms.to(student.device), num_students)
    # Autograd refuses tensors made in inference mode, and an update indexes with these: copies are ordinary tensors.
    return Rollouts(prompt_ids, prompt_mask, *(tensor.clone() for tensor in decoded))


def _decode(
    student: Student, prompt_ids: Tensor, prompt_mask: Tensor, spec: SamplingSpec, uniforms: Tensor, num_students: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns (completion_ids [R, T], completion_mask [R, T], is_finished [R])."""
    decoding = begin_decoding(student, prompt_ids, prompt_mask, spec.max_new_tokens, num_students)
    drawing = _Drawing(student, decoding, spec, uniforms)
    advance = Captured(drawing.advance, student.device) if student.cuda_graph else drawing.advance
    kept_share = CAPTURED_KEPT_SHARE if student.cuda_graph else KEPT_SHARE
    check_every = CHECK_TOKENS.get(student.device.type, 1)
    drawing.draw()
    num_tokens = 1
    while True:
        if num_tokens % check_every == 0 or num_tokens == spec.max_new_tokens:
            # Every student goes on with as many rows as the one that has most left.
            num_left = int((~drawing.has_ended).view(num_students, -1).sum(dim=1).max())
            if num_left == 0 or num_tokens == spec.max_new_tokens:
                break
            if num_left <= kept_share * len(drawing.rows) / num_students:
                drawing.keep(_unended_first(drawing.has_ended.view(num_students, -1), num_left))
                if isinstance(advance, Captured):
                    advance.forget()
        advance()
        num_tokens += 1
    sampled = drawing.sampled[:, :num_tokens]
    is_end = torch.isin(sampled, drawing.eos_token_ids)
    # Whatever was sampled in a row after its end token, while others went on, is not part of it.
    completion_mask = is_end.cumsum(dim=1) - is_end.long() == 0
    longest = int(completion_mask.sum(dim=1).max())
    completion_mask = completion_mask[:, :longest]
    sampled = sampled[:, :longest].masked_fill(~completion_mask, student.pad_token_id)
    return sampled, completion_mask, is_end.any(dim=1)


class _Drawing:
    """The rows that still go on, what was drawn of all of them, and the step from one token to the next.

    A step reads and writes the same tensors each time, its own number among them, and asks the device nothing: a CUDA graph can
    repeat it.
    """

    def __init__(self, student: Student, decoding: Decoding, spec: SamplingSpec, uniforms: Tensor) -> None:
        device, num_rows = student.device, len(uniforms)
        self._student, self._decoding, self._spec, self._uniforms = student, decoding, spec, uniforms
        self.eos_token_ids = torch.tensor(student.eos_token_ids, dtype=torch.long, device=device)
        self.sampled = torch.full((num_rows, spec.max_new_tokens), student.pad_token_id, device=device)
        self.rows = torch.arange(num_rows, device=device)
        self.has_ended = torch.zeros(num_rows, dtype=torch.bool, device=device)
        self._tokens = torch.zeros(num_rows, dtype=torch.long, device=device)
        self._turn = torch.zeros(1, dtype=torch.long, device=device)

    def draw(self) -> None:
        """Draws the next token of each row."""
        logits = self._student.logits(self._decoding.hidden)
        uniforms = self._uniforms.index_select(1, self._turn)[:, 0]
        self._tokens.copy_(sample_next_token(logits, uniforms, self._spec))
        self.sampled.index_put_((self.rows, self._turn), self._tokens)
        self.has_ended |= (self._tokens[:, None] == self.eos_token_ids).any(dim=1)
        self._turn += 1

    def advance(self) -> None:
        """Feeds the token of each row, and draws the next one."""
        self._decoding.step(self._tokens)
        self.draw()

    def keep(self, kept: Tensor) -> None:
        """Goes on with some rows only, [n] long, in the given order."""
        self.rows, self._uniforms, self._tokens = self.rows[kept], self._uniforms[kept], self._tokens[kept]
        self.has_ended = self.has_ended[kept]
        self._decoding.keep(kept)


def _unended_first(has_ended: Tensor, num_rows: int) -> Tensor:
    """Returns ``num_rows`` row numbers for each student, [S * num_rows], those that have not ended first.

    Args:
        has_ended: [S, rows of a student] bool.
        num_rows: How many.
    """
    order = has_ended.to(torch.uint8).argsort(dim=1, stable=True)[:, :num_rows]
    starts = torch.arange(len(order), device=order.device) * has_ended.shape[1]
    return (order + starts[:, None]).flatten()


def decode_texts(student: Student, rollouts: Rollouts) -> list[str]:
    """Returns the answers as text, special tokens left out."""
    texts: list[str] = student.tokenizer.batch_decode(rollouts.answers, skip_special_tokens=True)
    return texts
