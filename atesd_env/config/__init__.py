"""Configuration: the fields of every run and of each kind of student, their ranges, the presets, and what files hold of them."""

from atesd_env.config.bench import BenchConfig
from atesd_env.config.checks import Bounds
from atesd_env.config.instance_fields import INSTANCE_FIELDS, instance_configs
from atesd_env.config.language_model import EnvConfig, is_server
from atesd_env.config.presets import PRESETS, preset, preset_of
from atesd_env.config.run import RunConfig
from atesd_env.config.saved import check_same_config, differing_fields, read_config
from atesd_env.config.simulated import SurrogateConfig, ToyConfig

__all__ = [
    "INSTANCE_FIELDS",
    "PRESETS",
    "BenchConfig",
    "Bounds",
    "EnvConfig",
    "RunConfig",
    "SurrogateConfig",
    "ToyConfig",
    "check_same_config",
    "differing_fields",
    "instance_configs",
    "is_server",
    "preset",
    "preset_of",
    "read_config",
]
