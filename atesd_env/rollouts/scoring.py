"""The scores that a model gives to tokens that are there already: the student's, the teacher's, the probe's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from atesd_env.rollouts.passes import tokens_at_once
from atesd_env.rollouts.sampling import Rollouts, left_pad, position_ids, right_pad
from atesd_env.student.model import Student


def scored_hidden(
    student: Student,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    rollouts: Rollouts,
    *,
    recompute_activations: bool = False,
) -> Tensor:
    """Returns the final hidden states that predict the rollout's tokens, [N, D], N the unmasked completion tokens.

    Args:
        student: The model; whose adapters act is the caller's choice.
        prompt_ids: [R, P] long, left-padded: the student's or the teacher's prompts.
        prompt_mask: [R, P] bool.
        rollouts: The answers; row by row behind ``prompt_ids``.
        recompute_activations: Gradient checkpointing; transformers' modules must also be in training mode for it.
    """
    num_rows = len(prompt_ids)
    fitting = max(1, tokens_at_once(student) // (prompt_ids.shape[1] + rollouts.completion_ids.shape[1]))
    if num_rows > fitting and not torch.is_grad_enabled():
        starts = range(0, num_rows, fitting)
        parts = [slice(start, start + fitting) for start in starts]
        return torch.cat(
            [scored_hidden(student, prompt_ids[part], prompt_mask[part], rollouts.rows(part)) for part in parts]
        )
    # The last answer token predicts nothing that is scored, so it is not fed.
    inputs = torch.cat([prompt_ids, rollouts.completion_ids[:, :-1]], dim=1)
    mask = torch.cat([prompt_mask, rollouts.completion_mask[:, :-1]], dim=1)
    predicts = functional.pad(rollouts.completion_mask, (prompt_ids.shape[1] - 1, 0))
    if student.fused is not None:
        return student.fused.hidden(inputs, mask, predicts, recompute_activations=recompute_activations)
    hidden: Tensor = student.body(
        input_ids=inputs, attention_mask=mask, position_ids=position_ids(mask), use_cache=False
    ).last_hidden_state
    return hidden[predicts]


LOG_PROB_CHUNK = 256
"""Tokens whose vocabulary is held in memory at once."""


def forced_rollouts(student: Student, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Rollouts:
    """Returns given answers in the form of rollouts, so that they are scored like sampled ones."""
    prompt_ids, prompt_mask = left_pad(prompts, student.pad_token_id, student.device)
    answer_ids, answer_mask = right_pad(answers, student.pad_token_id, student.device)
    is_finished = torch.ones(len(answers), dtype=torch.bool, device=student.device)
    return Rollouts(prompt_ids, prompt_mask, answer_ids, answer_mask, is_finished)


def token_log_probs(student: Student, hidden: Tensor, tokens: Tensor) -> Tensor:
    """Returns the log-probabilities [N] float32 of ``tokens`` [N] given final hidden states [N, D]."""
    parts = []
    for start in range(0, len(tokens), LOG_PROB_CHUNK):
        selection = slice(start, start + LOG_PROB_CHUNK)
        logits = student.logits(hidden[selection]).float()
        chosen = logits.gather(1, tokens[selection, None])[:, 0]
        parts.append(chosen - logits.logsumexp(dim=1))
    return torch.cat(parts)
