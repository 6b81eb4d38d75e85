"""Students in several processes: each as it is in one, and what happens when a process ends."""

from __future__ import annotations

import pickle
import signal
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from atesd_env.config import EnvConfig, preset
from atesd_env.errors import AtesdError, ConfigError
from atesd_env.population.environments import TeacherExposureVectorEnv
from atesd_env.population.population import Population
from atesd_env.population.workers import ParallelPopulation

CLOSE = {"rtol": 1e-3, "atol": 1e-5}
"""Batches of other sizes round differently; the tolerance of the population's own tests."""


@pytest.fixture(scope="module")
def short_config() -> EnvConfig:
    fields = {"num_rollouts": 4, "probe_size": 6, "max_new_tokens": 40, "probe_accuracy_every": 1}
    return preset("ATESD-Tiny-v0", windows=2, hold_window=1, **fields)


@pytest.fixture(scope="module")
def spread(short_config: EnvConfig):
    """Three students in two processes, of two and one; every test begins with their resets, and the last one kills a process."""
    population = ParallelPopulation(short_config, 3, 2)
    yield population
    population.close()


def test_students_are_those_of_one_process(spread: ParallelPopulation, short_config: EnvConfig, tmp_path: Path):
    """Rows, statistics, samples and adapters after two windows, the second without the first student."""
    together = Population(short_config, 3)
    for students in (spread, together):
        for index in range(3):
            students.reset(index, seed=10 + index)
        students.window(np.array([[0.0], [0.5], [1.0]]))
        students.window(np.array([[0.25], [0.75]]), [1, 2])
    assert [len(run.rows) for run in spread.runs] == [1, 2, 2]
    for index in range(3):
        ours, theirs = spread.runs[index], together.runs[index]
        assert (ours.seed, ours.num_updates, ours.broken) == (theirs.seed, theirs.num_updates, None)
        for our_row, their_row in zip(ours.rows, theirs.rows, strict=True):
            assert our_row.keys() == their_row.keys()
            for name, value in their_row.items():
                if value is None:
                    assert our_row[name] is None
                else:
                    np.testing.assert_allclose(our_row[name], value, **CLOSE, err_msg=name)
        snapshots = [students.snapshot(index) for students in (spread, together)]
        torch.testing.assert_close(snapshots[0].adapter, snapshots[1].adapter, rtol=0, atol=1e-3)
        assert spread.samples(index, 1)[0].problem == together.samples(index, 1)[0].problem
    scores, expected = (students.exposure_scores(2, np.array([0.0, 1.0]), True, 2) for students in (spread, together))
    np.testing.assert_allclose(scores.mismatch, expected.mismatch, **CLOSE)
    assert not torch.allclose(spread.snapshot(0).adapter, spread.snapshot(1).adapter)
    assert all(seconds > 0 for seconds in spread.timings.values())
    spread.save_adapter(2, tmp_path / "adapter")
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    total = sum(float(tensor.abs().sum()) for tensor in saved.values())
    assert total == pytest.approx(float(spread.snapshot(2).adapter.abs().sum()), rel=1e-5)


def test_snapshots_move_between_processes_and_repeat_bit_for_bit(spread: ParallelPopulation):
    for index in range(3):
        spread.reset(index, seed=index)
    spread.window(np.full((3, 1), 0.5))
    states = [spread.snapshot(index) for index in range(3)]
    first = spread.window(np.array([[0.2], [0.4], [0.9]]))
    adapters = [spread.snapshot(index).adapter for index in range(3)]
    for index, state in enumerate(states):
        spread.restore(index, state)
    assert spread.window(np.array([[0.2], [0.4], [0.9]])) == first
    assert all(torch.equal(spread.snapshot(index).adapter, adapters[index]) for index in range(3))
    spread.restore(2, states[0])  # from the first process into the second
    assert spread.runs[2].seed == 0
    (moved,) = spread.window(np.array([[0.2]]), [2])
    np.testing.assert_allclose(moved["probe/nll"], first[0]["probe/nll"], **CLOSE)


def test_a_process_that_dies_is_named_and_the_others_end(spread: ParallelPopulation):
    for index in range(3):
        spread.reset(index, seed=index)
    processes = [worker.child.process for worker in spread._workers]
    processes[1].send_signal(signal.SIGKILL)
    with pytest.raises(AtesdError, match=r"students \[2\].*exit code -9"):
        spread.window(np.full((3, 1), 0.5))
    assert all(process.poll() is not None for process in processes)
    with pytest.raises(AtesdError, match="make a new environment"):
        spread.window(np.full((3, 1), 0.5))


def test_an_error_of_a_process_reaches_the_caller_with_its_place(short_config: EnvConfig):
    with pytest.raises(AtesdError, match="no-such-student") as caught:
        ParallelPopulation(short_config.replace(student="./no-such-student"), 1, 1)
    assert any("in the process of a worker" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("workers", [0, 4, True, 1.5])
def test_a_wrong_number_of_workers_is_refused_before_anything_is_loaded(workers: Any):
    with pytest.raises(ConfigError, match="workers: expected between 1 and 3"):
        gymnasium.make_vec("ATESD-Tiny-v0", num_envs=3, vectorization_mode="vector_entry_point", workers=workers)
    with pytest.raises(ConfigError, match="workers: expected between 1 and 1"):
        gymnasium.make_vec("ATESD-Toy-v0", num_envs=3, vectorization_mode="vector_entry_point", workers=2)


def test_the_vector_environment_with_workers(short_config: EnvConfig):
    """Reset, an episode, autoreset, pickling and closing, beside the same environment in one process."""
    alone = TeacherExposureVectorEnv(short_config, 2)
    spread = TeacherExposureVectorEnv(short_config, 2, workers=2)
    actions = np.array([[0.1], [0.9]], dtype=np.float32)
    for env in (alone, spread):
        env.reset(seed=5)
    for _ in range(3):  # the last one starts new runs
        ours, theirs = spread.step(actions), alone.step(actions)
        np.testing.assert_allclose(ours[0], theirs[0], **CLOSE)
        np.testing.assert_allclose(ours[1], theirs[1], **CLOSE)
        np.testing.assert_array_equal(ours[2:4], theirs[2:4])
    assert [run.seed for run in spread.population.runs] == [run.seed for run in alone.population.runs]
    copy = pickle.loads(pickle.dumps(spread))
    again, original = copy.step(actions), spread.step(actions)
    np.testing.assert_array_equal(again[0], original[0])
    processes = [worker.child.process for worker in spread.population._workers]
    for env in (spread, copy, alone):
        env.close()
        env.close()
    assert all(process.poll() is not None for process in processes)


def test_processes_end_with_the_object_that_started_them():
    population = ParallelPopulation(preset("ATESD-Tiny-v0", probe_size=2), 1, 1)
    process = population._workers[0].child.process
    assert process.poll() is None
    del population
    assert process.wait(timeout=30) == -signal.SIGKILL
