"""Configuration: the fields, their ranges, the presets, and what may differ between the students of a population."""

from atesd_env.config.fields import (
    CARRYING_OUT_FIELDS,
    PRESETS,
    Bounds,
    EnvConfig,
    check_same_config,
    differing_fields,
    is_server,
    preset,
)

__all__ = [
    "CARRYING_OUT_FIELDS",
    "PRESETS",
    "Bounds",
    "EnvConfig",
    "check_same_config",
    "differing_fields",
    "is_server",
    "preset",
]
