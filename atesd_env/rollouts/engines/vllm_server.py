"""A vLLM server, reached by its address: OpenAI's completions with token ids, and vLLM's endpoints that load adapters.

The server runs the same base model and was started so that adapters may be loaded while it runs::

    VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 vllm serve MODEL --enable-lora --max-lora-rank R --max-loras K
"""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from atesd_env.errors import EngineError, EngineUnavailableError
from atesd_env.rollouts.engines.completions import Completion, CompletionRequest
from atesd_env.rollouts.engines.exchange import OversizedError, exchange
from atesd_env.rollouts.sampling import SamplingSpec

MOST_CONNECTIONS = 256
"""Requests that are under way at once; the server batches them."""

ANSWER_BYTES, TOKEN_BYTES = 2**20, 512
"""Largest answer: so much, and so much for each token of the longest prompt and answer, which come as numbers and as text."""

_RETRIED_STATUSES = (408, 425, 429)
"""Answers below 500 that say "later"."""


class VllmServer:
    """A ``CompletionBackend`` that speaks to a vLLM server.

    If the environment variable ``VLLM_API_KEY`` is set, it is sent as the key.

    Args:
        address: Such as "http://localhost:8000".
        timeout_sec: Seconds until an answer must be there as a whole; of completions, all that are asked for at once.
        needed_tokens: Context that prompts and answers need together.
    """

    def __init__(self, address: str, timeout_sec: float, needed_tokens: int) -> None:
        self.description = f"rollout engine {address}"
        self._address = address.rstrip("/")
        self._timeout_sec = timeout_sec
        self._needed_tokens = needed_tokens
        self._model: str | None = None
        self._loaded: list[str] = []

    def begin(self) -> None:
        """Asks which base model the server runs, once."""
        if self._model is not None:
            return
        text = self._ask("/v1/models")
        try:
            base = next(model for model in _parsed(text)["data"] if model.get("parent") is None)
            name, context = base["id"], base.get("max_model_len")
            if not isinstance(name, str) or isinstance(context, bool) or not isinstance(context, int | None):
                raise TypeError
        except (KeyError, StopIteration, TypeError, AttributeError, ValueError) as error:
            raise EngineError(
                f"{self.description}: expected vLLM's list of models, got {text[:200]!r}; is it a vLLM server?"
            ) from error
        self._model = name
        if context is not None and context < self._needed_tokens:
            raise EngineError(
                f"{self.description}: expected a context of at least {self._needed_tokens} tokens (max_prompt_tokens + "
                f"max_new_tokens), got {context}; start the server with --max-model-len {self._needed_tokens}."
            )

    def load_adapters(self, adapters: Mapping[str, Path]) -> None:
        """Loads adapters from folders that the server sees under the same paths, then unloads the earlier ones."""
        earlier, self._loaded = self._loaded, []
        for name, directory in adapters.items():
            try:
                self._ask("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(directory)})
            except _RefusedError as error:
                hint = (
                    "start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora"
                    if error.status in (404, 405)
                    else "it must see engine_folder under the same path, and allow the rank (--max-lora-rank)"
                )
                raise EngineError(
                    f"{error} It was expected to load the adapter {directory}, but refused; {hint}."
                ) from error
            self._loaded.append(name)
        for name in earlier:
            self._unload(name)

    def _unload(self, name: str) -> None:
        try:
            self._ask("/v1/unload_lora_adapter", {"lora_name": name})
        except _RefusedError:
            return  # a server that was started anew does not know it

    def complete(
        self, requests: Sequence[CompletionRequest], spec: SamplingSpec, end_token_ids: Sequence[int]
    ) -> list[Completion | EngineUnavailableError]:
        """Sends the requests side by side; each has a seed of its own, which one request with many prompts could not have."""
        deadline = time.monotonic() + self._timeout_sec

        def one(request: CompletionRequest) -> Completion | EngineUnavailableError:
            try:
                return self._complete_one(request, spec, end_token_ids, deadline)
            except EngineUnavailableError as error:
                return error

        with ThreadPoolExecutor(min(len(requests), MOST_CONNECTIONS)) as threads:
            return list(threads.map(one, requests))

    def _complete_one(
        self, request: CompletionRequest, spec: SamplingSpec, end_token_ids: Sequence[int], deadline: float
    ) -> Completion:
        # Everything is said: what is left out, a server takes from the model's generation_config.json.
        body = {
            "model": self._model if request.adapter is None else request.adapter,
            "prompt": list(request.prompt),
            "max_tokens": spec.max_new_tokens,
            "temperature": spec.temperature,
            "top_p": spec.top_p,
            "top_k": spec.top_k,
            "min_p": 0.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "repetition_penalty": 1.0,
            "seed": request.seed,
            "stop_token_ids": list(end_token_ids),
            "logprobs": 0,
            "return_token_ids": True,
            "add_special_tokens": False,
            "skip_special_tokens": False,
        }
        try:
            text = self._ask("/v1/completions", body, deadline)
        except _RefusedError as error:
            if error.status == 404:  # the server was started anew and has lost the adapter
                raise EngineUnavailableError(str(error)) from error
            raise
        try:
            choice = _parsed(text)["choices"][0]
            return Completion(choice["token_ids"], choice["logprobs"]["token_logprobs"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise EngineError(
                f"{self.description}: expected token_ids and logprobs.token_logprobs in an answer, got {text[:200]!r}; vLLM "
                "0.32 gives them (return_token_ids)."
            ) from error

    def _ask(self, path: str, body: Mapping[str, Any] | None = None, deadline: float | None = None) -> bytes:
        """Returns the server's answer to a POST (or GET, without body), which is whole by the deadline."""
        headers = {"Content-Type": "application/json"}
        if os.environ.get("VLLM_API_KEY"):
            headers["Authorization"] = f"Bearer {os.environ['VLLM_API_KEY'].strip()}"
        data = None if body is None else json.dumps(body).encode()
        most_bytes = ANSWER_BYTES + TOKEN_BYTES * self._needed_tokens
        deadline = time.monotonic() + self._timeout_sec if deadline is None else deadline
        try:
            status, text = exchange(self._address + path, data, headers, deadline, most_bytes)
        except TimeoutError as error:
            raise self._silent(path) from error
        except OversizedError as error:
            raise EngineError(
                f"{self.description}{path}: expected at most {most_bytes:,} bytes for {self._needed_tokens} tokens (max_prompt_tokens + "
                "max_new_tokens), got more; is it a vLLM server?"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise EngineUnavailableError(
                f"{self.description}{path}: expected a vLLM server, got {repr(error)[:200]}; start it, or give its address "
                "(rollout_engine)."
            ) from error
        if 200 <= status < 300:
            return text
        message = f"{self.description}{path}: expected an answer, got status {status} ({text[:300]!r})."
        if status >= 500 or status in _RETRIED_STATUSES:
            raise EngineUnavailableError(message)
        raise _RefusedError(message, status)

    def _silent(self, path: str) -> EngineUnavailableError:
        return EngineUnavailableError(
            f"{self.description}{path}: expected a whole answer within {self._timeout_sec:g} s (engine_timeout_sec), got none; the "
            "server hangs or is too slow."
        )

    def end(self) -> None:
        """Does nothing: others may use the server."""

    def reset(self) -> None:
        """Asks for the model again at the next ``begin``."""
        self._model = None

    def close(self) -> None:
        """Unloads what was loaded, if the server still answers."""
        names, self._loaded = self._loaded, []
        try:
            for name in names:
                self._unload(name)
        except EngineError:
            pass
        self._model = None


class _RefusedError(EngineError):
    """The server answered with a status below 500 that is no success."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def _parsed(text: bytes) -> Any:
    """Returns JSON; raises ValueError for what is none, or deeper than anybody means it."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError from error
