"""Several students side by side: each learns what it would have learned alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from atesd_env.config import EnvConfig
from atesd_env.population.population import Population

RATIOS = np.array([[0.0], [1.0], [0.5]])
SEEDS = (3, 4, 3)


@pytest.fixture
def trio(tiny_config: EnvConfig) -> Population:
    population = Population(tiny_config, num_students=3)
    for student, seed in enumerate(SEEDS):
        population.reset(student, seed)
    return population


def test_students_differ_by_seed_and_by_ratio(trio: Population):
    rows = trio.window(RATIOS)
    adapters = trio.adapters.flat
    assert not torch.equal(adapters[0], adapters[1])
    assert not torch.equal(adapters[0], adapters[2]), "same seed, another ratio"
    assert len({row["student/loss"] for row in rows}) == 3


def test_each_student_learns_what_it_learns_alone(trio: Population, tiny_config: EnvConfig):
    """Batches of other sizes round differently, so to float tolerance; greedy sampling would hide a leaked random stream."""
    rows = [trio.window(RATIOS) for _ in range(2)]
    alone = Population(tiny_config)
    for student, seed in enumerate(SEEDS):
        alone.reset(0, seed)
        for window in range(2):
            (row,) = alone.window(RATIOS[student : student + 1])
            together = rows[window][student]
            assert row["rollout/num_tokens"] == together["rollout/num_tokens"]
            for name in ("student/loss", "student/mismatch", "student/grad_norm", "probe/nll", "probe/grounded"):
                assert together[name] == pytest.approx(row[name], rel=1e-3, abs=1e-5), name
        # Adam divides by the gradient's size, so that an entry whose gradient is rounding noise may move by its step size.
        difference = (trio.adapters.flat[student] - alone.adapters.flat[0]).abs()
        assert float(difference.mean()) < 1e-5
        assert float(difference.max()) < 4 * tiny_config.learning_rate


def test_a_subset_moves_and_the_others_stay(trio: Population):
    before = trio.adapters.flat.clone()
    (row,) = trio.window(RATIOS[1:2], students=[1])
    assert row["window"] == 1
    assert [len(run.rows) for run in trio.runs] == [0, 1, 0]
    assert torch.equal(trio.adapters.flat[[0, 2]], before[[0, 2]])
    assert not torch.equal(trio.adapters.flat[1], before[1])


def test_a_student_that_breaks_does_not_stop_the_others(trio: Population):
    trio.adapters.flat[1].fill_(float("nan"))
    rows = trio.window(RATIOS)
    assert trio.runs[1].broken is not None
    assert "student 1" in trio.runs[1].broken
    assert trio.runs[0].broken is trio.runs[2].broken is None
    assert rows[1]["student/loss"] is None
    assert rows[0]["student/loss"] > 0
    assert torch.isfinite(trio.adapters.flat[[0, 2]]).all()


def test_a_snapshot_moves_to_another_slot(trio: Population):
    trio.window(RATIOS)
    state = trio.snapshot(1)
    trio.restore(0, state)
    assert torch.equal(trio.adapters.flat[0], trio.adapters.flat[1])
    first, second = trio.window(np.array([[0.3], [0.3]]), students=[0, 1])
    for name in ("student/loss", "student/mismatch", "rollout/num_tokens", "probe/nll", "reward/total"):
        assert first[name] == pytest.approx(second[name], rel=1e-3, abs=1e-6), name
    assert trio.runs[0].num_updates == trio.runs[1].num_updates


def test_averaging_teacher_changes_the_run(tiny_config: EnvConfig):
    rows = []
    for teacher in ("initial", "ema"):
        population = Population(tiny_config.replace(teacher=teacher, ema_decay=0.0))
        population.reset(0, 1)
        rows.append(population.window(np.array([[0.5]]))[0])
    # A teacher without memory is the student itself with another prompt: from the second update on it differs from the base.
    assert rows[0]["student/mismatch"] != rows[1]["student/mismatch"]
    assert rows[0]["probe/grounded"] != rows[1]["probe/grounded"]


def test_start_from_an_adapter_is_the_teacher_too(tiny_config: EnvConfig, tmp_path):
    trained = Population(tiny_config)
    trained.reset(0, 1)
    trained.window(np.array([[0.5]]))
    trained.adapters.save(0, tmp_path / "adapter", base_model="tiny")
    nll = trained.instances[0].probe.nll(0)
    again = Population(tiny_config.replace(adapter=str(tmp_path / "adapter"), exposure="none", hold_window=1))
    again.reset(0, 2)
    assert again.runs[0].initial_nll == pytest.approx(nll, rel=1e-5)
    (row,) = again.window(np.array([[0.5]]))
    assert row["student/mismatch"] < 1e-6, "the initial policy is the base with the starting adapter"
