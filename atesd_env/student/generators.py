"""Torch generators of the random streams."""

from __future__ import annotations

import numpy as np
import torch

from atesd_env.streams import seed_sequence


def torch_stream(seed: int, purpose: str, index: int = 0) -> torch.Generator:
    """Returns a CPU generator for one use.

    Args:
        seed: The run's seed, non-negative.
        purpose: "adapter", "rollout", "probe", "problems", "measurement" or "evaluation".
        index: Counts uses of the same purpose: the update, the window, or the sample of a problem.
    """
    state = int(seed_sequence(seed, purpose, index).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state & 0x7FFF_FFFF_FFFF_FFFF)
