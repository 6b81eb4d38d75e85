"""In which fields of the configuration the students of one population may differ."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from atesd_env.config.fields import EnvConfig
from atesd_env.errors import ConfigError

INSTANCE_FIELDS = (
    "task",
    "data_path",
    "probe_data_path",
    "min_addends",
    "max_addends",
    "divergence",
    "jsd_beta",
    "token_clip",
    "divergence_top_k",
    "learning_rate",
    "weight_decay",
    "max_grad_norm",
    "ema_decay",
)
"""Fields of ``EnvConfig`` that may differ between the students of a population."""


def instance_configs(
    config: EnvConfig, changes: Sequence[Mapping[str, Any]] | None, num_students: int
) -> list[EnvConfig]:
    """Returns the configuration of each student.

    Args:
        config: What they share.
        changes: For each student the fields that differ, out of ``INSTANCE_FIELDS``; None changes nothing.
        num_students: K.

    Raises:
        ConfigError: If there are not K of them, or a field may not differ.
    """
    if changes is None:
        return [config] * num_students
    if len(changes) != num_students:
        raise ConfigError(
            f"instances: expected one dictionary of fields for each of {num_students} students, got {len(changes)}; "
            "pass one each, empty for a student like the configuration."
        )
    for fields in changes:
        for name in fields:
            if name not in INSTANCE_FIELDS:
                nearest = difflib.get_close_matches(name, INSTANCE_FIELDS, n=1)
                hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
                raise ConfigError(
                    f"instances: expected fields that may differ between students ({', '.join(INSTANCE_FIELDS)}), got {name!r}"
                    f"{hint}; set it for all students instead."
                )
    return [config.replace(**fields) for fields in changes]
