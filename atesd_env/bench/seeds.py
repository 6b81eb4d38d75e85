"""Which seeds belong to which split: what was trained on is not what is tested on. No torch."""

from __future__ import annotations

from typing import Literal

from atesd_env.errors import ConfigError

Split = Literal["train", "validation", "test"]
"""A part of instances or of seeds."""

SEEDS: dict[Split, range] = {
    "train": range(10_000),
    "validation": range(10_000, 20_000),
    "test": range(20_000, 30_000),
}
"""The seeds of each split; those from 30,000 on belong to none, so that a training may derive its own."""


def split_of_seed(seed: int) -> Split | None:
    """Returns the split that a seed belongs to, or None.

    >>> split_of_seed(7), split_of_seed(20_003), split_of_seed(2**31)
    ('train', 'test', None)
    """
    return next((split for split, seeds in SEEDS.items() if seed in seeds), None)


def check_seed(seed: int, split: Split) -> None:
    """Refuses a seed that belongs to another split.

    Raises:
        ConfigError: If it does.
    """
    its_split = split_of_seed(seed)
    if its_split not in (None, split):
        own = SEEDS[split]
        raise ConfigError(
            f"seed: expected one of the split {split!r}, {own.start} to {own.stop - 1}, got {seed}, which is one of {its_split!r}; take "
            f"another seed, or the environment with split={its_split!r}."
        )
