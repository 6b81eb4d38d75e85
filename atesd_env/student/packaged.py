"""Packaged students by name: "tiny" (sums), "tiny-lists" (programs on lists), and bases made of "tiny" that have habits.

`atesd_env.pretrain` rebuilds each.

A base with habits is a low-rank difference to the packaged student in 16 bits: for each linear layer two matrices A [r, in] and
B [out, r], under peft's names. Their product is added to the layer's weight when it is loaded, so such a base is a model like any other.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from atesd_env.errors import StudentError
from atesd_env.hints import did_you_mean

_ASSETS = Path(__file__).parents[1] / "assets"
TINY_DIRECTORY = _ASSETS / "tiny"
"""The packaged student that learns sums."""
WHOLE_STUDENTS = {"tiny": TINY_DIRECTORY, "tiny-lists": _ASSETS / "tiny-lists"}
"""Folders of the packaged students that are whole models."""
HABITS_DIRECTORY = _ASSETS / "habits"
"""The packaged bases with habits, a file each."""
HABIT_SCALE = 2.0
"""What the product B A is multiplied by: LoRA's alpha / r."""

PACKAGED_STUDENTS: tuple[str, ...] = (
    *WHOLE_STUDENTS,
    *sorted(path.stem for path in HABITS_DIRECTORY.glob("*.safetensors")),
)
"""Names of the packaged students. "tiny-terse-slip-0" is terse on sums of 4 numbers and slips on those of 5; its corpus has the seed 0."""


def is_packaged(name: str) -> bool:
    """Returns whether ``EnvConfig.student`` names a packaged student.

    Raises:
        StudentError: If it looks like the name of one, but there is none.
    """
    if name in PACKAGED_STUDENTS:
        return True
    if name.startswith("tiny-") and "/" not in name and not os.path.exists(name):
        hint = did_you_mean(name, PACKAGED_STUDENTS, "`python -m atesd_env.pretrain --student NAME` builds others.")
        raise StudentError(f"student: expected the name of a packaged student, got {name!r}; {hint}")
    return False


def packaged_folder(name: str) -> Path:
    """Returns the folder of a packaged student's model: that of "tiny" for the bases with habits, which are added to it."""
    return WHOLE_STUDENTS.get(name, TINY_DIRECTORY)


def add_habits(model: nn.Module, name: str) -> None:
    """Adds what a base's name stands for to the weights of "tiny", in place; nothing for a student that is a whole model."""
    if name not in WHOLE_STUDENTS:
        merge(model, load_file(HABITS_DIRECTORY / f"{name}.safetensors"))


@torch.no_grad()
def merge(model: nn.Module, matrices: dict[str, Tensor]) -> None:
    """Adds low-rank differences to the weights of a model, in place.

    Args:
        model: With a linear layer LAYER for each pair of matrices.
        matrices: ``base_model.model.LAYER.lora_A.weight`` [r, in] and ``.lora_B.weight`` [out, r], of any number format.

    Raises:
        StudentError: If the model's weights are in 4 bits.
    """
    for name, matrix_a in matrices.items():
        layer, kind, _ = name.removeprefix("base_model.model.").rsplit(".", 2)
        if kind == "lora_A":
            weight = model.get_parameter(f"{layer}.weight")
            if not weight.is_floating_point():
                raise StudentError(
                    "base_quantization: expected 'none' with a packaged base with habits, which is added up when it is loaded, got 4-bit "
                    "weights; leave base_quantization out."
                )
            matrix_b = matrices[name.replace("lora_A", "lora_B")].to(weight.device)
            weight.add_((matrix_b.float() @ matrix_a.to(weight.device).float()).to(weight.dtype), alpha=HABIT_SCALE)
