"""In which fields of the configuration the students of one population may differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atesd_env.config.language_model import EnvConfig
from atesd_env.config.run import Leaf
from atesd_env.errors import ConfigError
from atesd_env.hints import did_you_mean

INSTANCE_FIELDS = EnvConfig.names("instance")
"""Fields of ``EnvConfig`` that may differ between the students of a population."""


def instance_configs(config: Leaf, changes: Sequence[Mapping[str, Any]] | None, num_students: int) -> list[Leaf]:
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
                hint = did_you_mean(name, INSTANCE_FIELDS, "set it for all students instead.")
                raise ConfigError(
                    f"instances: expected fields that may differ between students ({', '.join(INSTANCE_FIELDS)}), got {name!r}; "
                    f"{hint}"
                )
    return [config.replace(**fields) for fields in changes]
