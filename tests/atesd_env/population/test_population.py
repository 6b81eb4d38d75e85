"""Several students side by side: each learns what it would have learned alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from atesd_env.config import EnvConfig
from atesd_env.population.population import Population
from atesd_env.streams import stream_seed
from atesd_env.student.generators import torch_stream

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


@pytest.mark.parametrize("fields", [{"products": "onednn"}, {"lora_merge": True}])
def test_a_student_of_faster_products_is_what_it_is_alone(tiny_config: EnvConfig, fields: dict[str, Any]):
    """Its products and its looks by problem, which share what prompts have in common; near to what BLAS makes of it, adapters apart."""
    pair = Population(tiny_config.replace(**fields), num_students=2)
    alone, by_blas = Population(pair.config), Population(tiny_config)
    pair.reset(0, 3)
    looks, rows = [], []
    for students, student in ((pair, 1), (alone, 0), (by_blas, 0)):
        students.reset(student, 5)
        rows.append(students.window(RATIOS[1 - student : 2])[student])
        looks.append(students.exposure_scores(student, np.array([0.0, 0.5, 1.0]), by_problem=True))
    for row, look in zip(rows[1:], looks[1:], strict=True):
        for name in ("student/loss", "student/grad_norm", "probe/nll"):
            assert rows[0][name] == pytest.approx(row[name], rel=1e-3, abs=1e-5), name
        np.testing.assert_allclose(looks[0].grounded, look.grounded, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(looks[0].mismatch, look.mismatch, rtol=1e-3, atol=1e-5)


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


def test_the_grounded_score_is_that_of_the_teacher_as_it_is_after_each_window(tiny_config: EnvConfig):
    """At one ratio throughout: an average that moved has another score, which must not be the remembered one."""
    population = Population(tiny_config.replace(teacher="ema", ema_decay=0.5))
    population.reset(0, 1)
    probe, scores = population.instances[0].probe, []
    for _ in range(2):
        (row,) = population.window(np.array([[0.5]]))
        ratios = [0.5] * len(probe.problems)
        now, base = (
            probe.grounded(0, ratios, tiny_config.exposure, bank, is_fixed=False)
            for bank in (population.learner.teacher_bank, None)
        )
        assert row["probe/grounded"] == now != base
        asked = population.exposure_scores(0, np.array([0.5]), with_mismatch=False)
        assert asked.grounded == pytest.approx(now, rel=1e-12)
        scores.append(now)
    assert scores[0] != scores[1]


def test_every_update_draws_its_rollouts_from_a_stream_of_its_own(
    tiny_config: EnvConfig, monkeypatch: pytest.MonkeyPatch
):
    """With one and the same stream, every update would sample with the same random numbers."""
    asked: list[tuple[object, ...]] = []

    def spy(*key: object) -> torch.Generator:
        asked.append(key)
        return torch_stream(*key)

    population = Population(tiny_config, num_students=2)
    for student, seed in enumerate((3, 4)):
        population.reset(student, seed)
    monkeypatch.setattr("atesd_env.population.population.torch_stream", spy)
    for _ in range(2):
        population.window(RATIOS[:2])
    rollouts = [key for key in asked if key[1] == "rollout"]
    assert rollouts == [(seed, "rollout", update) for update in range(4) for seed in (3, 4)]


def test_an_update_trains_on_the_next_problems_of_its_runs_own_order(tiny_config: EnvConfig):
    population = Population(tiny_config, num_students=2)
    for student, seed in enumerate((3, 4)):
        population.reset(student, seed)
    task, size = population.instances[0].task, tiny_config.num_rollouts
    for window in range(2):
        population.window(RATIOS[:2])
        last = 2 * window + 1  # two updates in a window
        for student, seed in enumerate((3, 4)):
            order = stream_seed(seed, "problems")
            expected = [task.training_problem(order, last * size + offset).id for offset in range(size)]
            assert [sample.problem_id for sample in population.samples(student, size)] == expected
    ids = [[population.training_problem(student, number).id for number in range(8)] for student in range(2)]
    assert ids[0] != ids[1], "another seed, another order"


def test_progress_is_counted_from_the_last_measurement(tiny_config: EnvConfig):
    """Not from the first: what was learned in one window would be rewarded in all that follow."""
    population = Population(tiny_config.replace(progress="signed"))
    population.reset(0, 1)
    nll = [population.runs[0].initial_nll]
    for _ in range(3):
        (row,) = population.window(np.array([[0.5]]))
        nll.append(row["probe/nll"])
        assert row["reward/progress"] == nll[-2] - nll[-1]
    assert nll[0] - nll[-1] != nll[-2] - nll[-1]


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
