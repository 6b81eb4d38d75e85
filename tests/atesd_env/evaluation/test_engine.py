"""Evaluations whose answers come from another rollout engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from atesd.commands.cli import main
from atesd_env.config import preset
from atesd_env.student.adapters import AdapterStack
from atesd_env.student.loading import load_student
from tests.atesd_env.rollouts.engines.fake_engines import FakeVllmServer

PROBLEMS, SAMPLES = 3, 4
START_UP = 32
"""Requests of the start-up test: four prompts twice, with one adapter under three seeds and with another under one."""


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that makes another student of the base."""
    config = preset("ATESD-Tiny-v0")
    stack = AdapterStack(load_student(config).model, 1, config.lora_r, config.lora_alpha, config.lora_targets)
    with torch.no_grad():
        stack.flat.copy_(0.3 * torch.randn(stack.flat.shape, generator=torch.Generator().manual_seed(5)))
    folder = tmp_path_factory.mktemp("adapter")
    stack.save(0, folder, "tiny")
    return folder


ARGUMENTS = (
    *("--benchmark", "heldout", "--max-problems", str(PROBLEMS), "--k", str(SAMPLES), "--batch", "5", "--quiet"),
    *("--sampling", "env", "--sampling-tokens", "40", "--sampling-temperature", "1.6"),
)


def evaluate(out: Path, adapter: Path, *more: str) -> list[dict[str, Any]]:
    main(["evaluate", *ARGUMENTS, "--out", str(out), "--adapter", f"one={adapter}", *more])
    return [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]


def by_server(server: FakeVllmServer) -> tuple[str, str]:
    return "--rollout-engine", server.address


def test_greedy_answers_are_the_own_loops(server: FakeVllmServer, adapter: Path, tmp_path: Path):
    """Base and adapter alike: each gets the engine that it should, in every batch."""
    greedy = ("--sampling-temperature", "0")
    own = evaluate(tmp_path / "own", adapter, *greedy)
    theirs = evaluate(tmp_path / "theirs", adapter, *greedy, *by_server(server))
    assert theirs == own
    assert len(own) == 2 * PROBLEMS * SAMPLES
    texts = {
        name: [row["text"] for row in own if (row["adapter"] == "base") == (name == "base")] for name in ("base", "one")
    }
    assert texts["base"] != texts["one"], "an adapter that changes nothing would prove nothing"


def test_samples_have_seeds_of_their_own_whatever_the_batch(server: FakeVllmServer, adapter: Path, tmp_path: Path):
    rows = evaluate(tmp_path / "first", adapter, *by_server(server))
    first = rows[:SAMPLES]
    assert len({row["text"] for row in first}) > 1, "samples of one problem differ"
    assert evaluate(tmp_path / "again", adapter, *by_server(server), "--batch", "7") == rows
    assert evaluate(tmp_path / "more", adapter, *by_server(server), "--k", "5")[:SAMPLES] == first
    base, one = server.brain.seeds[START_UP : START_UP + 12], server.brain.seeds[START_UP + 12 : START_UP + 24]
    assert sorted(base) == sorted(one), "base and adapter answer with the same random numbers"
    assert len(set(base)) == 12


def test_an_engine_that_ignores_adapters_never_answers(
    server: FakeVllmServer, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    server.brain.vice = "ignores adapters"
    with pytest.raises(SystemExit):
        evaluate(tmp_path / "out", adapter, *by_server(server))
    assert "it ignores the adapter" in capsys.readouterr().err
    assert (tmp_path / "out" / "samples.jsonl").read_text() == ""


def test_an_engine_that_ignores_adapters_later_is_found_out(
    server: FakeVllmServer, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    complete, answered = server.complete, []

    def forgetting(body: dict[str, Any]) -> Any:
        answered.append(body)
        server.brain.vice = "ignores adapters" if len(answered) > START_UP else ""
        return complete(body)

    server.complete = forgetting  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        evaluate(tmp_path / "out", adapter, *by_server(server), "--k", "1", "--sampling-tokens", "8")
    assert "over a batch, though it passed its start-up test" in capsys.readouterr().err
    kept = [json.loads(line)["adapter"] for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    assert kept == ["base"] * PROBLEMS


def test_an_engine_that_dies_loses_no_sample(
    server: FakeVllmServer, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    whole = evaluate(tmp_path / "whole", adapter, *by_server(server))
    arguments = ("--engine-retries", "0")
    complete, answered = server.complete, []

    def dying(body: dict[str, Any]) -> Any:
        answered.append(body)
        return None if len(answered) > START_UP + 13 else complete(body)

    server.complete = dying  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        evaluate(tmp_path / "broken", adapter, *by_server(server), *arguments)
    assert "--resume goes on from there" in capsys.readouterr().err
    kept = (tmp_path / "broken" / "samples.jsonl").read_text().splitlines()
    assert 0 < len(kept) < len(whole)
    server.complete = complete  # type: ignore[method-assign]
    assert evaluate(tmp_path / "broken", adapter, *by_server(server), "--resume") == whole


def test_samples_of_two_engines_are_not_mixed(
    server: FakeVllmServer, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    evaluate(tmp_path / "own", adapter)
    with pytest.raises(SystemExit):
        evaluate(tmp_path / "own", adapter, *by_server(server), "--resume")
    assert "--rollout-engine (None there, 'vllm' here)" in capsys.readouterr().err
