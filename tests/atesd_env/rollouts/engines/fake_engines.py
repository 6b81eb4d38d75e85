"""Engines that speak vLLM's protocol and sample with this package's decode loop, true ones and ones that cheat."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from atesd_env.config import EnvConfig
from atesd_env.rollouts.sampling import SamplingSpec, generate
from atesd_env.rollouts.scoring import scored_hidden, token_log_probs
from atesd_env.student.adapters import AdapterStack
from atesd_env.student.loading import load_student

Handed = torch.Tensor | None
"""What an engine samples from: an adapter [P], or the bare base."""


class Brain:
    """Samples as an engine would: from what it was handed, with the seed of the request. ``vice`` names how it cheats."""

    def __init__(self, config: EnvConfig) -> None:
        self.student = load_student(config)
        self.stack = AdapterStack(
            self.student.model, 1, config.lora_r, config.lora_alpha, config.lora_targets, keep_teacher=False
        )
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Makes it an honest engine that has just started."""
        self.vice = ""
        self.first: Handed = None
        self.num_asked = 0
        self.seeds: list[int] = []

    def read(self, directory: str) -> torch.Tensor:
        """Returns a peft directory's adapter, [P]."""
        with self._lock:
            self.stack.load(0, Path(directory))
            return self.stack.flat[0].clone()

    def answer(self, prompt: list[int], seed: int, handed: Handed, spec: SamplingSpec) -> tuple[list[int], list[float]]:
        """Returns tokens and log-probabilities."""
        with self._lock:
            self.num_asked += 1
            self.seeds.append(seed)
            self.first = handed if self.first is None else self.first
            handed = {"ignores adapters": None, "keeps the first adapter": self.first}.get(self.vice, handed)
            seed = {"ignores seeds": self.num_asked, "has one seed": 7}.get(self.vice, seed)
            if handed is not None:
                self.stack.flat[0] = handed
            uniforms = torch.rand(1, spec.max_new_tokens, generator=torch.Generator().manual_seed(seed))
            with self.stack.use(None if handed is None else "student", [0]), torch.no_grad():
                rollouts = generate(self.student, [prompt], spec, uniforms)
                hidden = scored_hidden(self.student, rollouts.prompt_ids, rollouts.prompt_mask, rollouts)
                log_probs = token_log_probs(self.student, hidden, rollouts.completion_ids[0])
            tokens: list[int] = rollouts.completion_ids[0].tolist()
            told: list[float] = log_probs.tolist()
        if self.vice == "says other tokens":
            tokens[0] = self.student.vocabulary_size + 5
        if self.vice == "says too much":
            tokens, told = tokens + [5] * spec.max_new_tokens, told + [-1.0] * spec.max_new_tokens
        if self.vice == "tells no log-probabilities":
            told = []
        if self.vice == "tells other log-probabilities":
            told = [value - 1.0 for value in told]
        return tokens, told


class FakeVllmServer:
    """vLLM's endpoints, behind a port of this machine.

    Args:
        brain: What samples.
        context: Tokens that it says it can hold.

    Attributes:
        adapters: What is loaded, by name.
        failures: Completions that are answered with a closed connection before it answers again.
        deaf: Everything hangs.
    """

    def __init__(self, brain: Brain, context: int = 4096) -> None:
        self.brain = brain
        self.adapters: dict[str, Handed] = {}
        self.failures = 0
        self.deaf = False
        self.can_load = True
        self.released = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                """Says nothing."""

            def do_GET(self) -> None:
                if not fake.deaf:
                    self.say(200, {"data": [{"id": "base", "parent": None, "max_model_len": context}]})
                fake.released.wait(0 if not fake.deaf else 60)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if fake.deaf:
                    fake.released.wait(60)
                    return
                answer = fake.answer(self.path, body)
                if answer is not None:
                    self.say(*answer)

            def say(self, status: int, content: Any) -> None:
                text = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any] | None:
        """Returns status and content, or None to hang up."""
        if path == "/v1/load_lora_adapter" and not self.can_load:
            return 404, {"detail": "Not Found"}
        if path == "/v1/load_lora_adapter":
            self.adapters[body["lora_name"]] = self.brain.read(body["lora_path"])
        elif path == "/v1/unload_lora_adapter":
            if self.adapters.pop(body["lora_name"], None) is None:
                return 404, {"error": "unknown"}
        elif path == "/v1/completions":
            return self.complete(body)
        return 200, "done"

    def complete(self, body: dict[str, Any]) -> tuple[int, Any] | None:
        if self.failures > 0:
            self.failures -= 1
            return None
        if body["model"] != "base" and body["model"] not in self.adapters:
            return 404, {"error": "no such model"}
        assert body["return_token_ids"]
        assert body["logprobs"] == 0
        handed = None if body["model"] == "base" else self.adapters[body["model"]]
        spec = SamplingSpec(body["max_tokens"], body["temperature"], body["top_p"], body["top_k"])
        tokens, log_probs = self.brain.answer(body["prompt"], body["seed"], handed, spec)
        return 200, {"choices": [{"token_ids": tokens, "logprobs": {"token_logprobs": log_probs}}]}

    def restart(self) -> None:
        """Forgets all adapters, as a server does that was started anew."""
        self.adapters.clear()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
