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

The paper's loss is ``forward_kl`` (PAPER.md, "The student's update"). The JSD tends to 0, not to a KL, at both ends of
``b``, so the three stay three named functions.

`token_divergence` is the fast path: the gradient is made in the forward pass, a few tokens at a time, so that no
``[B, T, V]`` tensor ever exists. `forward_kl`, `reverse_kl` and `jsd` are the plain definitions it is tested against.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from atesd_env.errors import ConfigError, NonFiniteError

DivergenceKind = Literal["forward_kl", "reverse_kl", "jsd"]

# Elementwise work runs on blocks of rows of about this size: they stay in a core's cache, and the allocator hands the
# same pages out again. Below this size chunking has no point either, so a chunk grows until its logits reach it.
_BLOCK_BYTES = 4 * 2**20

# exp() of more than this is not needed: a word this much likelier for the teacher has p_S below 1e-34.
_LARGEST_LOG_RATIO = 80.0


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
        chunk_size: Scored tokens whose logits exist at the same time, at least. Memory is about
            ``2 * chunk_size * V`` numbers. Where the vocabulary is so small that one model's logits of a chunk take
            less than 4 MiB, a chunk holds more tokens, up to that size. Changes results only by rounding.

    Raises:
        ConfigError: A field is out of its range; the message names the field.
    """

    kind: DivergenceKind = "forward_kl"
    jsd_beta: float = 0.5
    token_clip: float | None = None
    top_k: int | None = None
    chunk_size: int = 64

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


class TokenDivergence(NamedTuple):
    """Loss and statistics of N scored tokens; each field is [N], float32 (float64 for float64 hidden states).

    Attributes:
        loss: The divergence of the chosen kind in nats; the only field with a gradient, to the student's hidden states.
        mismatch: KL(p_T || p_S) over the full vocabulary in nats, whatever the kind, clip or top-k of the loss.
        student_entropy: Entropy of p_S in nats, 0 to log V.
        teacher_entropy: Entropy of p_T in nats, 0 to log V.
        top1_disagreement: 1.0 where the teacher's likeliest word is not the student's, else 0.0. A word that shares the
            student's first place counts as agreement (ties are common in bfloat16).
        student_log_prob: log p_S of the sampled token.
        teacher_log_prob: log p_T of the sampled token.
    """

    loss: Tensor
    mismatch: Tensor
    student_entropy: Tensor
    teacher_entropy: Tensor
    top1_disagreement: Tensor
    student_log_prob: Tensor
    teacher_log_prob: Tensor


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
    """Generalised Jensen-Shannon divergence: beta KL(p_T || m) + (1 - beta) KL(p_S || m), m = (1 - beta) p_S + beta p_T.

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


def token_divergence(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    head_weight: Tensor,
    tokens: Tensor,
    spec: DivergenceSpec,
    *,
    head_bias: Tensor | None = None,
    rows_owner: str | Sequence[str] | None = None,
) -> TokenDivergence:
    """Divergence between student and teacher at N scored tokens, from hidden states and the frozen head they share.

    Logits are ``hidden @ head_weight.T + head_bias`` in the dtype of the hidden states (autocast is off), everything
    after them in float32, or in float64 if the hidden states are float64. Only `student_hidden` gets a gradient (once
    differentiable): the teacher is a constant and the head is frozen, even if their tensors ask for one. The gradient's
    work is done here, not in ``backward()``, and left out where gradients are off or not asked for.

    Args:
        student_hidden: [N, D], last hidden states of the student (after the final norm) that predict `tokens`.
        teacher_hidden: [N, D], the same of the teacher, same dtype.
        head_weight: [V, D], same dtype.
        tokens: int64 [N], the sampled tokens, each in 0..V-1.
        spec: Which loss.
        head_bias: [V], same dtype, finite, or None.
        rows_owner: Who the rows belong to, for error messages: one label (``"student 2"``) or one for each row.

    Returns:
        Loss and statistics, each [N]; see `TokenDivergence`. N = 0 gives empty tensors.

    Raises:
        ConfigError: Shapes, dtypes or token ids do not fit.
        NonFiniteError: NaN or infinity in hidden states or logits; names the owner and counts the tokens.
    """
    _check_inputs(student_hidden, teacher_hidden, head_weight, tokens, head_bias)
    needs_gradient = torch.is_grad_enabled() and student_hidden.requires_grad
    with torch.no_grad(), torch.autocast(student_hidden.device.type, enabled=False):
        measured, hidden_gradient = _measure(
            student_hidden, teacher_hidden, head_weight, head_bias, tokens, spec, needs_gradient
        )
        _refuse_non_finite(measured, student_hidden, teacher_hidden, rows_owner)
    if hidden_gradient is None:
        return measured
    return measured._replace(loss=_GradientInHand.apply(student_hidden, measured.loss, hidden_gradient))


class _GradientInHand(torch.autograd.Function):
    """Gives a loss [N] that is already computed the gradient [N, D] that is already computed too."""

    @staticmethod
    def forward(ctx: Any, student_hidden: Tensor, loss: Tensor, hidden_gradient: Tensor) -> Tensor:
        ctx.save_for_backward(hidden_gradient)
        return loss.view_as(loss)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        (hidden_gradient,) = ctx.saved_tensors
        return (grad_output.unsqueeze(1) * hidden_gradient).to(hidden_gradient.dtype), None, None


def _measure(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    head_weight: Tensor,
    head_bias: Tensor | None,
    tokens: Tensor,
    spec: DivergenceSpec,
    needs_gradient: bool,
) -> tuple[TokenDivergence, Tensor | None]:
    """Loss and statistics [N], and dL/dhidden [N, D] if asked for, chunk by chunk."""
    num_tokens, vocabulary = student_hidden.shape[0], head_weight.shape[0]
    dtype = torch.promote_types(student_hidden.dtype, torch.float32)
    rows_in_cache = max(1, _BLOCK_BYTES // (vocabulary * dtype.itemsize))
    chunk_size = min(num_tokens, max(spec.chunk_size, rows_in_cache))
    # Small blocks pay where there is a cache to stay in; an accelerator wants few large kernels.
    block_size = rows_in_cache if student_hidden.device.type == "cpu" else max(1, chunk_size)

    measured = TokenDivergence(*student_hidden.new_empty(len(TokenDivergence._fields), num_tokens, dtype=dtype))
    hidden_gradient = torch.empty_like(student_hidden, memory_format=torch.contiguous_format) if needs_gradient else None
    buffer = student_hidden.new_empty(2 * chunk_size, vocabulary)
    for chunk_start in range(0, num_tokens, max(1, chunk_size)):
        chunk = slice(chunk_start, chunk_start + chunk_size)
        # One product for both models reads the head once instead of twice.
        hidden = torch.cat([student_hidden[chunk], teacher_hidden[chunk]])
        logits = torch.mm(hidden, head_weight.T, out=buffer[: len(hidden)])
        if head_bias is not None:
            logits += head_bias
        student_logits, teacher_logits = logits.chunk(2)
        for start in range(0, len(student_logits), block_size):
            block = slice(start, min(start + block_size, len(student_logits)))
            rows = slice(chunk_start + block.start, chunk_start + block.stop)
            values, logit_gradient = _measure_block(
                student_logits[block].to(dtype), teacher_logits[block].to(dtype), tokens[rows], spec, needs_gradient
            )
            for column, value in zip(measured, values, strict=True):
                column[rows] = value
            if logit_gradient is not None:
                student_logits[block] = logit_gradient  # the logits are no longer needed: their place is
        if hidden_gradient is not None:
            torch.mm(student_logits, head_weight, out=hidden_gradient[chunk])
    return measured, hidden_gradient


def _measure_block(
    student_logits: Tensor, teacher_logits: Tensor, tokens: Tensor, spec: DivergenceSpec, needs_gradient: bool
) -> tuple[TokenDivergence, Tensor | None]:
    """Loss and statistics of a block of n tokens, and dL/dz [n, V] if asked for, from logits [n, V]."""
    student_log_probs = torch.log_softmax(student_logits, dim=-1)
    teacher_log_probs = torch.log_softmax(teacher_logits, dim=-1)
    student_probs, teacher_probs = student_log_probs.exp(), teacher_log_probs.exp()
    log_ratio = student_log_probs - teacher_log_probs
    mismatch = -_dot(teacher_probs, log_ratio)
    top = student_log_probs.gather(-1, teacher_log_probs.max(dim=-1, keepdim=True).indices).squeeze(-1)
    sampled = tokens.unsqueeze(-1)
    statistics = {
        "mismatch": mismatch.clamp_min(0.0),
        "student_entropy": -_dot(student_probs, student_log_probs),
        "teacher_entropy": -_dot(teacher_probs, teacher_log_probs),
        "top1_disagreement": (top < student_log_probs.amax(dim=-1)).to(mismatch.dtype),
        "student_log_prob": student_log_probs.gather(-1, sampled).squeeze(-1),
        "teacher_log_prob": teacher_log_probs.gather(-1, sampled).squeeze(-1),
    }
    if spec.top_k is None or spec.top_k >= student_logits.shape[-1]:
        loss, gradient = _closed_form(student_probs, teacher_probs, log_ratio, spec, needs_gradient)
    else:
        loss, gradient = _closed_form_top_k(student_log_probs, teacher_log_probs, spec, needs_gradient)
    if spec.token_clip is not None:
        if gradient is not None:
            gradient.masked_fill_((loss > spec.token_clip).unsqueeze(-1), 0.0)
        loss = loss.clamp_max(spec.token_clip)
    # A divergence is never negative; the rounding of its sum can be.
    return TokenDivergence(loss=loss.clamp_min(0.0), **statistics), gradient


def _closed_form(
    student_probs: Tensor, teacher_probs: Tensor, log_ratio: Tensor, spec: DivergenceSpec, needs_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Loss [n] and dL/dz [n, V] of the module's table; log_ratio is log(p_S / p_T). Overwrites its arguments."""
    if spec.kind == "forward_kl":
        loss = -_dot(teacher_probs, log_ratio)
        return loss, student_probs.sub_(teacher_probs) if needs_gradient else None
    if spec.kind == "reverse_kl":
        loss = _dot(student_probs, log_ratio)
        return loss, log_ratio.sub_(loss.unsqueeze(-1)).mul_(student_probs) if needs_gradient else None
    # log(m / p_S) = log(1 + b (p_T / p_S - 1)): exactly 0 where the two agree, and safe where a probability underflows.
    beta = spec.jsd_beta
    log_ratio.clamp_min_(-_LARGEST_LOG_RATIO)
    log_mixture_ratio = torch.neg(log_ratio).expm1_().mul_(beta).log1p_()
    student_term = -_dot(student_probs, log_mixture_ratio)
    teacher_term = -_dot(teacher_probs, log_ratio.add_(log_mixture_ratio))
    loss = beta * teacher_term + (1.0 - beta) * student_term
    if not needs_gradient:
        return loss, None
    gradient = log_mixture_ratio.add_(student_term.unsqueeze(-1)).mul_(student_probs).mul_(beta - 1.0)
    return loss, gradient


def _closed_form_top_k(
    student_log_probs: Tensor, teacher_log_probs: Tensor, spec: DivergenceSpec, needs_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Loss [n] and dL/dz [n, V] between the teacher's top k words and a tail bucket.

    The k + 1 buckets are a vocabulary of their own, and the table holds in it. A logit inside the tail moves the tail's
    mass in proportion to its share of it, so it gets p_S(word) / p_S(tail) of the tail's derivative.
    """
    top_words = teacher_log_probs.topk(cast("int", spec.top_k), dim=-1, sorted=False).indices

    def into_buckets(log_probs: Tensor) -> Tensor:
        # The tail's own logsumexp: one minus the mass of the top would lose all digits of a small tail.
        tail = log_probs.scatter(-1, top_words, -math.inf).logsumexp(dim=-1, keepdim=True)
        return torch.cat([log_probs.gather(-1, top_words), tail], dim=-1)

    student_buckets, teacher_buckets = into_buckets(student_log_probs), into_buckets(teacher_log_probs)
    loss, bucket_gradient = _closed_form(
        student_buckets.exp(), teacher_buckets.exp(), student_buckets - teacher_buckets, spec, needs_gradient
    )
    if bucket_gradient is None:
        return loss, None
    share_of_tail = student_log_probs.sub(student_buckets[:, -1:]).exp_()
    gradient = share_of_tail.mul_(bucket_gradient[:, -1:])
    return loss, gradient.scatter_(-1, top_words, bucket_gradient[:, :-1])


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Sum of products over the last axis."""
    return (left * right).sum(dim=-1)


def _kullback_leibler(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of [N, V], where a word with p = 0 contributes 0."""
    return (log_p.exp() * (log_p - log_q).masked_fill(log_p == -math.inf, 0.0)).sum(dim=-1)


def _check_beta(name: str, beta: float) -> None:
    if not 0.0 < beta < 1.0:
        raise ConfigError(
            f"{name}: expected a number strictly between 0 and 1; got {beta!r}. The JSD is 0 at both ends: use forward_kl or "
            "reverse_kl for the KL divergences."
        )


def _check_inputs(student: Tensor, teacher: Tensor, weight: Tensor, tokens: Tensor, bias: Tensor | None) -> None:
    """Refuse what a matrix product would accept or report in other words."""
    shapes_fit = student.ndim == 2 and weight.ndim == 2 and student.shape == teacher.shape
    shapes_fit = shapes_fit and tokens.shape == student.shape[:1] and student.shape[1] == weight.shape[1]
    shapes_fit = shapes_fit and (bias is None or bias.shape == weight.shape[:1])
    named = {"student_hidden": student, "teacher_hidden": teacher, "head_weight": weight, "head_bias": bias}
    tensors = {name: tensor for name, tensor in named.items() if tensor is not None}
    if not shapes_fit:
        got = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in {**tensors, "tokens": tokens}.items())
        raise ConfigError(
            "expected student_hidden [N, D], teacher_hidden [N, D], head_weight [V, D], head_bias [V], tokens [N]; got "
            f"{got}. Select the scored positions first, hidden[completion_mask]."
        )
    if len({tensor.dtype for tensor in tensors.values()}) > 1 or not student.is_floating_point():
        got = ", ".join(f"{name} {tensor.dtype}" for name, tensor in tensors.items())
        raise ConfigError(f"expected one floating-point dtype for hidden states and head; got {got}. Cast them first.")
    if tokens.dtype != torch.int64:
        raise ConfigError(f"tokens: expected torch.int64; got {tokens.dtype}. Use tokens.long().")
    if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < len(weight):
        raise ConfigError(
            f"tokens: expected ids in 0..{len(weight) - 1}; got {int(tokens.min())}..{int(tokens.max())}. Leave out padding "
            "and masked labels."
        )


def _refuse_non_finite(
    measured: TokenDivergence, student_hidden: Tensor, teacher_hidden: Tensor, rows_owner: str | Sequence[str] | None
) -> None:
    """Raise if a token's numbers are not finite; NaN or infinity anywhere in its logits reaches its entropies."""
    broken = ~torch.stack(measured).isfinite().all(dim=0)
    if not bool(broken.any()):
        return
    num_broken, num_tokens = int(broken.sum()), len(broken)
    if rows_owner is None or isinstance(rows_owner, str):
        who = f"{rows_owner or 'student'} ({num_broken})"
    else:
        owners = Counter(rows_owner[index] for index in broken.nonzero().flatten().tolist())
        who = ", ".join(f"{owner} ({count})" for owner, count in owners.items())
    from_student = int((~student_hidden.isfinite().all(dim=1)).sum())
    from_teacher = int((~teacher_hidden.isfinite().all(dim=1)).sum())
    raise NonFiniteError(
        f"expected finite logits at all {num_tokens} scored tokens; got NaN or infinity at {num_broken} of {num_tokens}: {who}. "
        f"Non-finite hidden states: student {from_student} tokens, teacher {from_teacher} tokens; the rest overflowed in "
        "the head. Lower the learning rate or use a wider dtype."
    )
