"""Students whose chat template or tokenizer would spoil a run without a word: each is refused, or read rightly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import atesd_env  # noqa: F401  (registers the ids)
from atesd_env.errors import StudentError
from atesd_env.exposure import PromptBuilder
from atesd_env.student.chat_template import check_chat_template, turn_end
from atesd_env.tasks.math import MathTask

ROWS = [
    {
        "problem": f"Ann has {i} pens and buys {i + 1}. How many?",
        "solution": f"{i}+{i + 1}={2 * i + 1}\nSo {2 * i + 1}.",
        "answer": str(2 * i + 1),
    }
    for i in range(40)
]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTROL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<pad>"]
SIZES: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}


def small_tokenizer(template: str | None = CHATML, eos: str | None = "<|im_end|>") -> Any:
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer, bare.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=CONTROL_TOKENS, initial_alphabet=alphabet)
    bare.train_from_iterator([row["problem"] + row["solution"] for row in ROWS], trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=bare, eos_token=eos, pad_token="<pad>")
    tokenizer.chat_template = template
    return tokenizer


def first_window(folder: Path, config: Any, tokenizer: Any, bias: int | None = None, **fields: Any) -> dict[str, Any]:
    """Trains a fresh student for a window, and returns its row; ``bias`` is a token that it always says."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    if bias is not None:
        model.lm_head.bias.data[bias] = 50.0
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder / "student")
    tokenizer.save_pretrained(folder / "student")
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    env = gym.make(
        "ATESD-Tiny-v0",
        student=str(folder / "student"),
        task="math",
        data_path=str(data),
        max_prompt_tokens=400,
        max_new_tokens=12,
        num_rollouts=2,
        probe_size=3,
        probe_max_tokens=16,
        windows=1,
        hold_window=1,
        lora_r=4,
        **fields,
    )
    env.reset(seed=0)
    return env.step(np.array([1.0], dtype=np.float32))[-1]


def test_the_templates_end_of_a_turn_ends_a_rollout(tmp_path: Path):
    """Its turns end with <|im_end|>, its tokenizer's end token is another one: every rollout once ran to its limit."""
    tokenizer = small_tokenizer(eos="<|endoftext|>")
    said = CONTROL_TOKENS.index("<|im_end|>")
    row = first_window(tmp_path, transformers.PhiConfig(**SIZES), tokenizer, bias=said, lora_targets=("q_proj",))
    assert (row["rollout/length"], row["rollout/truncation_rate"]) == (1.0, 0.0)
    builder = PromptBuilder(MathTask(tmp_path / "data.jsonl", probe_size=1), tokenizer, 400)
    assert builder.reference_ids(builder.task.probe_problems(1)[0], 400)[-1] == said, "a reference ends as a turn does"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{% for m in messages %}[INST] {{ m.content[0].text }} [/INST]{% endfor %}",
            r"writes the user's message .* without it",
        ),
        (
            "{% for m in messages %}{{ m['content'][:40] }}<|im_end|>{% endfor %}",
            r"writes the user's message into the prompt",
        ),
        ("Today: {{ strftime_now('%H:%M:%S.%f') }}\n" + CHATML, r"the same prompt at any time.* date or time"),
        (
            "Today: {{ strftime_now('%d %B %Y') }}\n" + CHATML,
            r"the same prompt at any time.* fixed date in place of strftime",
        ),
        (CHATML.replace("<|im_end|>", " END."), r"ends the assistant's turn with a control token.* got 'END\.'"),
        ("{{ raise_exception('no system message') }}", r"renders a user's message .*TemplateError: no system message"),
        ("{% for m in messages %}", r"renders a user's message .*TemplateSyntaxError"),
    ],
)
def test_a_template_that_would_spoil_runs_is_refused(template: str, message: str, tmp_path: Path):
    with pytest.raises(StudentError, match=rf"student .*{message}.*tokenizer_config\.json"):
        first_window(tmp_path, transformers.LlamaConfig(**SIZES), small_tokenizer(template))


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path):
    config = transformers.LlamaConfig(**{**SIZES, "vocab_size": 200})
    num_tokens = len(small_tokenizer())
    with pytest.raises(
        StudentError, match=rf"a row for each of the tokenizer's {num_tokens} tokens, got 200 rows; use"
    ):
        first_window(tmp_path, config, small_tokenizer())


def test_without_any_end_token_a_student_is_refused(tmp_path: Path):
    template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    with pytest.raises(StudentError, match=r"a token that ends an answer, got none .*set eos_token"):
        first_window(
            tmp_path, transformers.LlamaConfig(**SIZES, eos_token_id=None), small_tokenizer(template, eos=None)
        )


def test_real_templates_pass(any_tokenizer: Any):
    check_chat_template(any_tokenizer, "real", enable_thinking=False)
    check_chat_template(any_tokenizer, "real", enable_thinking=True)
    assert turn_end(any_tokenizer) == any_tokenizer.eos_token_id
