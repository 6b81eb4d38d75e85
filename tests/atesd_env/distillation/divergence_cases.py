"""What the tests of the divergences share: specs, inputs, and the definitions by float64 autograd."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from atesd_env.distillation.chunked import TokenDivergence, token_divergence
from atesd_env.distillation.divergence import DivergenceSpec, forward_kl, jsd, reverse_kl

KINDS = ["forward_kl", "reverse_kl", "jsd"]
SPECS = [
    DivergenceSpec("forward_kl"),
    DivergenceSpec("reverse_kl"),
    DivergenceSpec("jsd"),
    DivergenceSpec("jsd", jsd_beta=0.2),
    DivergenceSpec("forward_kl", top_k=4),
    DivergenceSpec("reverse_kl", top_k=4),
    DivergenceSpec("jsd", jsd_beta=0.7, top_k=1),
    DivergenceSpec("forward_kl", token_clip=0.4),
    DivergenceSpec("reverse_kl", token_clip=0.4, top_k=4),
    DivergenceSpec("forward_kl", end_tokens=(3, 1)),
    DivergenceSpec("reverse_kl", end_tokens=(0, 4, 2)),
    DivergenceSpec("jsd", jsd_beta=0.3, top_k=2, end_tokens=(4, 0)),
]


def spec_name(spec: DivergenceSpec) -> str:
    return f"{spec.kind}-beta{spec.jsd_beta}-top{spec.top_k}-clip{spec.token_clip}-ends{len(spec.end_tokens)}"


every_spec = pytest.mark.parametrize("spec", SPECS, ids=spec_name)


def make_inputs(
    num_tokens: int = 9,
    width: int = 6,
    vocabulary: int = 13,
    *,
    seed: int = 0,
    gap: float = 0.8,
    dtype: Any = torch.float64,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Student hidden states, teacher hidden states at a distance of about `gap`, head, sampled tokens."""
    rng = torch.Generator().manual_seed(seed)
    student = torch.randn(num_tokens, width, generator=rng, dtype=torch.float64)
    teacher = student + gap * torch.randn(num_tokens, width, generator=rng, dtype=torch.float64)
    head = torch.randn(vocabulary, width, generator=rng, dtype=torch.float64)
    tokens = torch.randint(vocabulary, (num_tokens,), generator=rng)
    return student.to(dtype), teacher.to(dtype), head.to(dtype), tokens


def merged(log_probs: Tensor, spec: DivergenceSpec) -> Tensor:
    """The vocabulary with its end tokens as one word, before all others."""
    if not spec.end_tokens:
        return log_probs
    others = [word for word in range(log_probs.shape[1]) if word not in spec.end_tokens]
    end = log_probs[:, list(spec.end_tokens)].logsumexp(dim=1, keepdim=True)
    return torch.cat([end, log_probs[:, others]], dim=1)


def plain_loss(student_log_probs: Tensor, teacher_log_probs: Tensor, spec: DivergenceSpec) -> Tensor:
    """The definition, by differentiable steps only."""
    student_log_probs, teacher_log_probs = (merged(one, spec) for one in (student_log_probs, teacher_log_probs))
    if spec.top_k is not None:
        top = torch.zeros_like(teacher_log_probs, dtype=torch.bool)
        top.scatter_(1, teacher_log_probs.topk(spec.top_k, dim=1).indices, True)

        def into_buckets(log_probs: Tensor) -> Tensor:
            tail = log_probs.masked_fill(top, -math.inf).logsumexp(dim=1, keepdim=True)
            return torch.cat([log_probs[top].view(-1, spec.top_k or 0), tail], dim=1)

        student_log_probs, teacher_log_probs = into_buckets(student_log_probs), into_buckets(teacher_log_probs)
    functions: dict[str, Callable[[], Tensor]] = {
        "forward_kl": lambda: forward_kl(student_log_probs, teacher_log_probs),
        "reverse_kl": lambda: reverse_kl(student_log_probs, teacher_log_probs),
        "jsd": lambda: jsd(student_log_probs, teacher_log_probs, spec.jsd_beta),
    }
    loss = functions[spec.kind]()
    return loss if spec.token_clip is None else loss.clamp(max=spec.token_clip)


def by_autograd(
    student: Tensor, teacher: Tensor, head: Tensor, spec: DivergenceSpec, bias: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """Loss and gradient of sum(loss * (1, 2, 3, ...)) in float64 over whole [N, V] tensors."""
    leaf = student.detach().double().requires_grad_()
    student_log_probs = torch.log_softmax(leaf @ head.double().T + bias, dim=1)
    teacher_log_probs = torch.log_softmax(teacher.double() @ head.double().T + bias, dim=1)
    loss = plain_loss(student_log_probs, teacher_log_probs, spec)
    (loss * torch.arange(1.0, len(loss) + 1)).sum().backward()
    assert leaf.grad is not None
    return loss.detach(), leaf.grad


def by_token_divergence(
    student: Tensor, teacher: Tensor, head: Tensor, tokens: Tensor, spec: DivergenceSpec, **keywords: Any
) -> tuple[TokenDivergence, Tensor]:
    leaf = student.detach().clone().requires_grad_()
    result = token_divergence(leaf, teacher, head, tokens, spec, **keywords)
    (result.loss * torch.arange(1.0, len(tokens) + 1)).sum().backward()
    assert leaf.grad is not None
    return result, leaf.grad


def relative_error(got: Tensor, expected: Tensor) -> float:
    return float((got.detach().double() - expected).norm() / expected.norm())
