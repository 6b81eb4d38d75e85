"""Damaged and odd adapters: each is refused by name, and none is taken over in part or in silence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from atesd_env.errors import StudentError
from atesd_env.student.adapter_files import CONFIG_FILE, WEIGHTS_FILE, read_adapter_config
from atesd_env.student.adapters import AdapterStack

TARGETS = ("q_proj", "v_proj")


def stack(model: Any) -> AdapterStack:
    return AdapterStack(model, num_students=1, r=4, alpha=8.0, targets=TARGETS)


def changed_weights(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        state = load_file(folder / WEIGHTS_FILE)
        change(state)
        save_file(state, folder / WEIGHTS_FILE)

    return damage


def changed_bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / WEIGHTS_FILE).write_bytes(change((folder / WEIGHTS_FILE).read_bytes())) and None


def changed_config(**changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        config = json.loads((folder / CONFIG_FILE).read_text()) | changes
        (folder / CONFIG_FILE).write_text(
            json.dumps({name: value for name, value in config.items() if value != "(gone)"})
        )

    return damage


def config_of(content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / CONFIG_FILE).write_bytes(content) and None


def piped(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return damage


def first(state: dict[str, Tensor]) -> str:
    return min(state)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a matrix is missing": changed_weights(lambda state: state.pop(first(state))),
    "a matrix of another layer": changed_weights(lambda state: state.update(other=torch.zeros(2))),
    "another name": changed_weights(lambda state: state.update(x=state.pop(first(state)))),
    "another shape": changed_weights(lambda state: state.update({first(state): torch.zeros(3, 3)})),
    "a number for a matrix": changed_weights(lambda state: state.update({first(state): torch.tensor(1.0)})),
    "whole numbers": changed_weights(lambda state: state.update({first(state): state[first(state)].to(torch.int64)})),
    "truth values": changed_weights(lambda state: state.update({first(state): state[first(state)] > 0})),
    "NaN": changed_weights(lambda state: state[first(state)].fill_(float("nan"))),
    "infinity": changed_weights(lambda state: state[first(state)].fill_(float("inf"))),
    "no matrix": changed_weights(lambda state: state.clear()),
    "cut in the header": changed_bytes(lambda content: content[:50]),
    "cut in the numbers": changed_bytes(lambda content: content[:-10]),
    "nothing": changed_bytes(lambda content: b""),
    "a huge header": changed_bytes(lambda content: (2**62).to_bytes(8, "little") + content[8:]),
    "a header that is no JSON": changed_bytes(lambda content: content[:8] + b"x" * 40 + content[48:]),
    "zeros": changed_bytes(lambda content: bytes(len(content))),
    "weights in a pipe": piped(WEIGHTS_FILE),
    "a configuration in a pipe": piped(CONFIG_FILE),
    "a configuration that is no JSON": config_of(b"{"),
    "a configuration of nothing": config_of(b""),
    "a list as configuration": config_of(b"[1]"),
    "a deep configuration": config_of(b'{"r":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a configuration in Latin-1": config_of(b'{"r": "\xe4"}'),
    "another kind": changed_config(peft_type="IA3"),
    "a kind that is a list": changed_config(peft_type=["LORA"]),
    "no kind": changed_config(peft_type="(gone)"),
    "a rank in words": changed_config(r="four"),
    "a huge rank": changed_config(r=10**300),
    "a rank of 0": changed_config(r=0),
    "no rank": changed_config(r=None),
    "a scale in words": changed_config(lora_alpha="8"),
    "a scale below 0": changed_config(lora_alpha=-8),
    "no layers": changed_config(target_modules=None),
    "layers that are numbers": changed_config(target_modules=[1, 2]),
    "DoRA": changed_config(use_dora=True),
    "biases": changed_config(bias="all"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_adapter_is_refused_and_nothing_is_taken_over(random_model, tmp_path: Path, damage: str):
    mine = stack(random_model)
    mine.initialise(0, torch.Generator().manual_seed(0))
    mine.save(0, tmp_path, base_model="random")
    DAMAGES[damage](tmp_path)
    before = mine.flat.clone()
    with pytest.raises(StudentError, match=r"(?s)adapter.*(expected|found)") as caught:
        mine.load(0, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert torch.equal(mine.flat, before)


def test_the_whole_adapter_is_read(random_model, tmp_path: Path):
    mine = stack(random_model)
    mine.initialise(0, torch.Generator().manual_seed(0))
    mine.save(0, tmp_path, base_model="random")
    before = mine.flat.clone()
    mine.flat.zero_()
    mine.load(0, tmp_path)
    assert torch.equal(mine.flat, before)
    assert (read_adapter_config(tmp_path).r, sorted(read_adapter_config(tmp_path).targets)) == (4, sorted(TARGETS))
