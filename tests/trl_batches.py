"""What tests against TRL's trainer share: its batch as our rollouts."""

from __future__ import annotations

from typing import Any

import torch

from atesd_env.rollouts.sampling import Rollouts


def rollouts_of(batch: Any) -> Rollouts:
    """Returns the rollouts of a batch that TRL's SDFTTrainer prepared, all of which ended."""
    mask = batch["completion_mask"].bool()
    ended = torch.ones(len(mask), dtype=torch.bool)
    return Rollouts(batch["prompt_ids"], batch["prompt_mask"].bool(), batch["completion_ids"], mask, ended)
