"""What tests against TRL's trainer share: its batch as our rollouts, and the program of the page on it."""

from __future__ import annotations

import re
from typing import Any

import torch

from atesd_env.rollouts.sampling import Rollouts
from tests.programs import ROOT

PAGE = (ROOT / "docs" / "your_own_trainer.md").read_text(encoding="utf-8")
PROGRAM, OWN_LOOP = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
"""The page's programs: with TRL's trainer, and with a loop of one's own."""


def one_update(num_rollouts: int, num_processes: int = 1, changes: dict[str, str] | None = None) -> str:
    """Returns the page's program with TRL's trainer, of one window of one update; ``changes`` are what else stands for what is typed."""
    program = PROGRAM
    for name, typed, smaller in (
        ("windows", "3", "1"),
        ("hold_window", "2", "1"),
        ("max_steps", "6", "1"),
        ("num_rollouts", "8", f"{num_rollouts}, probe_size=2"),
        ("per_device_train_batch_size", "8", f"{num_rollouts // num_processes}"),
        ("max_completion_length", "48", "8"),
    ):
        assert f"{name}={typed}" in program
        program = program.replace(f"{name}={typed}", f"{name}={smaller}")
    for typed, other in (changes or {}).items():
        assert typed in program
        program = program.replace(typed, other)
    return program


def rollouts_of(batch: Any) -> Rollouts:
    """Returns the rollouts of a batch that TRL's SDFTTrainer prepared, all of which ended."""
    mask = batch["completion_mask"].bool()
    ended = torch.ones(len(mask), dtype=torch.bool)
    return Rollouts(batch["prompt_ids"], batch["prompt_mask"].bool(), batch["completion_ids"], mask, ended)
