"""Packaged bases with habits: small, merged when loaded, and with the habits that their names tell."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from atesd_env.config import EnvConfig
from atesd_env.errors import StudentError
from atesd_env.pretrain.measured import conduct
from atesd_env.student.loading import load_student, model_directory
from atesd_env.student.packaged import HABITS_DIRECTORY, PACKAGED_STUDENTS, is_packaged, merge

NAME = "tiny-terse-slip-0"


def test_the_bases_are_small():
    sizes = [path.stat().st_size for path in HABITS_DIRECTORY.glob("*.safetensors")]
    pairs = [path.stem.rsplit("-", 1) for path in HABITS_DIRECTORY.glob("*.safetensors")]
    assert len({pair for pair, _ in pairs}) >= 12
    assert len([pair for pair, seed in pairs if seed == "1"]) >= 8
    assert max(sizes) <= 1_500_000
    assert sum(sizes) <= 12_000_000


def test_a_base_is_the_packaged_student_plus_its_difference(tiny_config: EnvConfig):
    tiny, base = (load_student(tiny_config.replace(student=name)) for name in ("tiny", NAME))
    before, after = tiny.model.state_dict(), base.model.state_dict()
    matrices = load_file(HABITS_DIRECTORY / f"{NAME}.safetensors")
    layers = {name.removeprefix("base_model.model.").rsplit(".", 2)[0] for name in matrices}
    assert len(layers) == 4 * 7
    for name, weight in before.items():
        if name.removesuffix(".weight") not in layers:
            assert torch.equal(after[name], weight), name
            continue
        prefix = f"base_model.model.{name.removesuffix('.weight')}"
        product = matrices[f"{prefix}.lora_B.weight"].float() @ matrices[f"{prefix}.lora_A.weight"].float()
        torch.testing.assert_close(after[name], weight + 2.0 * product, rtol=0, atol=1e-6)
        assert not torch.equal(after[name], weight)
    assert base.source == f"packaged student {NAME}"
    assert tiny.source == "packaged tiny student"
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_the_habits_are_those_of_the_name(tiny_config: EnvConfig):
    """Terse on sums of 4 numbers, slipping on those of 5; a slip hides behind the copied answer."""
    base = load_student(tiny_config.replace(student=NAME))
    four, five = ({ratio: conduct(base, length, ratio, 60) for ratio in (0.0, 1.0)} for length in (4, 5))
    assert four[0.0].steps_written > 0.9
    assert four[1.0].steps_written < 0.2
    assert min(one.accuracy for one in (*four.values(), *five.values())) > 0.8
    assert five[0.0].steps_written > 0.9
    assert five[0.0].steps_right < 0.5
    assert five[1.0].steps_right > 0.85


def test_a_name_that_is_none_is_refused_and_a_folder_of_that_name_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert is_packaged("tiny")
    assert all(is_packaged(name) for name in PACKAGED_STUDENTS)
    assert not is_packaged("Qwen/Qwen3-1.7B")
    assert not is_packaged("tiny-models/mine")
    with pytest.raises(StudentError, match=rf"got 'tiny-terse-slip-O'; did you mean '{NAME[:-1]}"):
        is_packaged("tiny-terse-slip-O")
    with pytest.raises(StudentError, match=r"`python -m atesd_env\.pretrain --student NAME` builds others"):
        is_packaged("tiny-qqqqqqqqqqqqqqqq")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny-qqqqqqqqqqqqqqqq").mkdir()
    assert not is_packaged("tiny-qqqqqqqqqqqqqqqq")


def test_who_needs_a_folder_is_told_how_to_write_one():
    assert Path(model_directory("tiny"), "config.json").is_file()
    with pytest.raises(StudentError, match=rf"--student {NAME} --out DIR"):
        model_directory(NAME)


def test_weights_in_four_bits_are_refused():
    model = torch.nn.ModuleDict({"layer": torch.nn.Linear(4, 3, bias=False).requires_grad_(False)})
    model["layer"].weight.data = torch.zeros(3, 4, dtype=torch.uint8)
    matrices = {f"base_model.model.layer.lora_{kind}.weight": torch.ones(2, 4) for kind in "AB"}
    with pytest.raises(StudentError, match="base_quantization: expected 'none'"):
        merge(model, matrices)
