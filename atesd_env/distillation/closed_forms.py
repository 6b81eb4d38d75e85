"""Loss and gradient of a block of tokens in closed form: the table of `atesd_env.distillation.divergence`, in place."""

import math
from typing import cast

import torch
from torch import Tensor

from atesd_env.distillation.divergence import DivergenceSpec

# exp() of more than this is not needed: a word this much likelier for the teacher has p_S below 1e-34.
_LARGEST_LOG_RATIO = 80.0
# exp() of this is 0 in float64 too.
_NO_MASS = -1e4


def closed_form(
    student_probs: Tensor,
    teacher_probs: Tensor,
    log_ratio: Tensor,
    spec: DivergenceSpec,
    needs_gradient: bool,
    spare: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor | None]:
    """KL(p_T || p_S) [n], loss [n] and dL/dz [n, V] of the table in `atesd_env.distillation.divergence`.

    log_ratio is log(p_S / p_T). Uses `spare` (two tensors like it; the second one for the JSD only) and, for the
    gradient, overwrites its other arguments.
    """
    product, mixture = spare
    # 0 but for rounding. Added to a KL, it cancels the error that the rounding of the normalisers makes in log_ratio.
    excess_mass = student_probs.sum(dim=-1) - teacher_probs.sum(dim=-1)
    forward = excess_mass - dot(teacher_probs, log_ratio, product)
    if spec.kind == "forward_kl":
        return forward, forward, student_probs.sub_(teacher_probs) if needs_gradient else None
    if spec.kind == "reverse_kl":
        reverse = dot(student_probs, log_ratio, product) - excess_mass
        gradient = log_ratio.sub_(reverse.unsqueeze(-1)).mul_(student_probs) if needs_gradient else None
        return forward, reverse, gradient
    # log(m / p_S) = log(1 + b (p_T / p_S - 1)): exactly 0 where the two agree, and safe where a probability underflows.
    log_ratio.clamp_min_(-_LARGEST_LOG_RATIO)
    log_mixture_ratio = torch.neg(log_ratio, out=mixture).expm1_().mul_(spec.jsd_beta).log1p_()
    student_term = -dot(student_probs, log_mixture_ratio, product)
    teacher_term = -dot(teacher_probs, log_ratio.add_(log_mixture_ratio), product)
    loss = spec.jsd_beta * teacher_term + (1.0 - spec.jsd_beta) * student_term
    if not needs_gradient:
        return forward, loss, None
    log_mixture_ratio.add_(student_term.unsqueeze(-1)).mul_(student_probs).mul_(spec.jsd_beta - 1.0)
    return forward, loss, log_mixture_ratio


def closed_form_top_k(
    student_log_probs: Tensor, teacher_log_probs: Tensor, spec: DivergenceSpec, needs_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Loss [n] and dL/dz [n, V] between the teacher's top k words and a tail bucket; overwrites its arguments.

    The k + 1 buckets are a vocabulary of their own, and the table holds in it. A logit inside the tail moves
    the tail's mass in proportion to its share of it, so it gets p_S(word) / p_S(tail) of the tail's derivative.
    """
    top_words = teacher_log_probs.topk(cast("int", spec.top_k), dim=-1, sorted=False).indices
    student_top, teacher_top = student_log_probs.gather(-1, top_words), teacher_log_probs.gather(-1, top_words)
    # The tail has its own logsumexp: one minus the mass of the top would lose all digits of a small tail.
    student_tail = student_log_probs.scatter_(-1, top_words, -math.inf).logsumexp(dim=-1, keepdim=True)
    teacher_tail = teacher_log_probs.scatter_(-1, top_words, -math.inf).logsumexp(dim=-1, keepdim=True)
    student_buckets = torch.cat([student_top, student_tail], dim=-1)
    teacher_buckets = torch.cat([teacher_top, teacher_tail], dim=-1)
    log_ratio = student_buckets - teacher_buckets
    spare = (torch.empty_like(log_ratio), torch.empty_like(log_ratio))
    _, loss, bucket_gradient = closed_form(
        student_buckets.exp(), teacher_buckets.exp(), log_ratio, spec, needs_gradient, spare
    )
    if bucket_gradient is None:
        return loss, None
    share_of_tail = student_log_probs.sub_(student_tail).exp_()
    gradient = share_of_tail.mul_(bucket_gradient[:, -1:])
    return loss, gradient.scatter_(-1, top_words, bucket_gradient[:, :-1])


def merge_words(log_probs: Tensor, words: Tensor) -> Tensor:
    """Gives the first of some words the mass of all of them, in log-probabilities [..., V]; the others keep none worth a number.

    Args:
        log_probs: [..., V], overwritten.
        words: [E] long.

    Returns:
        Each word's share of the merged mass, [..., E]: how the derivative of the merged word's logit is shared out among theirs.
    """
    theirs = log_probs[..., words]
    merged = theirs.logsumexp(dim=-1, keepdim=True)
    # Finite, so that a ratio of two such words is 1 and not undefined.
    log_probs[..., words] = _NO_MASS
    log_probs[..., words[:1]] = merged
    return (theirs - merged).exp()


def dot(left: Tensor, right: Tensor, product: Tensor) -> Tensor:
    """Sum of products over the last axis; `product` is memory for the terms."""
    return torch.mul(left, right, out=product).sum(dim=-1)
