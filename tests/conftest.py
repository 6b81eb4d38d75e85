"""Shared fixtures: small configurations of the packaged student, and small random models of the supported families."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from atesd_env.config import EnvConfig, preset
from atesd_env.student.loading import load_student
from atesd_env.student.model import Student, wrap_student
from atesd_env.student.packaged import TINY_DIRECTORY

# Workers of a parallel test run would otherwise fight for the cores.
torch.set_num_threads(1)


@pytest.fixture
def tiny_config() -> EnvConfig:
    """The packaged student with windows that take a fraction of a second."""
    return preset(
        "ATESD-Tiny-v0",
        windows=3,
        hold_window=2,
        num_rollouts=4,
        probe_size=6,
        max_new_tokens=40,
        probe_accuracy_every=2,
    )


@pytest.fixture
def tiny_student(tiny_config: EnvConfig) -> Student:
    """The packaged student, freshly loaded (adapters wrap its layers in place)."""
    return load_student(tiny_config)


@pytest.fixture(params=["qwen3", "llama"])
def random_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """A small random causal language model of each family that the presets use, with grouped key-value heads."""
    common: dict[str, Any] = {
        "vocab_size": 101,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
        "pad_token_id": 0,
        "eos_token_id": 3,
        "tie_word_embeddings": request.param == "qwen3",
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        if request.param == "qwen3":
            return Qwen3ForCausalLM(Qwen3Config(**common)).eval()
        return LlamaForCausalLM(LlamaConfig(**common)).eval()


@pytest.fixture
def as_student(tiny_config: EnvConfig) -> Callable[[PreTrainedModel], Student]:
    """Wraps a random model with the packaged tokenizer."""

    def wrap(model: PreTrainedModel, **changes: Any) -> Student:
        return wrap_student(
            model, AutoTokenizer.from_pretrained(TINY_DIRECTORY), "random", tiny_config.replace(**changes)
        )

    return wrap


def random_prompts(num_rows: int, seed: int = 0, shortest: int = 4, longest: int = 12) -> list[list[int]]:
    """Returns prompts of different lengths, of ordinary tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(shortest, longest + 1, (num_rows,), generator=generator).tolist()
    return [torch.randint(4, 100, (length,), generator=generator).tolist() for length in lengths]


@pytest.fixture
def make_prompts() -> Callable[..., list[list[int]]]:
    """The function ``random_prompts``, for tests (conftest cannot be imported by name)."""
    return random_prompts


@pytest.fixture(scope="session")
def smollm2_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where SmolLM2 is converted to (half a gigabyte), once in a test run."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATESD_CACHE", str(folder))
        yield folder
