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
"""KL(teacher||student), KL(student||teacher), or the generalized Jensen-Shannon divergence."""

CHUNK_BYTES = 8 * 2**20
"""A chunk holds at least so many bytes of one model's logits: smaller ones save nothing worth having."""

# Elementwise work runs on blocks of rows of about this size for each thread: on a CPU the block and what is made of it
# stay in the second-level cache, where they cost half of what they would in memory. On a GPU large kernels are what pays.
_BLOCK_BYTES_PER_THREAD = 2**20
BLOCK_BYTES_GPU = 8 * 2**20
"""The block on a GPU."""

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

    Logits are ``hidden @ head_weight.T + head_bias`` in the dtype of the hidden states, under autocast too; everything
    after them is in float32, or in float64 if the hidden states are float64. Only `student_hidden` gets a gradient (once
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
    if rows_owner is not None and not isinstance(rows_owner, str) and len(rows_owner) != len(tokens):
        raise ConfigError(
            f"rows_owner: expected one label, or one for each of {len(tokens)} rows; got {len(rows_owner)}."
        )
    needs_gradient = torch.is_grad_enabled() and student_hidden.requires_grad
    with torch.no_grad():
        measured, hidden_gradient = _measure(
            student_hidden, teacher_hidden, head_weight, head_bias, tokens, spec, needs_gradient
        )
        _refuse_non_finite(measured, student_hidden, teacher_hidden, rows_owner)
    if hidden_gradient is None:
        return measured
    loss = _GradientInHand.apply(student_hidden, measured.loss, hidden_gradient)
    return measured._replace(loss=loss)


class _GradientInHand(torch.autograd.Function):
    """Gives a loss [N] that is already computed the gradient [N, D] that is already computed too."""

    @staticmethod
    def forward(ctx: Any, student_hidden: Tensor, loss: Tensor, hidden_gradient: Tensor) -> Tensor:
        ctx.save_for_backward(hidden_gradient)
        return loss.clone()

    @staticmethod
    @once_differentiable
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
    row_bytes = vocabulary * dtype.itemsize
    chunk_size = _even_share(num_tokens, max(spec.chunk_size, CHUNK_BYTES // row_bytes))
    block_size = min(chunk_size, _rows_in_block(row_bytes, student_hidden.device))

    measured = TokenDivergence(*student_hidden.new_empty(len(TokenDivergence._fields), num_tokens, dtype=dtype))
    hidden_gradient = student_hidden.new_empty(student_hidden.shape) if needs_gradient else None
    # Every chunk writes into the same memory: fresh pages for each would cost as much as the arithmetic on them.
    logits_buffer = student_hidden.new_empty(2 * chunk_size, vocabulary)
    scratch = student_hidden.new_empty(6, block_size, vocabulary, dtype=dtype)
    for chunk_start in range(0, num_tokens, chunk_size):
        chunk = slice(chunk_start, chunk_start + chunk_size)
        # One product for both models reads the head once instead of twice.
        hidden = torch.cat([student_hidden[chunk], teacher_hidden[chunk]])
        logits = logits_buffer[: len(hidden)]
        # In slices of the vocabulary: with several threads one large product may hold a second copy of its result.
        slice_size = max(1, CHUNK_BYTES // (len(hidden) * logits.itemsize))
        for words in range(0, vocabulary, slice_size):
            torch.mm(hidden, head_weight[words : words + slice_size].T, out=logits[:, words : words + slice_size])
        if head_bias is not None:
            logits += head_bias
        student_logits, teacher_logits = logits.chunk(2)
        for start in range(0, len(student_logits), block_size):
            block = slice(start, min(start + block_size, len(student_logits)))
            rows = slice(chunk_start + block.start, chunk_start + block.stop)
            values, logit_gradient = _measure_block(
                student_logits[block], teacher_logits[block], tokens[rows], spec, needs_gradient, scratch
            )
            for column, value in zip(measured, values, strict=True):
                column[rows] = value
            if logit_gradient is not None:
                student_logits[block] = logit_gradient  # the logits have served: their place takes the gradient
        if hidden_gradient is not None:
            torch.mm(student_logits, head_weight, out=hidden_gradient[chunk])
    return measured, hidden_gradient


def _even_share(num_tokens: int, most: int) -> int:
    """Size of chunks of at most `most` tokens that are as equal as can be: a small last one would be slow for its size."""
    num_chunks = max(1, math.ceil(num_tokens / most))
    return max(1, math.ceil(num_tokens / num_chunks))


def _rows_in_block(row_bytes: int, device: torch.device) -> int:
    """Rows that the elementwise work takes at a time: at least one for each thread, which share it out by rows."""
    if device.type != "cpu":
        return max(1, BLOCK_BYTES_GPU // row_bytes)
    return torch.get_num_threads() * max(1, _BLOCK_BYTES_PER_THREAD // row_bytes)


def _measure_block(
    student_logits: Tensor,
    teacher_logits: Tensor,
    tokens: Tensor,
    spec: DivergenceSpec,
    needs_gradient: bool,
    scratch: Tensor,
) -> tuple[TokenDivergence, Tensor | None]:
    """Loss and statistics of a block of n tokens, and dL/dz [n, V] (inside scratch) if asked for, from logits [n, V].

    Scratch is [6, at least n, V] and gets overwritten.
    """
    log_probs, probs, spare = scratch[:, : len(tokens)].chunk(3)  # each [2, n, V]: the student's, the teacher's
    torch.log_softmax(student_logits.to(scratch.dtype), dim=-1, out=log_probs[0])
    torch.log_softmax(teacher_logits.to(scratch.dtype), dim=-1, out=log_probs[1])
    torch.exp(log_probs, out=probs)
    (student_log_probs, teacher_log_probs), (student_probs, teacher_probs) = log_probs, probs

    student_entropy, teacher_entropy = -_dot(probs, log_probs, spare)
    student_log_prob, teacher_log_prob = log_probs.gather(-1, tokens.view(1, -1, 1).expand(2, -1, 1)).squeeze(-1)
    teacher_top = teacher_log_probs.max(dim=-1, keepdim=True).indices
    student_at_teacher_top = student_log_probs.gather(-1, teacher_top).squeeze(-1)
    disagreement = (student_at_teacher_top < student_log_probs.amax(dim=-1)).to(scratch.dtype)

    log_ratio, product = spare
    torch.sub(student_log_probs, teacher_log_probs, out=log_ratio)
    in_top_k = spec.top_k is not None and spec.top_k < student_logits.shape[-1]
    mismatch, loss, gradient = _closed_form(
        student_probs,
        teacher_probs,
        log_ratio,
        DivergenceSpec() if in_top_k else spec,
        needs_gradient and not in_top_k,
        (product, student_log_probs),
    )
    if in_top_k:
        loss, gradient = _closed_form_top_k(student_log_probs, teacher_log_probs, spec, needs_gradient)
    if spec.token_clip is not None:
        if gradient is not None:
            gradient.masked_fill_((loss > spec.token_clip).unsqueeze(-1), 0.0)
        loss = loss.clamp_max(spec.token_clip)
    values = TokenDivergence(
        loss=loss.clamp_min(0.0),  # a divergence is never negative; the rounding of its sum can be
        mismatch=mismatch.clamp_min(0.0),
        student_entropy=student_entropy,
        teacher_entropy=teacher_entropy,
        top1_disagreement=disagreement,
        student_log_prob=student_log_prob,
        teacher_log_prob=teacher_log_prob,
    )
    return values, gradient


def _closed_form(
    student_probs: Tensor,
    teacher_probs: Tensor,
    log_ratio: Tensor,
    spec: DivergenceSpec,
    needs_gradient: bool,
    spare: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor | None]:
    """KL(p_T || p_S) [n], loss [n] and dL/dz [n, V] of the module's table.

    log_ratio is log(p_S / p_T). Uses `spare` (two tensors like it; the second one for the JSD only) and, for the
    gradient, overwrites its other arguments.
    """
    product, mixture = spare
    # 0 but for rounding. Added to a KL, it cancels the error that the rounding of the normalisers makes in log_ratio.
    excess_mass = student_probs.sum(dim=-1) - teacher_probs.sum(dim=-1)
    forward = excess_mass - _dot(teacher_probs, log_ratio, product)
    if spec.kind == "forward_kl":
        return forward, forward, student_probs.sub_(teacher_probs) if needs_gradient else None
    if spec.kind == "reverse_kl":
        reverse = _dot(student_probs, log_ratio, product) - excess_mass
        gradient = log_ratio.sub_(reverse.unsqueeze(-1)).mul_(student_probs) if needs_gradient else None
        return forward, reverse, gradient
    # log(m / p_S) = log(1 + b (p_T / p_S - 1)): exactly 0 where the two agree, and safe where a probability underflows.
    log_ratio.clamp_min_(-_LARGEST_LOG_RATIO)
    log_mixture_ratio = torch.neg(log_ratio, out=mixture).expm1_().mul_(spec.jsd_beta).log1p_()
    student_term = -_dot(student_probs, log_mixture_ratio, product)
    teacher_term = -_dot(teacher_probs, log_ratio.add_(log_mixture_ratio), product)
    loss = spec.jsd_beta * teacher_term + (1.0 - spec.jsd_beta) * student_term
    if not needs_gradient:
        return forward, loss, None
    log_mixture_ratio.add_(student_term.unsqueeze(-1)).mul_(student_probs).mul_(spec.jsd_beta - 1.0)
    return forward, loss, log_mixture_ratio


def _closed_form_top_k(
    student_log_probs: Tensor, teacher_log_probs: Tensor, spec: DivergenceSpec, needs_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Loss [n] and dL/dz [n, V] between the teacher's top k words and a tail bucket; overwrites its arguments.

    The k + 1 buckets are a vocabulary of their own, and the module's table holds in it. A logit inside the tail moves
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
    _, loss, bucket_gradient = _closed_form(
        student_buckets.exp(), teacher_buckets.exp(), log_ratio, spec, needs_gradient, spare
    )
    if bucket_gradient is None:
        return loss, None
    share_of_tail = student_log_probs.sub_(student_tail).exp_()
    gradient = share_of_tail.mul_(bucket_gradient[:, -1:])
    return loss, gradient.scatter_(-1, top_words, bucket_gradient[:, :-1])


def _dot(left: Tensor, right: Tensor, product: Tensor) -> Tensor:
    """Sum of products over the last axis; `product` is memory for the terms."""
    return torch.mul(left, right, out=product).sum(dim=-1)


def _kullback_leibler(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of [N, V], where a word with p = 0 contributes 0."""
    return (log_p.exp() * (log_p - log_q).masked_fill(log_p == -math.inf, 0.0)).sum(dim=-1)


def _check_beta(name: str, beta: float) -> None:
    if not 0.0 < beta < 1.0:
        raise ConfigError(
            f"{name}: expected a number strictly between 0 and 1; got {beta!r}. The JSD is 0 at both ends; "
            "the KL divergences are the kinds forward_kl and reverse_kl."
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
            f"tokens: expected ids in 0..{len(weight) - 1}; got {int(tokens.min())}..{int(tokens.max())}. Leave out "
            "padding and masked labels."
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
        f"expected finite logits at every scored token; got NaN or infinity at {num_broken} of {num_tokens} tokens: "
        f"{who}. Hidden states that are not finite: student {from_student}, teacher {from_teacher} tokens; the others "
        "overflowed in the head. Lower the learning rate, or use a wider dtype."
    )
