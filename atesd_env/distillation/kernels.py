"""The divergence's elementwise work on a GPU, in two Triton kernels: one pass over both models' logits, and one for the gradient.

What `atesd_env.distillation.closed_forms` does in fifteen passes over float32 copies is done here where the logits lie, in their own
number format; sums are float32. Imported only where it is used, since it needs the package triton.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from atesd_env.distillation.divergence import DivergenceSpec

BLOCK = 4096
"""Words that a program looks at together."""
_LOWEST = tl.constexpr(-1e30)  # finite: where there is no word, and as the largest logit of none


def has_kernel(spec: DivergenceSpec) -> bool:
    """Returns whether a loss is one that is written down here: a KL over the whole vocabulary, every word its own."""
    return spec.kind in ("forward_kl", "reverse_kl") and spec.top_k is None and len(spec.end_tokens) < 2


def measure_rows(
    student_logits: Tensor, teacher_logits: Tensor, tokens: Tensor, spec: DivergenceSpec, needs_gradient: bool
) -> Tensor:
    """Returns what `TokenDivergence` holds of n tokens, in its order, [7, n] float32.

    Args:
        student_logits: [n, V], contiguous; overwritten with dL/dz if ``needs_gradient``.
        teacher_logits: [n, V], contiguous.
        tokens: int64 [n].
        spec: A loss that ``has_kernel``.
        needs_gradient: Whether dL/dz is asked for.
    """
    num_rows, num_words = student_logits.shape
    of_rows = torch.empty(7, num_rows, dtype=torch.float32, device=student_logits.device)
    teacher_top = torch.empty(num_rows, dtype=torch.int64, device=student_logits.device)
    _statistics[(num_rows,)](
        student_logits, teacher_logits, of_rows, teacher_top, num_rows, num_words, BLOCK, num_warps=8
    )
    forward, reverse, student_entropy, teacher_entropy, student_total, teacher_total, student_best = of_rows
    at_top = student_logits.gather(1, teacher_top[:, None])[:, 0].float()
    at_token = [logits.gather(1, tokens[:, None])[:, 0].float() for logits in (student_logits, teacher_logits)]
    is_reverse = spec.kind == "reverse_kl"
    loss = reverse if is_reverse else forward
    kept = loss.clamp_max(spec.token_clip) if spec.token_clip is not None else loss
    if needs_gradient:
        share = (kept == loss).float()  # a token above the bound has no gradient
        grid = (num_rows, triton.cdiv(num_words, BLOCK))
        _gradient[grid](
            student_logits, teacher_logits, of_rows, share, num_rows, num_words, is_reverse, BLOCK, num_warps=8
        )
    return torch.stack(
        [
            kept.clamp_min(0.0),
            forward.clamp_min(0.0),
            student_entropy,
            teacher_entropy,
            (at_top < student_best).float(),
            at_token[0] - student_total,
            at_token[1] - teacher_total,
        ]
    )


@triton.jit
def _statistics(student, teacher, of_rows, teacher_top, num_rows, num_words, block: tl.constexpr):
    """A row's KLs, entropies, logsumexps, the student's largest logit and the teacher's likeliest word.

    Sums are kept relative to the largest logit so far: with e = exp(z - best), totals of e, of e (z - best), and of e times the gap
    between the two models' logits.
    """
    row = tl.program_id(0).to(tl.int64)
    best_s, total_s = tl.full((), _LOWEST, tl.float32), tl.full((), 0.0, tl.float32)
    best_t, total_t, top = best_s, total_s, tl.full((), 0, tl.int32)
    level_s, level_t, gap_s, gap_t = total_s, total_s, total_s, total_s
    for start in range(0, num_words, block):
        words = start + tl.arange(0, block)
        inside = words < num_words
        z_s = tl.load(student + row * num_words + words, mask=inside, other=_LOWEST).to(tl.float32)
        z_t = tl.load(teacher + row * num_words + words, mask=inside, other=_LOWEST).to(tl.float32)
        block_best, place = tl.max(z_t, axis=0, return_indices=True)
        top = tl.where(block_best > best_t, start + place, top)
        new_s, new_t = tl.maximum(best_s, tl.max(z_s, axis=0)), tl.maximum(best_t, block_best)
        shrink_s, shrink_t = tl.exp(best_s - new_s), tl.exp(best_t - new_t)
        e_s, e_t = tl.exp(z_s - new_s), tl.exp(z_t - new_t)
        gap = tl.where(inside, z_s - z_t, 0.0)
        level_s = (level_s + total_s * (best_s - new_s)) * shrink_s + tl.sum(
            e_s * tl.where(inside, z_s - new_s, 0.0), axis=0
        )
        level_t = (level_t + total_t * (best_t - new_t)) * shrink_t + tl.sum(
            e_t * tl.where(inside, z_t - new_t, 0.0), axis=0
        )
        gap_s, gap_t = gap_s * shrink_s + tl.sum(e_s * gap, axis=0), gap_t * shrink_t + tl.sum(e_t * gap, axis=0)
        total_s, total_t = total_s * shrink_s + tl.sum(e_s, axis=0), total_t * shrink_t + tl.sum(e_t, axis=0)
        best_s, best_t = new_s, new_t
    log_total_s, log_total_t = best_s + tl.log(total_s), best_t + tl.log(total_t)
    tl.store(of_rows + row, log_total_s - log_total_t - gap_t / total_t)
    tl.store(of_rows + num_rows + row, log_total_t - log_total_s + gap_s / total_s)
    tl.store(of_rows + 2 * num_rows + row, tl.log(total_s) - level_s / total_s)
    tl.store(of_rows + 3 * num_rows + row, tl.log(total_t) - level_t / total_t)
    tl.store(of_rows + 4 * num_rows + row, log_total_s)
    tl.store(of_rows + 5 * num_rows + row, log_total_t)
    tl.store(of_rows + 6 * num_rows + row, best_s)
    tl.store(teacher_top + row, top)


@triton.jit
def _gradient(student, teacher, of_rows, share, num_rows, num_words, is_reverse: tl.constexpr, block: tl.constexpr):
    """dL/dz of the table in `atesd_env.distillation.divergence`, times a row's share, in the place of the student's logits."""
    row = tl.program_id(0).to(tl.int64)
    words = tl.program_id(1) * block + tl.arange(0, block)
    inside = words < num_words
    log_s = tl.load(student + row * num_words + words, mask=inside, other=0.0).to(tl.float32)
    log_t = tl.load(teacher + row * num_words + words, mask=inside, other=0.0).to(tl.float32)
    log_s -= tl.load(of_rows + 4 * num_rows + row)
    log_t -= tl.load(of_rows + 5 * num_rows + row)
    if is_reverse:  # noqa: SIM108 (known at compile time)
        gradient = tl.exp(log_s) * (log_s - log_t - tl.load(of_rows + num_rows + row))
    else:
        gradient = tl.exp(log_s) - tl.exp(log_t)
    gradient *= tl.load(share + row)
    tl.store(student + row * num_words + words, gradient.to(student.dtype.element_ty), mask=inside)
