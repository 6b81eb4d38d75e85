"""How far the student's next-word distribution is from the teacher's, token by token, over the full vocabulary.

Notation: ``p_S`` and ``p_T`` are the student's and the teacher's distributions over V words at one scored token, ``z``
the student's logits. Every divergence is a sum over the vocabulary, at least 0, in nats. ``dL/dz`` has a closed form:

====================  =======================================  ===================================================
kind                  loss of one token                        dL/dz
====================  =======================================  ===================================================
``forward_kl``        KL(p_T || p_S)                           p_S - p_T
``reverse_kl``        KL(p_S || p_T)                           p_S (log(p_S / p_T) - KL(p_S || p_T))
``jsd``, beta = b     b KL(p_T || m) + (1 - b) KL(p_S || m),   (1 - b) p_S (log(p_S / m) - KL(p_S || m))
                      m = (1 - b) p_S + b p_T
====================  =======================================  ===================================================

The paper's loss (ATESD, arXiv 2605.11458) is ``forward_kl``. The JSD tends to 0, not to a KL, at both ends of ``b``, so
the three stay three named functions.

`forward_kl`, `reverse_kl` and `jsd` are the plain definitions. The fast path, which is tested against them, has the closed forms
in `closed_forms` and walks over the tokens in `chunked`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from atesd_env.config import EnvConfig
from atesd_env.errors import ConfigError

DivergenceKind = Literal["forward_kl", "reverse_kl", "jsd"]
"""KL(teacher||student), KL(student||teacher), or the generalized Jensen-Shannon divergence."""


@dataclass(frozen=True)
class DivergenceSpec:
    """Which loss pulls the student to the teacher.

    Attributes:
        kind: ``"forward_kl"`` (the paper's), ``"reverse_kl"`` or ``"jsd"``; see the table of this module.
        jsd_beta: The teacher's share of the mixture m of ``"jsd"``, strictly between 0 and 1. Other kinds ignore it.
        token_clip: Upper bound in nats on a token's loss, or None. It bounds the token's *sum* over the vocabulary
            (single terms of the sum can be negative, their sum cannot), so the loss stays at least 0. A token above the
            bound has the bound as its loss and a gradient of zero.
        top_k: None for the full vocabulary; else the loss is between distributions over the teacher's `top_k` likeliest
            words and one tail bucket that holds all the rest of the mass, the student's and the teacher's. The tail is
            never dropped. At most the full loss; equal to it for ``top_k >= V``.
        end_tokens: Tokens whose mass is one word's in loss and statistics, the first one's; for fewer than two nothing changes. A
            log-probability of a sampled token stays that token's own.
        chunk_size: Scored tokens whose logits exist at the same time, at least. Memory is at most
            ``2 * chunk_size * V`` numbers for logits and, on a CPU, 7 MiB a thread (or 7 V numbers) for scratch: with
            Qwen3's vocabulary in float32 and two threads about 160 MiB. Larger chunks are faster, by little. Where one
            model's logits of a chunk would take less than 8 MiB (small vocabularies), a chunk holds more tokens, up to
            that. Changes results only by rounding.

    Raises:
        ConfigError: A field is out of its range; the message names the field.
    """

    kind: DivergenceKind = "forward_kl"
    jsd_beta: float = 0.5
    token_clip: float | None = None
    top_k: int | None = None
    chunk_size: int = 128
    end_tokens: tuple[int, ...] = ()

    @classmethod
    def of(cls, config: EnvConfig, end_tokens: Sequence[int]) -> DivergenceSpec:
        """Returns the loss of a configuration, for a student whose rollouts these tokens end."""
        clip, top_k = config.token_clip, config.divergence_top_k
        merged = tuple(end_tokens) if config.merge_end_tokens else ()
        return cls(config.divergence, config.jsd_beta, clip, top_k, config.divergence_chunk, merged)

    def __post_init__(self) -> None:
        """Refuse values that cannot be used."""
        if self.kind not in get_args(DivergenceKind):
            raise ConfigError(f"kind: expected one of {', '.join(get_args(DivergenceKind))}; got {self.kind!r}.")
        _check_beta("jsd_beta", self.jsd_beta)
        if self.token_clip is not None and not 0.0 < self.token_clip < math.inf:
            raise ConfigError(f"token_clip: expected None or a finite number above 0 (nats); got {self.token_clip!r}.")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k: expected None (full vocabulary) or at least 1 word; got {self.top_k!r}.")
        if self.chunk_size < 1:
            raise ConfigError(f"chunk_size: expected at least 1 token; got {self.chunk_size!r}.")


def forward_kl(student_log_probs: Tensor, teacher_log_probs: Tensor) -> Tensor:
    """KL(p_T || p_S): the teacher's expectation of log(p_T / p_S); the student must cover what the teacher may say.

    Args:
        student_log_probs: log p_S, [N, V], normalised.
        teacher_log_probs: log p_T, [N, V], normalised. Minus infinity is a word of probability 0: it contributes 0.

    Returns:
        [N], nats.

    >>> p_S, p_T = torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]])
    >>> forward_kl(p_S.log(), p_T.log()), reverse_kl(p_S.log(), p_T.log())
    (tensor([0.6931]), tensor([inf]))
    """
    return _kullback_leibler(teacher_log_probs, student_log_probs)


def reverse_kl(student_log_probs: Tensor, teacher_log_probs: Tensor) -> Tensor:
    """KL(p_S || p_T): the student's expectation of log(p_S / p_T); it must not say what the teacher would not.

    Args:
        student_log_probs: log p_S, [N, V], normalised. Minus infinity is a word of probability 0: it contributes 0.
        teacher_log_probs: log p_T, [N, V], normalised.

    Returns:
        [N], nats.
    """
    return _kullback_leibler(student_log_probs, teacher_log_probs)


def jsd(student_log_probs: Tensor, teacher_log_probs: Tensor, beta: float) -> Tensor:
    """Generalised Jensen-Shannon divergence: beta KL(p_T || m) + (1 - beta) KL(p_S || m).

    The mixture is m = (1 - beta) p_S + beta p_T.

    Args:
        student_log_probs: log p_S, [N, V], normalised.
        teacher_log_probs: log p_T, [N, V], normalised.
        beta: The teacher's share of m, strictly between 0 and 1; 0.5 is symmetric in student and teacher.

    Returns:
        [N], nats, at most the entropy of a coin with bias beta (log 2 for 0.5).

    Raises:
        ConfigError: beta is not strictly between 0 and 1.
    """
    _check_beta("beta", beta)
    mixture = torch.logaddexp(student_log_probs + math.log1p(-beta), teacher_log_probs + math.log(beta))
    teacher_term = beta * _kullback_leibler(teacher_log_probs, mixture)
    return teacher_term + (1.0 - beta) * _kullback_leibler(student_log_probs, mixture)


def rollout_weights(completion_mask: Tensor) -> Tensor:
    """Weight of each token such that ``(weights * loss).sum()`` is the paper's loss.

    That is the mean over rollouts of the mean over a rollout's tokens: every rollout counts the same, however long.

    Args:
        completion_mask: bool [B, T], True where a sampled token is scored.

    Returns:
        float32 [B, T], ``1 / (B * length)`` at scored tokens and 0 elsewhere. A rollout of length 0 has no weight but
        still counts in B, so that the weights of a batch sum to the share of rollouts that are not empty.

    Raises:
        ConfigError: The mask is not bool or not [B, T].

    >>> rollout_weights(torch.tensor([[True, True], [True, False]]))
    tensor([[0.2500, 0.2500],
            [0.5000, 0.0000]])
    """
    if completion_mask.dtype != torch.bool or completion_mask.ndim != 2:
        got = f"{completion_mask.dtype} {list(completion_mask.shape)}"
        raise ConfigError(f"completion_mask: expected torch.bool [B, T]; got {got}. Pass a mask, not weights.")
    lengths = completion_mask.sum(dim=1, keepdim=True).clamp_min(1)
    return completion_mask.float() / (lengths * max(1, completion_mask.shape[0]))


def _kullback_leibler(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of [N, V], where a word with p = 0 contributes 0."""
    return (log_p.exp() * (log_p - log_q).masked_fill(log_p == -math.inf, 0.0)).sum(dim=-1)


def _check_beta(name: str, beta: float) -> None:
    if not 0.0 < beta < 1.0:
        raise ConfigError(
            f"{name}: expected a number strictly between 0 and 1; got {beta!r}. The JSD is 0 at both ends; "
            "the KL divergences are the kinds forward_kl and reverse_kl."
        )
