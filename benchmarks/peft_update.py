"""The same update written with peft and transformers' ``generate``: what most code does, for the ratio.

Rollouts, teacher (adapter off), student, KL(teacher || student) over the whole vocabulary, AdamW on the adapter; micro-batches
and recomputed activations as in the preset. Prompts are random tokens, all of one length, so that nothing is padded.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from atesd_env.config import EnvConfig
from benchmarks.profile_window import wait_for_device


def peft_update(
    model: PreTrainedModel, config: EnvConfig, student_prompt: int, teacher_prompt: int, pad_token_id: int
) -> dict[str, Any]:
    """Returns the seconds of rollouts and of the update, of one student; one of a few tokens before it prepares the kernels.

    Args:
        model: The base; it is wrapped in place.
        config: Lengths, sampling, adapter and optimizer.
        student_prompt: Tokens of a student's prompt.
        teacher_prompt: Tokens of a teacher's.
        pad_token_id: Fills behind an answer's end.
    """
    model.config.pad_token_id = pad_token_id
    if config.gradient_checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    lora = LoraConfig(r=config.lora_r, lora_alpha=config.lora_alpha, target_modules=list(config.lora_targets))
    wrapped: Any = get_peft_model(model, lora)
    trained = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate)
    device, vocabulary = trained[0].device, model.get_output_embeddings().weight.shape[0]
    generator = torch.Generator(device).manual_seed(0)
    prompts = [
        torch.randint(vocabulary, (config.num_rollouts, length), device=device, generator=generator)
        for length in (student_prompt, teacher_prompt)
    ]
    seconds: list[float] = []
    for new_tokens in (min(4, config.max_new_tokens), config.max_new_tokens):
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        marks = [_now()]
        answers = _rollouts(wrapped, prompts[0], config, new_tokens)
        marks.append(_now())
        size = config.micro_batch_size or config.num_rollouts
        for start in range(0, config.num_rollouts, size):
            rows = slice(start, start + size)
            loss = _loss(wrapped, *(prompt[rows] for prompt in prompts), answers[rows])
            (loss * len(answers[rows]) / config.num_rollouts).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds = [later - earlier for earlier, later in zip(marks, [*marks[1:], _now()], strict=True)]
    return {
        "rollout_sec": seconds[0],
        "update_sec": seconds[1],
        "sec": sum(seconds),
        "sampled_tokens": answers.numel(),
        "peak_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
    }


def _rollouts(model: Any, prompts: Tensor, config: EnvConfig, new_tokens: int) -> Tensor:
    model.eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        sequences: Tensor = model.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            do_sample=True,
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
        )
    return sequences[:, prompts.shape[1] :]


def _loss(model: Any, student_prompts: Tensor, teacher_prompts: Tensor, answers: Tensor) -> Tensor:
    """KL(teacher || student), mean over all tokens (every rollout has as many)."""
    model.train()
    with torch.no_grad(), model.disable_adapter():
        teacher = _log_probs(model, teacher_prompts, answers)
    student = _log_probs(model, student_prompts, answers)
    return functional.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1).mean()


def _log_probs(model: Any, prompts: Tensor, answers: Tensor) -> Tensor:
    inputs = torch.cat([prompts, answers[:, :-1]], dim=1)
    logits: Tensor = model(input_ids=inputs, logits_to_keep=answers.shape[1], use_cache=False).logits
    return logits.float().log_softmax(dim=-1)


def _now() -> float:
    wait_for_device()
    return time.perf_counter()
