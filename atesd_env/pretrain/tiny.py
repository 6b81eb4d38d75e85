"""The packaged students "tiny" (sums) and "tiny-lists" (programs on lists) from a seed: tokenizer, chat template, weights.

Half of the pretraining batch are short problems without a hint, half are problems of any length behind a teacher
prompt at a random reveal ratio: so the student can use what it is shown, and has much to learn where nothing is shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from rich.progress import track
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from atesd_env.exposure import PromptBuilder
from atesd_env.rollouts.sampling import left_pad
from atesd_env.streams import numpy_stream
from atesd_env.tasks.arithmetic import ArithmeticTask
from atesd_env.tasks.base import Problem
from atesd_env.tasks.lists import ListsTask

PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""The packaged student's chat template."""


@dataclass(frozen=True)
class PretrainSettings:
    """The recipe of a packaged student that is trained from scratch (ours); the defaults are those of "tiny".

    Attributes:
        task: What it is trained on, a class that is called with the fewest and the most steps or numbers of a problem.
        rope_theta: Base of the rotary embedding: a small one tells near positions apart, which lists are made of.
        dtype: What the weights are rounded to at the end.
        seed: Of the weights and of the batches.
        num_updates: Optimizer steps.
        batch_size: Sequences an update.
        learning_rate: AdamW's peak; linear warm-up over 50 updates, then cosine to a tenth.
        shortest: Shortest problem, as the task counts.
        plain_longest: Longest problem that is seen without a hint.
        hinted_longest: Longest problem that is seen with a hint.
        full_exposure_rate: Share of the hinted rows that show the whole solution; the others show a uniformly random share.
    """

    task: type[ArithmeticTask] | type[ListsTask] = ArithmeticTask
    rope_theta: float = 10_000.0
    dtype: torch.dtype = torch.float32
    seed: int = 0
    num_updates: int = 900
    batch_size: int = 64
    learning_rate: float = 3e-3
    shortest: int = 2
    plain_longest: int = 3
    hinted_longest: int = 5
    full_exposure_rate: float = 0.1


RECIPES = {
    "tiny": PretrainSettings(),
    "tiny-lists": PretrainSettings(
        task=ListsTask,
        rope_theta=100.0,
        dtype=torch.float16,
        num_updates=600,
        batch_size=32,
        shortest=1,
        plain_longest=2,
        hinted_longest=3,
    ),
}
"""How the packaged students that are whole models were made."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Returns a character tokenizer over printable ASCII and the line break, with a chat template."""
    characters = [chr(code) for code in range(32, 127)] + ["\n"]
    vocabulary = {token: index for index, token in enumerate([PAD, USER, ASSISTANT, END, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )


def build_model(tokenizer: Any, seed: int, rope_theta: float = 10_000.0) -> Qwen3ForCausalLM:
    """Returns an untrained Qwen3 of about 0.6 M parameters, its weights drawn from ``seed`` alone."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(
            seed
        )  # Hugging Face initialises from the global generator; the fork keeps the caller's untouched
        return Qwen3ForCausalLM(config)


def pretrain(settings: PretrainSettings, quiet: bool = False) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """Trains a packaged student from scratch on the CPU.

    Args:
        settings: The recipe.
        quiet: Show no progress bar.

    Returns:
        The model in evaluation mode, its weights of the recipe's ``dtype``, and its tokenizer.
    """
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, settings.seed, settings.rope_theta)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    batches = _batches(settings, tokenizer)
    for update in track(range(settings.num_updates), description="pretraining", disable=quiet):
        optimizer.param_groups[0]["lr"] = settings.learning_rate * _schedule(update, settings.num_updates)
        input_ids, attention_mask, labels = next(batches)
        loss = model(input_ids=input_ids, attention_mask=attention_mask, labels=labels).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.to(settings.dtype).eval(), tokenizer


def _schedule(update: int, num_updates: int) -> float:
    cosine = 0.5 * (1 + math.cos(math.pi * update / num_updates))
    return min(1.0, (update + 1) / 50) * (0.1 + 0.9 * cosine)


def _batches(settings: PretrainSettings, tokenizer: Any) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields (input_ids, attention_mask, labels), each [batch, length], left-padded, labels on the answer only."""
    plain = settings.task(settings.shortest, settings.plain_longest)
    hinted = settings.task(settings.shortest, settings.hinted_longest)
    builder = PromptBuilder(hinted, tokenizer, max_prompt_tokens=256)
    rng = numpy_stream(settings.seed, "pretraining")
    index = 0
    while True:
        rows: list[list[int]] = []
        labels: list[list[int]] = []
        for row in range(settings.batch_size):
            problem: Problem
            if row % 2 == 0:
                problem = plain.training_problem(settings.seed, index)
                prompt = builder.student_prompt(problem)
            else:
                problem = hinted.training_problem(settings.seed, index)
                # A ratio below 1 hides at least the last step, so that most hinted rows still ask for arithmetic.
                ratio = 1.0 if rng.random() < settings.full_exposure_rate else float(rng.random())
                prompt = builder.teacher_prompt(problem, ratio).token_ids
            answer = builder.reference_ids(problem, max_tokens=256)
            rows.append([*prompt, *answer])
            labels.append([-100] * len(prompt) + list(answer))
            index += 1
        input_ids, mask = left_pad(rows, tokenizer.pad_token_id)
        yield input_ids, mask.long(), left_pad(labels, -100)[0]
