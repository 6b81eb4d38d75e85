"""The rollout engine that a configuration names."""

from __future__ import annotations

from pathlib import Path

from atesd_env.config import EnvConfig
from atesd_env.rollouts.engines.checked import CheckedEngine
from atesd_env.rollouts.engines.completions import CompletionBackend
from atesd_env.rollouts.engines.engine import OwnEngine, RolloutEngine
from atesd_env.rollouts.engines.external import ExternalEngine
from atesd_env.rollouts.engines.vllm_process import VllmProcess
from atesd_env.rollouts.engines.vllm_server import VllmServer


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
    backend: CompletionBackend
    if config.rollout_engine == "vllm":
        backend = VllmProcess(config, num_students)
    else:
        context = config.max_prompt_tokens + config.max_new_tokens
        backend = VllmServer(config.rollout_engine, config.engine_timeout_sec, context)
    folder = None if config.engine_folder is None else Path(config.engine_folder)
    return CheckedEngine(ExternalEngine(backend, folder, config.engine_retries), config.engine_tolerance)
