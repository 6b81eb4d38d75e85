"""Rollout engines: the own loop's bits, and engines that speak vLLM's protocol, true ones and ones that cheat.

The fake engines (fake_engines.py) sample with this package's decode loop behind the real protocols: an HTTP server with vLLM's
endpoints, and a module that stands in for `vllm`.
"""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from atesd.commands.cli import main
from atesd_env.config import EnvConfig
from atesd_env.envs.columns import COLUMNS, ENGINE_COLUMNS, HEALTH_COLUMNS
from atesd_env.errors import ConfigError, EngineError, EngineUnavailableError
from atesd_env.files.run_folder import read_rows
from atesd_env.population.population import Population
from atesd_env.rollouts.engines.completions import Completion, check_completion
from atesd_env.rollouts.engines.engine import OwnEngine
from atesd_env.rollouts.engines.vllm_server import VllmServer
from atesd_env.rollouts.sampling import SamplingSpec, generate
from atesd_env.student.generators import torch_stream
from tests.atesd_env.rollouts.engines.fake_engines import Brain, FakeVllmServer

HALF = np.array([[0.5]])


@pytest.fixture
def config() -> EnvConfig:
    return EnvConfig(windows=3, hold_window=2, num_rollouts=4, max_new_tokens=24, probe_size=4, probe_accuracy_every=0)


@pytest.fixture
def population(config: EnvConfig, server: FakeVllmServer) -> Population:
    """One student whose rollouts come from the fake server; its start-up test is not made yet."""
    one = Population(config.replace(rollout_engine=server.address))
    one.reset(0, 3)
    return one


def without_start_up_test(population: Population) -> Population:
    """Passes over the start-up test, which has tests of its own."""
    population.engine.difference = 0.0  # type: ignore[attr-defined]
    return population


def start_up_test(population: Population) -> float:
    """Makes the start-up test with the probe's prompts; returns the mean difference."""
    instance = population.instances[0]
    prompts = [instance.builder.student_prompt(problem) for problem in instance.probe.problems]
    difference: float = population.engine.test(  # type: ignore[attr-defined]
        population.student, population.adapters, prompts, population.sampling
    )
    return difference


# The own engine


def test_the_own_engine_gives_the_rollouts_that_seeds_have_always_given(config: EnvConfig):
    """The uniforms of update u come from the stream (seed, "rollout", u), one row a rollout: what a seed gives stays."""
    own = Population(config, 2)
    for index in range(2):
        own.reset(index, 10 + index)
    prompts = [own.instances[0].builder.student_prompt(problem) for problem in own.instances[0].probe.problems] * 2

    def streams() -> list[torch.Generator]:
        return [torch_stream(10 + index, "rollout", 5) for index in range(2)]

    sampled = OwnEngine().sample(own.student, own.adapters, prompts, own.sampling, [0, 1], streams())
    uniforms = torch.cat([torch.rand(4, config.max_new_tokens, generator=generator) for generator in streams()])
    with own.adapters.use("student", [0, 1]):
        wanted = generate(own.student, prompts, own.sampling, uniforms, 2)
    assert torch.equal(sampled.completion_ids, wanted.completion_ids)
    assert sampled.token_log_probs is None


def test_the_own_engine_adds_no_columns(config: EnvConfig):
    own = Population(config)
    own.reset(0, 3)
    (row,) = own.window(HALF)
    assert list(row) == [column.name for column in (*COLUMNS, *HEALTH_COLUMNS)]


# A server


def test_a_server_samples_and_its_log_probabilities_agree(population: Population, server: FakeVllmServer):
    rows = [population.window(HALF)[0] for _ in range(2)]
    for row in rows:
        assert list(row) == [column.name for column in (*COLUMNS, *HEALTH_COLUMNS, *ENGINE_COLUMNS)]
        assert row["engine/log_prob_difference"] < 1e-4
        assert row["engine/log_prob_difference"] <= row["engine/log_prob_difference_max"] < 1e-3
        assert row["engine/importance_weight"] == 1.0
        assert row["engine/capped_rate"] == 0.0
    assert rows[0]["probe/nll"] != rows[1]["probe/nll"]
    assert len(server.adapters) == 1, "earlier adapters are unloaded"
    population.close()
    assert not server.adapters
    assert not list(population.engine.engine._folder.iterdir()), "nothing that was written for the engine is left"


def test_the_same_seed_gives_the_same_rows_and_every_request_has_a_seed_of_its_own(
    population: Population, server: FakeVllmServer
):
    without_start_up_test(population)
    first = population.window(HALF)
    seeds = list(server.brain.seeds)
    population.reset(0, 3)
    again = population.window(HALF)
    assert first == again
    assert sorted(server.brain.seeds[len(seeds) :]) == sorted(seeds)
    assert len(set(seeds)) == len(seeds) == 8
    population.reset(0, 4)
    assert population.window(HALF) != first


def test_every_update_hands_over_the_adapter_under_a_new_name(
    population: Population, server: FakeVllmServer, monkeypatch: pytest.MonkeyPatch
):
    loaded: list[tuple[str, torch.Tensor]] = []
    read = server.brain.read

    def watched(directory: str) -> torch.Tensor:
        loaded.append((Path(directory).name, read(directory)))
        return loaded[-1][1]

    monkeypatch.setattr(server.brain, "read", watched)
    without_start_up_test(population).window(HALF)
    assert len({name for name, _ in loaded}) == len(loaded) == 2
    assert not torch.equal(loaded[0][1], loaded[1][1])


def test_several_students_are_sampled_each_from_its_own_adapter(config: EnvConfig, server: FakeVllmServer):
    pair = Population(config.replace(rollout_engine=server.address, hold_window=1), 2)
    for index in range(2):
        pair.reset(index, index)
    assert start_up_test(pair) < 1e-4, "in it the two have different adapters"
    for row in pair.window(np.array([[0.0], [1.0]])):
        assert row["engine/log_prob_difference"] < 1e-4


def test_a_twin_shares_the_engine(population: Population):
    twin = without_start_up_test(population).twin(1)
    assert twin.engine is population.engine
    twin.restore(0, population.snapshot(0))
    assert twin.window(HALF)[0]["engine/log_prob_difference"] < 1e-4


# The start-up test


@pytest.mark.parametrize(
    ("vice", "said"),
    [
        ("ignores adapters", "it ignores the adapter"),
        ("keeps the first adapter", "earlier adapter"),
        ("ignores seeds", "ignores the seed"),
        ("has one seed", "ignores the seed"),
        ("tells other log-probabilities", "log-probabilities of another kind"),
        ("tells no log-probabilities", "a log-probability of at most 0 for each"),
        ("says other tokens", "expected token ids in 0"),
        ("says too much", "(max_new_tokens)"),
    ],
)
def test_an_engine_that_cheats_is_caught_before_the_first_update(
    population: Population, server: FakeVllmServer, vice: str, said: str
):
    """Seeds 0 and 1 of the test; that honest answers of 8 rows coincide at temperature 2 has odds below 1e-6."""
    server.brain.vice = vice
    adapter = population.adapters.flat.clone()
    with pytest.raises(EngineError, match="rollout engine http") as caught:
        population.window(HALF)
    assert said in str(caught.value)
    assert not isinstance(caught.value, EngineUnavailableError), "asking again would not help"
    assert torch.equal(population.adapters.flat, adapter)
    assert not population.runs[0].rows
    server.brain.forget()
    assert population.window(HALF)[0]["window"] == 1, "the same window, once the engine is honest"


def test_the_start_up_test_leaves_the_students_and_their_rows_as_they_were(population: Population, config: EnvConfig):
    adapter = population.adapters.flat.clone()
    assert 0 <= start_up_test(population) < 1e-4
    assert torch.equal(population.adapters.flat, adapter)
    with_test = population.window(HALF)
    without_start_up_test(population).reset(0, 3)
    assert population.window(HALF) == with_test


def test_one_prompt_is_tested_as_often_as_many(config: EnvConfig, server: FakeVllmServer):
    """Four prompts twice, with one adapter under three seeds and with another under one: 32 requests, then the rollout."""
    one = Population(config.replace(rollout_engine=server.address, num_rollouts=1, hold_window=1))
    one.reset(0, 3)
    one.window(HALF)
    assert server.brain.num_asked == 32 + 1
    one.window(HALF)
    assert server.brain.num_asked == 32 + 2, "the test is made once"


def test_the_bare_base_is_sampled_without_an_adapter(population: Population, server: FakeVllmServer):
    population.adapters.flat.normal_()
    prompts = [population.instances[0].builder.student_prompt(population.instances[0].probe.problems[0])]
    greedy, streams = SamplingSpec(8, temperature=0.0), [torch_stream(0, "rollout")]
    own, theirs = (
        engine.sample(population.student, population.adapters, prompts, greedy, [], streams)
        for engine in (OwnEngine(), without_start_up_test(population).engine)
    )
    assert torch.equal(own.completion_ids, theirs.completion_ids)
    assert server.brain.first is None, "nothing was handed over"
    with population.adapters.use("student", [0]):
        assert not torch.equal(generate(population.student, prompts, greedy).completion_ids, own.completion_ids)


# Dead and silent engines


def test_requests_that_failed_are_asked_again_and_nothing_changes(population: Population, server: FakeVllmServer):
    without_start_up_test(population)
    wanted = population.window(HALF)
    population.reset(0, 3)
    server.failures = 3
    before = server.brain.num_asked
    assert population.window(HALF) == wanted
    assert server.brain.num_asked - before == 8, "what has arrived is not sampled again"


def test_a_server_that_was_started_anew_gets_the_adapter_again(population: Population, server: FakeVllmServer):
    without_start_up_test(population)
    complete, calls = server.complete, []

    def restarting(body: dict[str, Any]) -> tuple[int, Any] | None:
        calls.append(body["model"])
        if len(calls) == 1:
            server.restart()
        return complete(body)

    server.complete = restarting  # type: ignore[method-assign]
    assert population.window(HALF)[0]["engine/log_prob_difference"] < 1e-4
    assert len(set(calls)) >= 3, "two updates, and a second name for what was lost"


def test_a_dead_engine_is_named_and_the_window_can_be_made_again(population: Population, server: FakeVllmServer):
    without_start_up_test(population)
    wanted = [population.window(HALF)[0] for _ in range(2)]
    population.reset(0, 3)
    population.window(HALF)
    state = population.snapshot(0)
    update, complete, updates = population.learner.update, server.complete, []

    def counted(*arguments: Any) -> Any:
        updates.append(1)
        server.complete = lambda _: None  # type: ignore[method-assign]  # it dies after the window's first update
        return update(*arguments)

    population.learner.update = counted  # type: ignore[method-assign]
    with pytest.raises(
        EngineUnavailableError, match=r"Asked 3 times \(engine_retries=2\) .* 4 rollouts, but 0 arrived"
    ):
        population.window(HALF)
    assert len(updates) == 1
    assert torch.equal(population.snapshot(0).adapter, state.adapter)
    assert population.runs[0].num_updates == 2
    assert len(population.runs[0].rows) == 1, "no row is lost, none is added"
    population.learner.update = update  # type: ignore[method-assign]
    server.complete = complete  # type: ignore[method-assign]
    assert population.window(HALF)[0] == wanted[1]


def test_a_silent_server_is_given_up_after_the_time_out(population: Population, server: FakeVllmServer, config):
    server.deaf = True
    hasty = Population(config.replace(rollout_engine=server.address, engine_timeout_sec=0.2, engine_retries=1))
    hasty.reset(0, 3)
    with pytest.raises(EngineUnavailableError, match=r"within 0\.2 s \(engine_timeout_sec\)"):
        hasty.window(HALF)


def test_no_server_is_a_clear_error():
    with pytest.raises(EngineUnavailableError, match="expected a vLLM server, got ConnectionRefusedError"):
        VllmServer("http://127.0.0.1:9", 5.0, 100).begin()


def test_a_server_that_cannot_be_used_says_what_to_do(population: Population, server: FakeVllmServer):
    server.can_load = False
    with pytest.raises(EngineError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"):
        population.window(HALF)
    with pytest.raises(EngineError, match="--max-model-len 5000"):
        VllmServer(server.address, 5.0, 5000).begin()


def test_a_run_whose_server_died_keeps_its_rows_and_goes_on_at_another(
    brain: Brain, server: FakeVllmServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    fields = "--windows 3 --hold-window 1 --num-rollouts 2 --max-new-tokens 16 --probe-size 4 --probe-accuracy-every 0"
    common = ["run", "--env", "ATESD-Tiny-v0", "--agent", "fixed:0.5", "--seeds", "1", *fields.split()]

    def run(folder: str, address: str, *more: str) -> int:
        try:
            main([*common, "--out", str(tmp_path / folder), "--rollout-engine", address, *more])
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    assert not run("whole", server.address)
    answer, num_loads = server.answer, []

    def dying(path: str, body: dict[str, Any]) -> tuple[int, Any] | None:
        num_loads.append(path == "/v1/load_lora_adapter")
        # Four loads for the start-up test's samples, then one for each window.
        return answer(path, body) if sum(num_loads) <= 4 + 2 else None

    server.answer = dying  # type: ignore[method-assign]
    assert run("cut", server.address) == 1
    assert "rollout engine" in capsys.readouterr().err
    assert len(rows_in(tmp_path / "cut")) == 2
    other = FakeVllmServer(brain)
    try:
        assert not run("cut", other.address, "--resume")
    finally:
        other.close()
    assert rows_in(tmp_path / "cut") == rows_in(tmp_path / "whole")


def rows_in(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows of the only run below a folder, without times."""
    (path,) = folder.rglob("trajectory.jsonl")
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in read_rows(path)]


# vLLM in process, played by a module


class FakeLoraRequest:
    def __init__(self, name: str, number: int, path: str) -> None:
        self.name, self.number, self.path = name, number, path


class FakeSamplingParams:
    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


@pytest.fixture
def vllm(brain: Brain, monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Modules in the place of vLLM's; ``calls`` is what was asked of it, ``on_generate`` what happens before it samples."""
    story = types.SimpleNamespace(calls=[], on_generate=lambda: None, options={}, can_sleep=True)

    class FakeLLM:
        def __init__(self, **options: Any) -> None:
            story.calls.append("start")
            story.options = options
            core = types.SimpleNamespace(shutdown=lambda: story.calls.append("shut down"))
            self.llm_engine = types.SimpleNamespace(engine_core=core)

        def sleep(self, level: int) -> None:
            story.calls.append(f"sleep {level}")

        def wake_up(self) -> None:
            story.calls.append("wake up")

        def generate(self, prompts: Any, parameters: Any, use_tqdm: bool, lora_request: Any) -> Any:
            story.calls.append("generate")
            story.on_generate()
            outputs = []
            for row, (prompt, asked) in enumerate(zip(prompts, parameters, strict=True)):
                handed = None if lora_request is None else brain.read(lora_request[row].path)
                spec = SamplingSpec(asked.max_tokens, asked.temperature, asked.top_p, asked.top_k)
                tokens, told = brain.answer(prompt["prompt_token_ids"], asked.seed, handed, spec)
                places = [
                    {token: types.SimpleNamespace(logprob=value)} for token, value in zip(tokens, told, strict=True)
                ]
                outputs.append(
                    types.SimpleNamespace(outputs=[types.SimpleNamespace(token_ids=tokens, logprobs=places)])
                )
            return outputs

    platform = types.SimpleNamespace(is_sleep_mode_available=lambda: story.can_sleep, is_cpu=lambda: True)
    modules: dict[str, dict[str, Any]] = {
        "vllm": {"LLM": FakeLLM, "SamplingParams": FakeSamplingParams, "__path__": []},
        "vllm.lora": {"__path__": []},
        "vllm.lora.request": {"LoRARequest": FakeLoraRequest},
        "vllm.platforms": {"current_platform": platform},
    }
    for name, members in modules.items():
        module = types.ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)
    return story


def in_process(config: EnvConfig, **changes: Any) -> Population:
    one = Population(config.replace(rollout_engine="vllm", **changes))
    one.reset(0, 3)
    return one


def test_vllm_in_process_sleeps_between_rollouts_where_the_device_can(config: EnvConfig, vllm):
    one = in_process(config)
    (row,) = without_start_up_test(one).window(HALF)
    assert row["engine/log_prob_difference"] < 1e-4
    assert vllm.calls == ["start", "generate", "sleep 1", "wake up", "generate", "sleep 1"]
    assert vllm.options["max_lora_rank"] == 8
    assert vllm.options["max_model_len"] == config.max_prompt_tokens + config.max_new_tokens
    one.close()
    assert vllm.calls[-1] == "shut down"
    vllm.calls.clear()
    vllm.can_sleep = False
    without_start_up_test(in_process(config)).window(HALF)
    assert vllm.calls[:3] == ["start", "generate", "generate"]


def test_vllm_in_process_passes_the_test(config: EnvConfig, vllm):
    one = in_process(config, engine_sleep=False)
    assert start_up_test(one) < 1e-4
    assert vllm.calls[:2] == ["start", "generate"]
    assert vllm.options["enable_lora"]


def test_vllm_that_hangs_or_dies_is_started_anew(config: EnvConfig, vllm):
    wanted = without_start_up_test(in_process(config)).window(HALF)
    released = threading.Event()
    failures: list[Callable[[], Any]] = [lambda: 1 / 0, lambda: released.wait(60)]

    def fail() -> None:
        if failures:
            failures.pop(0)()

    vllm.on_generate = fail
    one = without_start_up_test(in_process(config))
    vllm.calls.clear()
    backend = one.engine.engine.backend
    backend._config = backend._config.replace(engine_timeout_sec=2.0)
    try:
        assert one.window(HALF) == wanted
    finally:
        released.set()
    assert vllm.calls[:7] == ["start", "generate", "shut down", "start", "generate", "shut down", "start"]


@pytest.mark.parametrize(
    "output",
    [
        types.SimpleNamespace(outputs=[]),
        types.SimpleNamespace(outputs=[types.SimpleNamespace(token_ids=[5], logprobs=None)]),
        types.SimpleNamespace(outputs=[types.SimpleNamespace(token_ids=[5, 6], logprobs=[{5: None}])]),
        types.SimpleNamespace(outputs=[types.SimpleNamespace(token_ids=[5], logprobs=[{6: None}])]),
        types.SimpleNamespace(outputs=[types.SimpleNamespace(token_ids=None, logprobs=[])]),
        None,
    ],
)
def test_vllm_in_process_that_answers_something_else_is_named(config: EnvConfig, vllm, output: Any):
    one = without_start_up_test(in_process(config))
    backend = one.engine.engine.backend  # type: ignore[attr-defined]
    backend.begin()
    backend._engine.generate = lambda *_, **__: [output] * 4
    with pytest.raises(EngineError, match=r"^rollout engine vllm: expected tokens with their log-probabilities, got"):
        one.window(HALF)


def test_vllm_that_is_not_installed_is_a_clear_error(config: EnvConfig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("atesd_env.rollouts.engines.vllm_process.importlib.util.find_spec", lambda _: None)
    with pytest.raises(EngineError, match=r"pip install atesd-env\[vllm\]"):
        Population(config.replace(rollout_engine="vllm"))


# Answers, configuration


@pytest.mark.parametrize(
    ("tokens", "log_probs", "said"),
    [
        ([], [], "expected 1 to 4 tokens"),
        ([5] * 5, [-1.0] * 5, "expected 1 to 4 tokens"),
        ([5, -1, 5, 5], [-1.0] * 4, "token ids in 0..9, got -1"),
        ([5, True, 5, 5], [-1.0] * 4, "token ids in 0..9, got True"),
        ([5, 2], [-1.0], "(1 of them)"),
        ([5, 2], [-1.0, float("nan")], "a log-probability of at most 0"),
        ([5, 2], [-1.0, 0.5], "a log-probability of at most 0"),
        ([5, 2, 5, 5], [-1.0] * 4, "2 tokens behind it"),
        ([5, 6], [-1.0] * 2, "2 tokens that end with 6"),
    ],
)
def test_answers_that_were_not_sampled_as_asked_are_refused(tokens: list[int], log_probs: list[float], said: str):
    spec = SamplingSpec(4)
    check_completion(Completion([5, 2], [-1.0, -2.0]), spec, (2, 3), 10, "engine x")
    check_completion(Completion([5, 6, 7, 8], [-1.0] * 4), spec, (2, 3), 10, "engine x")
    with pytest.raises(EngineError, match=r"^engine x: expected") as caught:
        check_completion(Completion(tokens, log_probs), spec, (2, 3), 10, "engine x")
    assert said in str(caught.value)


@pytest.mark.parametrize("value", ["vlm", "localhost:8000", "ftp://host:1", "http://", "http://host:99999", ""])
def test_what_is_no_engine_is_refused(value: str):
    with pytest.raises(ConfigError, match=r'^rollout_engine: expected "own", "vllm" or the address'):
        EnvConfig(rollout_engine=value)


def test_engines_are_named_or_given_by_address():
    for value in ("own", "vllm", "http://localhost:8000", "https://host.example/prefix"):
        assert EnvConfig(rollout_engine=value).rollout_engine == value
    with pytest.raises(ConfigError, match="Did you mean 'vllm'"):
        EnvConfig(rollout_engine="vllmm")


def test_the_environment_lets_go_of_the_engine_when_it_is_closed(config: EnvConfig, vllm):
    env = gymnasium.make(
        "atesd_env:ATESD-Tiny-v0",
        rollout_engine="vllm",
        **{name: getattr(config, name) for name in ("hold_window", "num_rollouts", "max_new_tokens", "probe_size")},
    )
    env.reset(seed=0)
    without_start_up_test(env.unwrapped.population)
    _, _, _, _, info = env.step(env.action_space.sample())
    assert info["engine/capped_rate"] == 0.0
    env.close()
    assert vllm.calls[-1] == "shut down"
