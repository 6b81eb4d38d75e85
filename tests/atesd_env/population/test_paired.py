"""Students that meet the same problems: what is the same is made once, and each is what it is by itself."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atesd_env.config import EnvConfig
from atesd_env.distillation import update
from atesd_env.population import population as population_module
from atesd_env.population.paired import likenesses
from atesd_env.population.population import Population
from atesd_env.population.probe import Probe
from atesd_env.student.ranks import Ranks

RATIOS = np.array([[0.0], [1.0], [0.5], [1.0]])


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """How many rows reached the engine, and the teacher's passes over several students, call by call."""
    seen: dict[str, list[int]] = {"sampled": [], "read": []}
    answers_hidden, make_engine = update.answers_hidden, population_module.make_engine

    def read(student: Any, prompts: Any, answers: Any) -> list[Tensor]:
        seen["read"].append(len(prompts))
        return answers_hidden(student, prompts, answers)

    def counted(*arguments: Any) -> Any:
        engine = make_engine(*arguments)
        sample = engine.sample

        def sampled(student: Any, adapters: Any, prompts: Any, *others: Any) -> Any:
            seen["sampled"].append(len(prompts))
            return sample(student, adapters, prompts, *others)

        engine.sample = sampled  # type: ignore[method-assign]
        return engine

    monkeypatch.setattr(update, "answers_hidden", read)
    monkeypatch.setattr(population_module, "make_engine", counted)
    return seen


def make(config: EnvConfig, *seeds: int) -> Population:
    population = Population(config, len(seeds))
    for student, seed in enumerate(seeds):
        population.reset(student, seed)
    return population


def assert_equal_but_for_rounding(population: Population, student: int, alone: Population, at: int) -> None:
    for row, expected in zip(population.runs[student].rows, alone.runs[at].rows, strict=True):
        assert row["rollout/num_tokens"] == expected["rollout/num_tokens"]
        for name in ("student/loss", "student/grad_norm", "teacher/entropy", "probe/nll"):
            assert row[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-5), name
    ours, theirs = population.batches[student].rollouts, alone.batches[at].rollouts
    assert torch.equal(ours.completion_ids, theirs.completion_ids)
    assert float((population.adapters.flat[student] - alone.adapters.flat[at]).abs().mean()) < 1e-5


@pytest.mark.parametrize("changes", [{}, {"micro_batch_size": 3, "loss_horizon": 7}])
def test_what_branches_share_is_made_once_and_is_what_each_makes_alone(
    tiny_config: EnvConfig, rows: dict[str, list[int]], changes: dict[str, Any]
):
    """Two updates: in the first all are the same, in the second two of four, which are shown the same."""
    config = tiny_config.replace(**changes)
    together, alone = make(config, 3, 3, 3, 3), make(config, 3)
    before = alone.snapshot(0)
    together.window(RATIOS)
    assert rows == {"sampled": [4, 4 * 3], "read": [4 * 4, 4 * 4]}
    assert torch.equal(together.adapters.flat[1], together.adapters.flat[3])
    for student, ratio in enumerate(RATIOS[:3]):
        alone.restore(0, before)
        alone.window(ratio[None])
        assert_equal_but_for_rounding(together, student, alone, 0)
    assert len(rows["read"]) == 2


def test_other_seeds_and_other_instances_share_nothing(tiny_config: EnvConfig, rows: dict[str, list[int]]):
    population = Population(tiny_config, 3, instances=[{}, {}, {"learning_rate": 1e-4}])
    for student, seed in enumerate((3, 4, 3)):
        population.reset(student, seed)
    population.window(RATIOS[:3])
    assert rows == {"sampled": [4 * 3] * 2, "read": []}


@pytest.mark.parametrize("changes", [{"teacher": "ema"}, {"forward": "modules"}, {}])
def test_teachers_that_cannot_be_shared_read_by_themselves(
    tiny_config: EnvConfig, rows: dict[str, list[int]], changes: dict[str, Any]
):
    """Averages of their own, modules, several processes."""
    population = make(tiny_config.replace(**changes, hold_window=1), 3, 3)
    population.window(RATIOS[1:3])
    assert rows == {"sampled": [4], "read": [] if changes else [8]}
    population.learner.student = dataclasses.replace(population.student, ranks=Ranks(0, 2))
    batches = [(batch.rollouts, batch.shown) for batch in population.batches.values()]
    assert list(population.learner.teachers_hidden([0, 1], batches)) == [None, None]


def test_a_run_and_its_branches_ask_a_fixed_teacher_once(tiny_config: EnvConfig, monkeypatch: pytest.MonkeyPatch):
    """0.5 the run has asked before, 1 a branch does, for both."""
    asked: list[Any] = []
    log_probs = Probe._log_probs
    monkeypatch.setattr(
        Probe, "_log_probs", lambda probe, bank, *rest: asked.append(bank) or log_probs(probe, bank, *rest)
    )
    run = make(tiny_config.replace(hold_window=1), 3)
    run.window(RATIOS[2:3])
    branches = run.twin(2)
    for branch in range(2):
        branches.restore(branch, run.snapshot(0))
    asked.clear()
    branches.window(RATIOS[[2, 1]])
    run.window(RATIOS[1:2])
    assert asked.count(None) == 1


def test_hidden_states_that_wait_are_bounded(
    tiny_config: EnvConfig, rows: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
):
    """Room for two of five: two passes over two students each, and one by itself."""
    config = tiny_config.replace(hold_window=1)
    whole = make(config, *[3] * 5)
    whole.window(RATIOS[[0, 1, 2, 0, 1]])
    num_tokens, width = whole.runs[0].rows[0]["rollout/num_tokens"], whole.student.head_weight.shape[1]
    monkeypatch.setattr(update, "PASS_BYTES", 3 * num_tokens * width * 4 - 1)
    parts = make(config, *[3] * 5)
    parts.window(RATIOS[[0, 1, 2, 0, 1]])
    assert rows["read"] == [5 * 4, 2 * 4, 2 * 4]
    for student in range(5):
        assert_equal_but_for_rounding(parts, student, whole, student)


def test_adapters_are_alike_number_by_number():
    """The second has the sum of the first, in another order; the fourth is the first's copy in another lot."""
    adapters = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0], [1.0, 2.0]])
    assert likenesses([[0, 1, 2], [3]], adapters) == {0: 0, 1: 1, 2: 0, 3: 3}
