"""Another engine's log-probabilities beside the trainer's: how far they differ, and weights that correct for it.

An engine with other kernels, another number format or a rounded adapter samples from a distribution q that is not quite the
trainer's p, though both are meant to be the student. A token's loss is then multiplied by the truncated importance weight
min(cap, p / q), a constant to the gradient. Truncation: Ionides 2008, "Truncated Importance Sampling"; for rollouts of
language models: Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training". One weight a
token, so what came before the token in its rollout is not reweighted: that bias is accepted for a bounded variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Agreement:
    """How an engine's log-probabilities agree with the trainer's, over some tokens.

    Attributes:
        num_tokens: How many.
        sum_difference: Sum of the absolute differences, in nats.
        max_difference: Largest one.
        sum_weight: Sum of the weights that the tokens' losses were multiplied with.
        num_capped: Tokens whose weight was cut at the cap.
    """

    num_tokens: int = 0
    sum_difference: float = 0.0
    max_difference: float = 0.0
    sum_weight: float = 0.0
    num_capped: int = 0

    def __add__(self, other: Agreement) -> Agreement:
        """Returns the agreement over the tokens of both."""
        return Agreement(
            self.num_tokens + other.num_tokens,
            self.sum_difference + other.sum_difference,
            max(self.max_difference, other.max_difference),
            self.sum_weight + other.sum_weight,
            self.num_capped + other.num_capped,
        )

    @property
    def mean_difference(self) -> float:
        """Mean absolute difference, in nats a token; 0 without tokens."""
        return self.sum_difference / max(1, self.num_tokens)

    def means(self) -> dict[str, float]:
        """Returns the columns of a row (``envs.columns.ENGINE_COLUMNS``); without tokens all are 0."""
        tokens = max(1, self.num_tokens)
        return {
            "engine/log_prob_difference": self.mean_difference,
            "engine/log_prob_difference_max": self.max_difference,
            "engine/importance_weight": self.sum_weight / tokens,
            "engine/capped_rate": self.num_capped / tokens,
        }


def importance_weights(trainer_log_probs: Tensor, engine_log_probs: Tensor, cap: float | None) -> Tensor:
    """Returns min(cap, p_trainer / p_engine) of N tokens, [N] float32 without gradient; ones if ``cap`` is None.

    Args:
        trainer_log_probs: [N], the trainer's log-probabilities of the sampled tokens.
        engine_log_probs: [N], those of the engine that sampled them.
        cap: Largest weight, at least 1.

    >>> importance_weights(torch.tensor([0.0, -1.0]), torch.tensor([-1.0, -1.0]), cap=2.0)
    tensor([2., 1.])
    """
    if cap is None:
        return torch.ones_like(trainer_log_probs, dtype=torch.float32)
    log_ratio = (trainer_log_probs - engine_log_probs).detach().float()
    return log_ratio.clamp_max(math.log(cap)).exp().clamp_max(cap)


def agreement(trainer_log_probs: Tensor, engine_log_probs: Tensor, cap: float | None) -> Agreement:
    """Returns how the log-probabilities [N] of both agree, and what ``importance_weights`` with this cap come to."""
    if len(trainer_log_probs) == 0:
        return Agreement()
    ratio = (trainer_log_probs - engine_log_probs).detach().double()
    weights = importance_weights(trainer_log_probs, engine_log_probs, cap)
    return Agreement(
        num_tokens=len(ratio),
        sum_difference=float(ratio.abs().sum()),
        max_difference=float(ratio.abs().max()),
        sum_weight=float(weights.double().sum()),
        num_capped=0 if cap is None else int((ratio > math.log(cap)).sum()),
    )
