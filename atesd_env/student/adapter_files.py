"""Plain LoRA adapters in peft's files: read and checked as strangers' files are, before a number of theirs is used."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from atesd_env.errors import StudentError
from atesd_env.files.reading import open_regular, read_json, reading

CONFIG_FILE = "adapter_config.json"
"""What an adapter is, in its folder."""
WEIGHTS_FILE = "adapter_model.safetensors"
"""An adapter's matrices, in its folder."""

_UNSUPPORTED = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias")


@dataclass(frozen=True)
class AdapterConfig:
    """What an adapter's ``adapter_config.json`` says, as far as it matters here.

    Attributes:
        r: Rank.
        alpha: LoRA scale.
        targets: Names of the layers, or endings of names; none where they are given as a pattern.
    """

    r: int
    alpha: float
    targets: tuple[str, ...]


def find_adapter(directory: Path) -> Path:
    """Returns where a peft adapter lies: the directory itself, or the folder "adapter" of a run in it.

    Raises:
        StudentError: If there is none.
    """
    for candidate in (directory, directory / "adapter"):
        if os.path.isfile(candidate / CONFIG_FILE) and os.path.isfile(candidate / WEIGHTS_FILE):
            return candidate
    raise StudentError(
        f"adapter: expected a peft adapter directory ({CONFIG_FILE} and {WEIGHTS_FILE}) or a run's folder with one, "
        f"got {directory}; check the path."
    )


def read_adapter_config(directory: Path) -> AdapterConfig:
    """Returns what an adapter is; nothing is looked for elsewhere, and no class is chosen by the file.

    Raises:
        StudentError: If the file cannot be read, or it is no plain LoRA.
    """
    path = directory / CONFIG_FILE
    with reading(path, "the configuration of a peft adapter", StudentError):
        config: dict[str, Any] = read_json(path)
        unsupported = [name for name in _UNSUPPORTED if config.get(name)]
        if config["peft_type"] != "LORA" or unsupported or config.get("bias", "none") != "none":
            raise StudentError(
                f"adapter {directory}: expected plain LoRA, got {config['peft_type']!r} with {unsupported or 'bias'}; not supported."
            )
        r, alpha, targets = config["r"], config["lora_alpha"], config["target_modules"]
        if not isinstance(r, int) or isinstance(r, bool) or not 1 <= r <= 65_536:
            raise ValueError(f"r is {r!r:.40}, no rank")
        if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha < math.inf:
            raise ValueError(f"lora_alpha is {alpha!r:.40}, no scale")
        names = () if isinstance(targets, str) else tuple(targets)
        if not all(isinstance(name, str) and name for name in names):
            raise ValueError(f"target_modules are {targets!r:.40}, no names of layers")
        return AdapterConfig(r, float(alpha), names)


def read_adapter_weights(directory: Path) -> dict[str, Tensor]:
    """Returns an adapter's matrices by peft's names, each finite and of a floating type.

    Raises:
        StudentError: If the file cannot be read, or holds something else.
    """
    path = directory / WEIGHTS_FILE
    with reading(path, "the matrices of a peft adapter", StudentError):
        open_regular(path).close()  # safetensors itself would wait for a pipe's other end
        state: dict[str, Tensor] = load_file(path)
        for name, matrix in state.items():
            if not matrix.is_floating_point() or not bool(torch.isfinite(matrix.float()).all()):
                raise ValueError(f"{name} is not all finite numbers of a floating type, but {matrix.dtype}")
        return state
