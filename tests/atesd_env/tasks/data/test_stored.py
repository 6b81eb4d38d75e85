"""Data on disk: the same problems in the same order as from memory, from any source, and little memory."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import atesd_env  # noqa: F401  (registers the ids)
from atesd_env.errors import DataError
from atesd_env.student.loading import TINY_DIRECTORY
from atesd_env.tasks.base import Problem
from atesd_env.tasks.math import MathTask

DATA = Path(__file__).parents[3] / "data"


def everything(task: MathTask) -> list[Problem]:
    return [
        *(task.training_problem(3, index) for index in range(2 * task.num_training_problems)),
        *task.probe_problems(4),
        *task.heldout_problems(2),
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def as_parquet(path: Path) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="the package 'pyarrow' is not installed")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(read("math_sample.jsonl")), path, row_group_size=6)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "hub"])
def test_the_same_problems_as_from_memory(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source: Any = DATA / "math_sample.jsonl"
    if kind == "parquet":
        source = as_parquet(tmp_path / "math.parquet")
    if kind == "hub":
        datasets = pytest.importorskip("datasets", reason="the package 'datasets' is not installed")
        rows = datasets.Dataset.from_list(read("math_sample.jsonl"))
        monkeypatch.setattr(datasets, "load_dataset", lambda id_, config, split: rows)
        source = "somebody/problems"
    memory, disk = (MathTask(source, probe_size=4, on_disk=on_disk) for on_disk in (False, True))
    assert everything(disk) == everything(memory)
    assert disk.reports == memory.reports


def test_shared_problems_and_ids_of_several_files_and_restriction(tmp_path: Path) -> None:
    rows = read("gsm8k_sample.jsonl")
    probe = [{**rows[index], "id": rows[index + 20]["id"]} for index in range(8)]
    paths = write(tmp_path / "train.jsonl", [*rows, rows[5]]), write(tmp_path / "probe.jsonl", probe)
    tasks = [MathTask(*paths, probe_size=4, on_disk=on_disk) for on_disk in (False, True)]
    assert any(problem.id.startswith("probe:") for problem in tasks[1].probe_problems(4))
    assert everything(tasks[1]) == everything(tasks[0])
    assert tasks[1].reports == tasks[0].reports
    dropped = [task.restrict(lambda problem: len(problem.steps) > 2) for task in tasks]
    assert dropped[0] == dropped[1] > 0
    assert everything(tasks[1]) == everything(tasks[0])
    with pytest.raises(DataError, match="expected at least"):
        tasks[1].restrict(lambda problem: False)
    assert everything(tasks[1]) == everything(tasks[0]), "a refused restriction changes nothing"


def test_memory_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    with path.open("w") as file:
        for index in range(300):
            solution = f"{index}+1={index + 1}\n" + "filled up " * 3000
            file.write(json.dumps({"problem": f"{index}+1", "solution": solution, "answer": str(index + 1)}) + "\n")
    peaks = []
    for on_disk in (False, True):
        tracemalloc.start()
        task = MathTask(path, probe_size=4, on_disk=on_disk)
        assert task.training_problem(0, 0).steps
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] > path.stat().st_size
    assert peaks[1] < path.stat().st_size / 10


def test_a_file_that_changed_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", read("gsm8k_sample.jsonl"))
    task = MathTask(path, probe_size=4, on_disk=True)
    path.write_text("")
    with pytest.raises(DataError, match=r"train\.jsonl, line \d+: expected one JSON object"):
        task.training_problem(0, 0)


def test_the_environment_trains_the_same_student(tmp_path: Path) -> None:
    rows = [
        {"problem": f"{a}+{b}", "solution": f"{a}+{b}={a + b};\n{a + b}", "answer": str(a + b)}
        for a in range(12, 18)
        for b in range(31, 35)
    ]
    path = write(tmp_path / "sums.jsonl", rows)
    # One token a character: the requests of worked problems need a longer context than the packaged student states.
    student = shutil.copytree(TINY_DIRECTORY, tmp_path / "student")
    sizes = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps({**sizes, "max_position_embeddings": 1024}))
    seen = []
    for on_disk in (False, True):
        env = gym.make(
            "ATESD-Tiny-v0",
            student=student,
            task="math",
            data_path=path,
            data_on_disk=on_disk,
            max_prompt_tokens=600,
            windows=2,
            hold_window=1,
            num_rollouts=2,
            max_new_tokens=8,
            probe_size=3,
            probe_accuracy_every=0,
        )
        env.reset(seed=1)
        steps = [env.step(np.array([ratio], dtype=np.float32)) for ratio in (0.5, 1.0)]
        population = env.unwrapped.population
        seen.append(([(step[1], step[4]["probe/nll"]) for step in steps], population.adapters.flat.clone()))
        env.close()
    assert seen[0][0] == seen[1][0]
    assert (seen[0][1] == seen[1][1]).all()
    assert seen[0][1].abs().sum() > 0
