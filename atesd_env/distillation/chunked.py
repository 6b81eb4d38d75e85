"""The divergence of many tokens, a few at a time, with its gradient made in the forward pass.

No ``[B, T, V]`` tensor ever exists: logits are made for a chunk of tokens, and the elementwise work runs on a block of its rows.
"""

import functools
import importlib.util
import math
import warnings
from collections import Counter
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from atesd_env.distillation.closed_forms import closed_form, closed_form_top_k, dot, merge_words
from atesd_env.distillation.divergence import DivergenceKind, DivergenceSpec
from atesd_env.errors import ConfigError, NonFiniteError

CHUNK_BYTES = 8 * 2**20
"""A chunk holds at least so many bytes of one model's logits: smaller ones save nothing worth having."""

# Elementwise work runs on blocks of rows of about this size for each thread: on a CPU the block and what is made of it
# stay in the second-level cache, where they cost half of what they would in memory. On a GPU large kernels are what pays.
_BLOCK_BYTES_PER_THREAD = 2**20
BLOCK_BYTES_GPU = 8 * 2**20
"""The block on a GPU."""


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

    takes_kernel = dtype == torch.float32 and _kernel_agrees(student_hidden.device) and _kernels().has_kernel(spec)
    measured = TokenDivergence(*student_hidden.new_empty(len(TokenDivergence._fields), num_tokens, dtype=dtype))
    hidden_gradient = student_hidden.new_empty(student_hidden.shape) if needs_gradient else None
    # Every chunk writes into the same memory: fresh pages for each would cost as much as the arithmetic on them.
    logits_buffer = student_hidden.new_empty(2 * chunk_size, vocabulary)
    scratch = student_hidden.new_empty(6, 0 if takes_kernel else block_size, vocabulary, dtype=dtype)
    for chunk_start in range(0, num_tokens, chunk_size):
        chunk = slice(chunk_start, chunk_start + chunk_size)
        # One product for both models reads the head once instead of twice.
        hidden = torch.cat([student_hidden[chunk], teacher_hidden[chunk]])
        logits = logits_buffer[: len(hidden)]
        # In slices of the vocabulary: with several threads one large product may hold a second copy of its result.
        slice_size = vocabulary if logits.is_cuda else max(1, CHUNK_BYTES // (len(hidden) * logits.itemsize))
        for words in range(0, vocabulary, slice_size):
            torch.mm(hidden, head_weight[words : words + slice_size].T, out=logits[:, words : words + slice_size])
        if head_bias is not None:
            logits += head_bias
        student_logits, teacher_logits = logits.chunk(2)
        if takes_kernel:
            of_tokens = _kernels().measure_rows(student_logits, teacher_logits, tokens[chunk], spec, needs_gradient)
            for column, value in zip(measured, of_tokens, strict=True):
                column[chunk] = value
        for start in range(0, 0 if takes_kernel else len(student_logits), block_size):
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


def _kernels() -> ModuleType:
    """Returns `atesd_env.distillation.kernels`, which needs triton."""
    return importlib.import_module("atesd_env.distillation.kernels")


@functools.cache
def _kernel_agrees(device: torch.device) -> bool:
    """Whether Triton's kernels are to be had on a device and give what `_measure_block` gives; tried once, before they are used."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a compiler's own
            differences = [kernel_difference(device, kind) for kind in ("forward_kl", "reverse_kl")]
    except Exception as error:  # whatever a compiler or driver raises: without it, things are slower
        differences = [math.inf]
        warnings.warn(f"divergence: Triton's kernels fail on {device} ({error}); PyTorch's are used.", stacklevel=2)
    return max(differences) < 1e-3


def kernel_difference(device: torch.device, kind: DivergenceKind) -> float:
    """Returns how far Triton's kernels are from `_measure_block` at most, over statistics and gradient of a few float32 rows."""
    spec, generator = DivergenceSpec(kind, token_clip=2.0), torch.Generator().manual_seed(0)
    student, noise = 4 * torch.randn(2, 8, 5000, generator=generator).to(device)
    teacher, tokens = student + noise / 4, torch.arange(8, device=device)
    scratch = torch.empty(6, 8, 5000, device=device)
    expected, gradient = _measure_block(student, teacher, tokens, spec, True, scratch)
    assert gradient is not None
    statistics, gradient = torch.stack(expected), gradient.clone()
    found = _kernels().measure_rows(student, teacher, tokens, spec, True)
    return max(float((found - statistics).abs().max()), float((student - gradient).abs().max()))


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
    log_prob = log_probs.gather(-1, tokens.view(1, -1, 1).expand(2, -1, 1)).squeeze(-1)
    ends = torch.tensor(spec.end_tokens, device=tokens.device)
    share_of_ends = merge_words(log_probs, ends)[0] if len(ends) > 1 else None
    torch.exp(log_probs, out=probs)
    (student_log_probs, teacher_log_probs), (student_probs, teacher_probs) = log_probs, probs

    student_entropy, teacher_entropy = -dot(probs, log_probs, spare)
    teacher_top = teacher_log_probs.max(dim=-1, keepdim=True).indices
    student_at_teacher_top = student_log_probs.gather(-1, teacher_top).squeeze(-1)
    disagreement = (student_at_teacher_top < student_log_probs.amax(dim=-1)).to(scratch.dtype)

    log_ratio, product = spare
    torch.sub(student_log_probs, teacher_log_probs, out=log_ratio)
    in_top_k = spec.top_k is not None and spec.top_k < student_logits.shape[-1]
    mismatch, loss, gradient = closed_form(
        student_probs,
        teacher_probs,
        log_ratio,
        DivergenceSpec() if in_top_k else spec,
        needs_gradient and not in_top_k,
        (product, student_log_probs),
    )
    if in_top_k:
        loss, gradient = closed_form_top_k(student_log_probs, teacher_log_probs, spec, needs_gradient)
    if gradient is not None and share_of_ends is not None:
        gradient[:, ends] = gradient[:, ends[:1]] * share_of_ends
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
        student_log_prob=log_prob[0],
        teacher_log_prob=log_prob[1],
    )
    return values, gradient


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
