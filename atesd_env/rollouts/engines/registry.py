"""The rollout engine that a configuration names."""

from __future__ import annotations

from pathlib import Path

from atesd_env.config import EnvConfig
from atesd_env.rollouts.engines.checked import CheckedEngine
from atesd_env.rollouts.engines.completions import CompletionBackend
from atesd_env.rollouts.engines.engine import RolloutEngine
from atesd_env.rollouts.engines.external import ExternalEngine
from atesd_env.rollouts.engines.own import OwnEngine
from atesd_env.rollouts.engines.vllm_process import VllmProcess, VllmSettings
from atesd_env.rollouts.engines.vllm_server import VllmServer
from atesd_env.student.loading import model_directory


def make_engine(config: EnvConfig, num_students: int = 1) -> RolloutEngine:
    """Returns the engine that ``config.rollout_engine`` names; another one than the own starts with its first rollouts.

    Args:
        config: The environment's configuration.
        num_students: K, adapters that a batch may need at once.

    Raises:
        EngineError: If vLLM is needed and not installed.
    """
    if config.rollout_engine == "own":
        return OwnEngine()
    folder = None if config.engine_folder is None else Path(config.engine_folder)
    engine = ExternalEngine(_backend(config, num_students), folder, config.engine_retries)
    return CheckedEngine(engine, config.engine_tolerance)


def _backend(config: EnvConfig, num_students: int) -> CompletionBackend:
    context = config.max_prompt_tokens + config.max_new_tokens
    if config.rollout_engine != "vllm":
        return VllmServer(config.rollout_engine, config.engine_timeout_sec, context)
    return VllmProcess(
        VllmSettings(
            model=model_directory(config.student),
            dtype=config.dtype,
            context=context,
            lora_r=config.lora_r,
            num_students=num_students,
            cache_gib=config.engine_cache_gib,
            sleeps=config.engine_sleep,
            timeout_sec=config.engine_timeout_sec,
        )
    )
