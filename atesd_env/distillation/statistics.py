"""What an update tells of itself, and what a window's row makes of several; for loops of one's own too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atesd_env.distillation.divergence import forward_kl, rollout_weights
from atesd_env.distillation.importance import Agreement
from atesd_env.envs.columns import Row


@dataclass(frozen=True)
class UpdateStatistics:
    """Means over the rollouts of one update, each rollout a mean over its tokens; before the step. Units: nats a token.

    Attributes:
        loss: What was minimised.
        mismatch: KL(teacher||student), whatever the loss.
        student_entropy: Of the next-token distribution.
        teacher_entropy: Likewise.
        top1_disagreement: Share of tokens where the two prefer different ones, 0..1.
        log_confidence: Student's log-probability of its own tokens.
        grad_norm: Before clipping.
        agreement: Of another engine's log-probabilities with the student's; None where the own loop sampled.
        by_group: Sums over the rollouts of each difficulty group, [3, groups] float64: of the rollouts' weights, and of entropy and
            mismatch times these; None where nobody said which rollout is in which.
    """

    loss: float
    mismatch: float
    student_entropy: float
    teacher_entropy: float
    top1_disagreement: float
    log_confidence: float
    grad_norm: float
    agreement: Agreement | None = None
    by_group: NDArray[np.float64] | None = None


def mean_columns(updates: Sequence[UpdateStatistics]) -> Row:
    """Returns a row's columns on student and teacher: means over the updates of a window, at least one."""

    def mean(name: str) -> float:
        return float(np.mean([getattr(update, name) for update in updates]))

    return {
        "student/loss": mean("loss"),
        "student/mismatch": mean("mismatch"),
        "student/self_confidence": float(np.exp(mean("log_confidence"))),
        "student/entropy": mean("student_entropy"),
        "student/top1_disagreement": mean("top1_disagreement"),
        "student/grad_norm": mean("grad_norm"),
        "teacher/entropy": mean("teacher_entropy"),
    }


def measured_update(
    student_logits: Tensor,
    teacher_logits: Tensor,
    completion_ids: Tensor,
    completion_mask: Tensor,
    *,
    loss: float,
    grad_norm: float,
) -> UpdateStatistics:
    """Returns what an update in a loop of one's own was, from the logits that it had anyway.

    Args:
        student_logits: [B, T, V], at temperature 1, that predict the rollouts' tokens.
        teacher_logits: The same of the teacher.
        completion_ids: int64 [B, T], the rollouts.
        completion_mask: bool [B, T], True at their tokens.
        loss: What was minimised, nats a token.
        grad_norm: Gradient norm before clipping.
    """
    weights = rollout_weights(completion_mask)[completion_mask].double()
    log_probs = [
        logits.detach()[completion_mask].double().log_softmax(dim=-1) for logits in (student_logits, teacher_logits)
    ]
    student, teacher = log_probs
    said = student.gather(1, completion_ids[completion_mask][:, None])[:, 0]
    entropies = [-(one.exp() * one).sum(dim=1) for one in log_probs]
    differs = student.argmax(dim=1) != teacher.argmax(dim=1)
    per_token = torch.stack([forward_kl(student, teacher), *entropies, differs.double(), said])
    mismatch, student_entropy, teacher_entropy, disagreement, log_confidence = (per_token @ weights).tolist()
    return UpdateStatistics(loss, mismatch, student_entropy, teacher_entropy, disagreement, log_confidence, grad_norm)
