"""A server that does what it should not: whatever it sends, in time, within a size, ends in an error of ours."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from atesd_env.config import EnvConfig
from atesd_env.errors import EngineError, EngineUnavailableError
from atesd_env.population.population import Population
from atesd_env.rollouts.engines import vllm_server
from atesd_env.rollouts.engines.completions import Completion, CompletionRequest, check_completion
from atesd_env.rollouts.engines.vllm_server import VllmServer
from atesd_env.rollouts.sampling import SamplingSpec
from tests.atesd_env.rollouts.engines.fake_engines import FakeVllmServer

Script = Callable[[socket.socket], None]
"""What is done with a connection whose request has come."""
TIMEOUT_SEC = 0.5
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class HostileServer:
    """Takes requests as they come and answers each as ``script`` does."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.num_requests = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=self._listening.accept()[:1], daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            request = b""
            while not request.endswith(b"}") and not request.startswith(b"GET"):
                request += connection.recv(65_536)
            self.num_requests += 1
            self._script(connection)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture
def hostile() -> Iterator[Callable[[Script], HostileServer]]:
    """Starts hostile servers."""
    servers: list[HostileServer] = []

    def start(script: Script) -> HostileServer:
        servers.append(HostileServer(script))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def asked(address: str) -> Completion:
    """Asks for one answer of at most four tokens, the way the engine does; vocabulary of ten words, 2 and 3 end."""
    server, spec = VllmServer(address, TIMEOUT_SEC, needed_tokens=64), SamplingSpec(4)
    server._model = "base"
    (answer,) = server.complete([CompletionRequest([5], 1, None)], spec, (2, 3))
    if isinstance(answer, EngineUnavailableError):
        raise answer
    check_completion(answer, spec, (2, 3), 10, server.description)
    return answer


def says(text: str | bytes, status: bytes = b"200 OK") -> Script:
    """Answers with a body, whole."""
    body = text if isinstance(text, bytes) else text.encode()
    return lambda connection: connection.sendall(
        b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)
    )


def completion(token_ids: Any, log_probs: Any) -> str:
    """Returns the body of an answer; what is no JSON by itself is put in as it is."""
    tokens, told = (value if isinstance(value, str) else json.dumps(value) for value in (token_ids, log_probs))
    return f'{{"choices": [{{"token_ids": {tokens}, "logprobs": {{"token_logprobs": {told}}}}}]}}'


def drip(start: bytes, piece: bytes) -> Script:
    """Sends a piece every 50 ms, so that no single read ever waits long."""

    def script(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            time.sleep(0.05)
            connection.sendall(piece)

    return script


def flood(start: bytes, piece: bytes) -> Script:
    """Sends a piece again and again."""

    def script(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(piece)

    return script


def test_an_honest_answer_is_taken(hostile: Callable[[Script], HostileServer]) -> None:
    assert asked(hostile(says(completion([5, 2], [-1.5, 0]))).address) == Completion([5, 2], [-1.5, 0])
    chunks = b"".join(b"%x\r\n%s\r\n" % (1, piece.encode()) for piece in completion([5, 2], [-1.5, -2.0]))
    in_chunks = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    assert asked(hostile(lambda connection: connection.sendall(in_chunks)).address).token_ids == [5, 2]


@pytest.mark.parametrize(
    "script",
    [
        drip(HEAD + b"Content-Length: 1000\r\n\r\n", b" "),
        drip(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        drip(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n"),
        drip(b"HTTP/1.1 200", b"O"),
        drip(HEAD, b"X-More: 1"),
        drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        lambda _: time.sleep(5),
    ],
    ids=["body", "chunks", "trailers", "status", "headers", "continue", "silence"],
)
def test_an_answer_that_drips_is_given_up_at_the_deadline(
    hostile: Callable[[Script], HostileServer], script: Script
) -> None:
    address = hostile(script).address
    started = time.monotonic()
    with pytest.raises(EngineUnavailableError, match=r"whole answer within 0\.5 s \(engine_timeout_sec\)"):
        asked(address)
    assert time.monotonic() - started < 4 * TIMEOUT_SEC


def test_all_answers_that_are_asked_for_at_once_have_one_deadline(
    hostile: Callable[[Script], HostileServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_server, "MOST_CONNECTIONS", 2)
    address = hostile(drip(HEAD + b"Content-Length: 1000\r\n\r\n", b" ")).address
    server = VllmServer(address, TIMEOUT_SEC, needed_tokens=64)
    server._model = "base"
    started = time.monotonic()
    answers = server.complete([CompletionRequest([5], seed, None) for seed in range(8)], SamplingSpec(4), (2, 3))
    assert time.monotonic() - started < 4 * TIMEOUT_SEC
    assert all(isinstance(answer, EngineUnavailableError) for answer in answers)


@pytest.mark.parametrize(
    "script",
    [
        flood(HEAD + b"\r\n", b"[" * 65_536),
        flood(HEAD + b"Content-Length: 100000000000\r\n\r\n", b" " * 65_536),
        flood(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"8000\r\n" + b" " * 32_768 + b"\r\n"),
        flood(b"HTTP/1.1 500 Oh\r\n\r\n", b"x" * 65_536),
    ],
    ids=["until closed", "long", "chunks", "error"],
)
def test_an_endless_answer_is_cut_off(hostile: Callable[[Script], HostileServer], script: Script) -> None:
    """1 MiB and 512 bytes for each of 64 tokens; what is held of it is not much more."""
    address = hostile(script).address
    tracemalloc.start()
    try:
        with pytest.raises(EngineError, match="expected at most 1,081,344 bytes for 64 tokens"):
            asked(address)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


def test_headers_are_bounded(hostile: Callable[[Script], HostileServer]) -> None:
    for piece in (b"X-More: 1\r\n", b"x" * 65_536):
        with pytest.raises(EngineUnavailableError, match="expected a vLLM server, got") as caught:
            asked(hostile(flood(HEAD, piece)).address)
        assert len(str(caught.value)) < 600


DEEP = "[" * 100_000 + "]" * 100_000
NESTED = "[" * 800 + "]" * 800


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "expected token_ids and logprobs"),
        ("<html>", "expected token_ids and logprobs"),
        (b"\xff\xfe\x00", "expected token_ids and logprobs"),
        ("\x1b[2J", r"\x1b[2J"),
        ("null", "expected token_ids and logprobs"),
        ("[]", "expected token_ids and logprobs"),
        ('{"choices": []}', "expected token_ids and logprobs"),
        ('{"choices": null}', "expected token_ids and logprobs"),
        ('{"choices": [{"token_ids": [5, 2], "logprobs": null}]}', "expected token_ids and logprobs"),
        (DEEP, "expected token_ids and logprobs"),
        ('{"choices": [{"token_ids": ' + DEEP, "expected token_ids and logprobs"),
        (completion(None, [-1.0]), "expected lists of token ids and log-probabilities, got NoneType and list"),
        (completion([5, 2], None), "got list and NoneType"),
        (completion("12", [-1.0, -1.0]), "got int and list"),
        (completion({"5": 1}, [-1.0]), "got dict and list"),
        (completion([5, None], [-1.0, -1.0]), "token ids in 0..9, got a NoneType"),
        (completion([5, "2"], [-1.0, -1.0]), "token ids in 0..9, got a str"),
        (completion([5, 2.0], [-1.0, -1.0]), "token ids in 0..9, got 2.0"),
        (completion([5, True], [-1.0, -1.0]), "token ids in 0..9, got True"),
        (completion([5, 10], [-1.0, -1.0]), "token ids in 0..9, got 10"),
        (completion([5, -1], [-1.0, -1.0]), "token ids in 0..9, got -1"),
        (completion([5, 10**400], [-1.0, -1.0]), "token ids in 0..9, got 1000"),
        (completion(f"[5, {NESTED}]", [-1.0, -1.0]), "token ids in 0..9, got a list"),
        (completion([], []), "expected 1 to 4 tokens"),
        (completion([5] * 5, [-1.0] * 5), "expected 1 to 4 tokens"),
        (completion([5, 2], [-1.0]), "(1 of them)"),
        (completion([5, 2], [-1.0] * 3), "(3 of them)"),
        (completion([5, 2], "[-1.0, NaN]"), "of at most 0 for each of 2 tokens, got nan"),
        (completion([5, 2], "[-1.0, -Infinity]"), "of at most 0 for each of 2 tokens, got -inf"),
        (completion([5, 2], "[-1.0, -1e999]"), "of at most 0 for each of 2 tokens, got -inf"),
        (completion([5, 2], [-1.0, -(10**400)]), "of at most 0 for each of 2 tokens, got -1000"),
        (completion([5, 2], [-1.0, 0.5]), "of at most 0 for each of 2 tokens, got 0.5"),
        (completion([5, 2], [-1.0, None]), "of at most 0 for each of 2 tokens, got a NoneType"),
        (completion([5, 2], [-1.0, False]), "of at most 0 for each of 2 tokens, got False"),
        (completion([5, 2], f"[-1.0, {NESTED}]"), "of at most 0 for each of 2 tokens, got a list"),
        (completion([2, 5], [-1.0, -1.0]), "1 tokens behind it"),
        (completion([5, 6], [-1.0, -1.0]), "2 tokens that end with 6"),
        (completion(f"[5, {'9' * 5000}]", [-1.0, -1.0]), "expected token_ids and logprobs"),
    ],
)
def test_every_field_is_checked(hostile: Callable[[Script], HostileServer], body: str | bytes, said: str) -> None:
    with pytest.raises(EngineError, match=r"^rollout engine http://127\.0\.0\.1:\d+: expected") as caught:
        asked(hostile(says(body)).address)
    assert said in str(caught.value)
    assert not isinstance(caught.value, EngineUnavailableError), "asking again would not help"
    assert len(str(caught.value)) < 1200
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "models",
    [
        *("", "null", "[]", '{"data": null}', '{"data": [3]}', '{"data": [{"parent": "x"}]}', DEEP),
        *('{"data": [{"id": 3}]}', '{"data": [{"id": "a", "max_model_len": "5"}]}', '{"data": [{}]}'),
        *('{"data": [{"id": "a", "max_model_len": NaN}]}', '{"data": [{"id": "a", "max_model_len": true}]}'),
    ],
)
def test_the_list_of_models_is_checked(hostile: Callable[[Script], HostileServer], models: str) -> None:
    with pytest.raises(EngineError, match=r"expected vLLM's list of models, got b'"):
        VllmServer(hostile(says(models)).address, TIMEOUT_SEC, 64).begin()


@pytest.mark.parametrize("status", [b"301 Moved", b"307 Temporary Redirect"])
def test_redirections_are_not_followed(hostile: Callable[[Script], HostileServer], status: bytes) -> None:
    other = hostile(says(completion([5, 2], [-1.0, -1.0])))
    moved = b"HTTP/1.1 %s\r\nLocation: %s/v1/completions\r\nContent-Length: 0\r\n\r\n" % (
        status,
        other.address.encode(),
    )
    with pytest.raises(EngineError, match=f"got status {status[:3].decode()}"):
        asked(hostile(lambda connection: connection.sendall(moved)).address)
    assert other.num_requests == 0


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


@pytest.mark.parametrize(
    "script",
    [
        lambda connection: None,
        reset,
        lambda connection: connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n{"),
        lambda connection: connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"),
        lambda connection: connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzzz\r\n{}\r\n"),
        lambda connection: connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n{}\r\n"),
        lambda connection: connection.sendall(b"\x00\xff\x1b[2J" * 2000),
        lambda connection: connection.sendall(b"HTTP/1.1 99999 No\r\n\r\n"),
        says("busy", b"503 Busy"),
        says("busy", b"429 Busy"),
    ],
    ids=["closed", "reset", "cut", "cut chunk", "no length", "negative length", "noise", "status", "503", "429"],
)
def test_what_may_be_better_the_next_time(hostile: Callable[[Script], HostileServer], script: Script) -> None:
    with pytest.raises(EngineUnavailableError, match="rollout engine http") as caught:
        asked(hostile(script).address)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("wrong", ["tells other log-probabilities", "keeps the first adapter"])
def test_an_engine_that_is_right_at_the_start_and_wrong_later_is_refused(server: FakeVllmServer, wrong: str) -> None:
    """It passes the start-up test and a window; the second one is undone and can be made again."""
    config = EnvConfig(
        windows=3, hold_window=2, num_rollouts=4, max_new_tokens=24, probe_size=4, probe_accuracy_every=0
    ).replace(rollout_engine=server.address, learning_rate=0.02)
    one, half = Population(config), np.array([[0.5]])
    one.reset(0, 3)
    one.window(half)
    state = one.snapshot(0)
    server.brain.vice = wrong
    with pytest.raises(EngineError, match=r"to 0\.1 nats a token \(engine_tolerance\), got a mean difference of"):
        one.window(half)
    assert torch.equal(one.snapshot(0).adapter, state.adapter)
    assert len(one.runs[0].rows) == 1
    server.brain.vice = ""
    assert one.window(half)[0]["engine/log_prob_difference"] < 1e-3
