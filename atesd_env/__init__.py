"""Teacher exposure in on-policy self-distillation as a Gymnasium environment.

Importing this package registers the environment ids and loads neither torch nor transformers; what needs them is loaded
when it is first asked for.
"""

from typing import TYPE_CHECKING

from gymnasium.envs.registration import register, registry

from atesd_env.config import INSTANCE_FIELDS, PRESETS, EnvConfig, ToyConfig, preset
from atesd_env.errors import (
    AgentError,
    AtesdError,
    ConfigError,
    DataError,
    EngineError,
    EngineUnavailableError,
    ExtrapolationError,
    NoEpisodeError,
    NonFiniteError,
    RankError,
    RunFilesError,
    StudentError,
)
from atesd_env.lazy import on_first_use

if TYPE_CHECKING:
    from atesd_env.envs.branch import counterfactual, exposure_scores
    from atesd_env.envs.recording import RecordTrajectory
    from atesd_env.exposure import PromptBuilder
    from atesd_env.population.environments import TeacherExposureEnv, TeacherExposureVectorEnv
    from atesd_env.simulated.surrogate import SurrogateExposureEnv, SurrogateExposureVectorEnv
    from atesd_env.simulated.toy import ToyExposureEnv, ToyExposureVectorEnv
else:
    __getattr__, _ = on_first_use(
        __name__,
        {
            "envs.branch": ("counterfactual", "exposure_scores"),
            "envs.recording": ("RecordTrajectory",),
            "exposure": ("PromptBuilder",),
            "population.environments": ("TeacherExposureEnv", "TeacherExposureVectorEnv"),
            "simulated.surrogate": ("SurrogateExposureEnv", "SurrogateExposureVectorEnv"),
            "simulated.toy": ("ToyExposureEnv", "ToyExposureVectorEnv"),
        },
    )

__version__ = "0.1.0"
__all__ = [
    "INSTANCE_FIELDS",
    "PRESETS",
    "AgentError",
    "AtesdError",
    "ConfigError",
    "DataError",
    "EngineError",
    "EngineUnavailableError",
    "EnvConfig",
    "ExtrapolationError",
    "NoEpisodeError",
    "NonFiniteError",
    "PromptBuilder",
    "RankError",
    "RecordTrajectory",
    "RunFilesError",
    "StudentError",
    "SurrogateExposureEnv",
    "SurrogateExposureVectorEnv",
    "TeacherExposureEnv",
    "TeacherExposureVectorEnv",
    "ToyConfig",
    "ToyExposureEnv",
    "ToyExposureVectorEnv",
    "__version__",
    "counterfactual",
    "exposure_scores",
    "preset",
]

_LANGUAGE_MODELS = ("atesd_env.population.environments:make", "atesd_env.population.environments:make_vector")
_SIMULATED = {
    "ATESD-Toy-v0": ("atesd_env.simulated.toy:ToyExposureEnv", "atesd_env.simulated.toy:ToyExposureVectorEnv"),
    "ATESD-Surrogate-v0": (
        "atesd_env.simulated.surrogate:SurrogateExposureEnv",
        "atesd_env.simulated.surrogate:SurrogateExposureVectorEnv",
    ),
}

if "ATESD-Bench-v0" not in registry:
    register(
        id="ATESD-Bench-v0",
        entry_point="atesd_env.bench.environments:BenchEnv",
        vector_entry_point="atesd_env.bench.environments:BenchVectorEnv",
        # Students end their own episodes: the longest that a set may have (bench.instances.MOST_WINDOWS).
        max_episode_steps=100,
        # Mean return of `balance`, the best rule without learning, on the split test (benchmarks/results/claims.json).
        reward_threshold=0.39,
    )

for _env_id in dict.fromkeys((*PRESETS, *_SIMULATED)):
    if _env_id not in registry:
        _entry_point, _vector_entry_point = _SIMULATED.get(_env_id, _LANGUAGE_MODELS)
        # The environments truncate themselves and may end early, so no wrapper counts their steps.
        register(
            id=_env_id,
            entry_point=_entry_point,
            vector_entry_point=_vector_entry_point,
            kwargs={} if _env_id in _SIMULATED else {"env_id": _env_id},
        )
