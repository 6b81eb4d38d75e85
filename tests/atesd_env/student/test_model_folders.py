"""Odd folders of models: no code of theirs runs, nothing hangs, and each is refused by name."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from atesd_env.config import EnvConfig
from atesd_env.errors import StudentError
from atesd_env.planning.shape import student_shape
from atesd_env.student.loading import load_student
from atesd_env.student.packaged import TINY_DIRECTORY

MARKING = "import pathlib\npathlib.Path({mark!r}).touch()\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(TINY_DIRECTORY, tmp_path / "model")
    return tmp_path / "model"


def edited(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in content.items() if value != "(gone)"}))


def config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edited(folder / "config.json", **changes)


def written(name: str, content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(content)

    return write


def removed(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def piped(name: str) -> Callable[[Path], None]:
    def pipe(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return pipe


def pickled(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")


def resized(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    save_file({name: tensor[:-1] for name, tensor in state.items()}, folder / "model.safetensors", {"format": "pt"})


def outside(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "secret.safetensors")
    names = load_file(folder.parent / "secret.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "../secret.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


FOLDERS: dict[str, Callable[[Path], None]] = {
    "an empty configuration": written("config.json", b""),
    "a configuration that is a list": written("config.json", b"[]"),
    "a deep configuration": written("config.json", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "a configuration in a pipe": piped("config.json"),
    "weights in a pipe": piped("model.safetensors"),
    "any other pipe": piped("special_tokens_map.json"),
    "a device": lambda folder: (folder / "extra.json").symlink_to("/dev/zero"),
    "no weights": removed("model.safetensors"),
    "no tokenizer": removed("tokenizer.json"),
    "a tokenizer that is no JSON": written("tokenizer.json", b"{"),
    "a tokenizer of other JSON": written("tokenizer.json", b'{"version": 1, "model": []}'),
    "a deep tokenizer": written("tokenizer.json", b"[" * 100_000),
    "a deep configuration of the tokenizer": written("tokenizer_config.json", b"[" * 100_000),
    "a configuration of the tokenizer that is a list": written("tokenizer_config.json", b"[]"),
    "weights cut short": lambda folder: os.truncate(folder / "model.safetensors", 1000),
    "weights that are none": written("model.safetensors", b"x" * 100),
    "weights of other shapes": resized,
    "shards outside": outside,
    "no kind": config(model_type="(gone)", architectures="(gone)"),
    "an unknown kind": config(model_type="strange"),
    "a kind that is a number": config(model_type=3),
    "a size in words": config(hidden_size="large"),
    "a size below 0": config(num_hidden_layers=-1),
    "a size of nothing": config(num_attention_heads=0),
    "a size that is a list": config(vocab_size=[1]),
    "a vocabulary smaller than the tokenizer's": config(vocab_size=3),
    "end tokens in words": lambda folder: edited(folder / "generation_config.json", eos_token_id=["x"]),
    "a chat template that fails": lambda folder: edited_template(folder, "{{ messages.nothing.at.all }}"),
    "a chat template that is none": lambda folder: edited_template(folder, "{% if %}"),
    "an adapter beside": written(
        "adapter_config.json", b'{"base_model_name_or_path": "../other", "peft_type": "LORA"}'
    ),
}


def edited_template(folder: Path, template: str) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    edited(folder / "tokenizer_config.json", chat_template=template)


@pytest.mark.parametrize("kind", FOLDERS)
def test_an_odd_folder_is_refused_by_name(kind: str, folder: Path, tiny_config: EnvConfig):
    FOLDERS[kind](folder)
    with pytest.raises(StudentError, match=r"(?s)student.*expected") as caught:
        load_student(tiny_config.replace(student=str(folder)))
    assert "model" in str(caught.value)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    "kind", [kind for kind in FOLDERS if kind.startswith(("a configuration", "a size", "a deep conf", "an unk"))]
)
def test_a_plan_of_an_odd_folder_is_refused_or_counted(kind: str, folder: Path):
    FOLDERS[kind](folder)
    if "of the tokenizer" in kind:  # which a plan does not look at
        assert student_shape(str(folder), 4, ("q_proj",)).num_layers > 0
        return
    with pytest.raises(StudentError, match="expected"):
        student_shape(str(folder), 4, ("q_proj",))


@pytest.mark.parametrize("which", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("answer", ["y\n", "n\n", ""])
def test_code_of_a_model_never_runs_and_nobody_is_asked(
    which: str, answer: str, folder: Path, tiny_config: EnvConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mark = tmp_path / "ran"
    (folder / "strange.py").write_text(MARKING.format(mark=str(mark)))
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda prompt="": asked.append(prompt) or answer.strip())
    if which == "config.json":
        classes = {"AutoConfig": "strange.Config", "AutoModelForCausalLM": "strange.Model"}
        edited(folder / which, model_type="strange", auto_map=classes)
    else:
        edited(
            folder / which, tokenizer_class="StrangeTokenizer", auto_map={"AutoTokenizer": ["strange.Tokenizer", None]}
        )
    if which == "config.json":
        with pytest.raises(StudentError, match=r"code of its own \(auto_map.*never run; take a model without"):
            load_student(tiny_config.replace(student=str(folder)))
        with pytest.raises(StudentError, match="expected"):
            student_shape(str(folder), 4, ("q_proj",))
    else:
        with suppress(StudentError):  # transformers may take another class, of its own
            load_student(tiny_config.replace(student=str(folder)))
    assert not mark.exists()
    assert asked == []


def test_pickled_weights_are_refused(folder: Path, tiny_config: EnvConfig, tmp_path: Path):
    pickled(folder)
    with pytest.raises(StudentError, match="safetensors"):
        load_student(tiny_config.replace(student=str(folder)))

    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(StudentError, match="expected"):
        load_student(tiny_config.replace(student=str(folder)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        "a\0b",
        "x/../y",
        "\udc80",
        "owner/na me",
        "-",
        "a" * 5000,
        "~nobody-of-this-name/x",
        "http://example.org/x",
    ],
)
def test_an_odd_name_is_refused(name: str, tiny_config: EnvConfig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StudentError, match="expected"):
        load_student(tiny_config.replace(student=name))
