"""Teacher exposure in on-policy self-distillation as a Gymnasium environment.

Importing this package registers the environment ids and loads neither torch nor transformers.
"""

from gymnasium.envs.registration import register, registry

from atesd_env.config import PRESETS, EnvConfig, ToyConfig, preset

__version__ = "0.1.0"
__all__ = ["PRESETS", "EnvConfig", "ToyConfig", "__version__", "preset"]

for _env_id in PRESETS:
    if _env_id not in registry:
        if _env_id == "ATESD-Toy-v0":
            register(
                id=_env_id,
                entry_point="atesd_env.simulated.toy:ToyExposureEnv",
                vector_entry_point="atesd_env.population.vector:make_toy",
            )
        else:
            # The environment truncates itself and may end early, so no wrapper counts its steps.
            register(
                id=_env_id,
                entry_point="atesd_env.population.environment:make",
                vector_entry_point="atesd_env.population.vector:make",
                kwargs={"env_id": _env_id},
            )

if "ATESD-Surrogate-v0" not in registry:
    register(
        id="ATESD-Surrogate-v0",
        entry_point="atesd_env.simulated.surrogate:SurrogateExposureEnv",
        vector_entry_point="atesd_env.simulated.surrogate:make_vector",
    )
