"""Where rows come from: Parquet, the hub's library (a stand-in, no network), benchmarks, and the order of rows."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import atesd_env  # noqa: F401  (registers the ids)
from atesd_env.config import EnvConfig
from atesd_env.errors import DataError
from atesd_env.evaluation.benchmarks import read_benchmark
from atesd_env.student.packaged import TINY_DIRECTORY
from atesd_env.tasks.data.filters import LengthLimits, RowLengths
from atesd_env.tasks.data.rows import read_rows
from atesd_env.tasks.math import MathTask
from atesd_env.tasks.ordering import row_at
from atesd_env.tasks.registry import make_task

SAMPLE = Path(__file__).parents[3] / "data" / "math_sample.jsonl"
datasets = pytest.importorskip("datasets", reason="the package 'datasets' is not installed")


def as_parquet(folder: Path) -> Path:
    datasets.Dataset.from_list([json.loads(line) for line in SAMPLE.read_text().splitlines()]).to_parquet(
        folder / "math.parquet"
    )
    return folder / "math.parquet"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands in for the hub: id -> rows; remembers what was asked for."""
    content: dict[str, Any] = {"asked": []}

    def load_dataset(id_: str, config: str | None, split: str) -> Any:
        content["asked"].append((id_, config, split))
        if id_ not in content:
            raise ConnectionError("no such data set")
        return datasets.Dataset.from_list(content[id_])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return content


@pytest.mark.parametrize("kind", ["parquet", "mapped"])
def test_every_source_gives_the_same_problems_in_the_same_order(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if kind == "parquet":
        source = str(as_parquet(tmp_path))
    else:
        mapped = datasets.Dataset.from_json(str(SAMPLE), cache_dir=str(tmp_path))
        assert mapped.cache_files, "the rows stay on disk, where the library maps them"
        monkeypatch.setattr(datasets, "load_dataset", lambda id_, config, **_: mapped)
        source = "somebody/problems"
    assert read_rows(source)[0] == read_rows(SAMPLE)[0]
    ours, theirs = (MathTask(path, probe_size=4) for path in (SAMPLE, source))
    indices = range(2 * ours.num_training_problems)
    assert theirs.num_training_problems == ours.num_training_problems
    assert [theirs.training_problem(3, i) for i in indices] == [ours.training_problem(3, i) for i in indices]
    assert theirs.probe_problems(4) == ours.probe_problems(4)
    assert theirs.heldout_problems(2) == ours.heldout_problems(2)
    reports = [dataclasses.replace(task.reports["training"], path="") for task in (ours, theirs)]
    assert reports[0] == reports[1]


def test_the_environment_trains_the_same_student_from_either_kind_of_file(tmp_path: Path):
    rows = [
        {"problem": f"{a}+{b}", "solution": f"{a}+{b}={a + b};\n{a + b}", "answer": str(a + b)}
        for a in range(12, 18)
        for b in range(31, 35)
    ]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "sums.parquet")
    # One token a character: the requests of worked problems need a longer context than the packaged student states.
    student = shutil.copytree(TINY_DIRECTORY, tmp_path / "student")
    sizes = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps({**sizes, "max_position_embeddings": 1024}))
    seen = []
    for name in ("sums.jsonl", "sums.parquet"):
        env = gym.make(
            "ATESD-Tiny-v0",
            student=student,
            task="math",
            data_path=tmp_path / name,
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
        adapters = env.unwrapped.population.adapters.flat.clone()
        seen.append(([(step[1], step[4]["probe/nll"]) for step in steps], adapters))
        env.close()
    assert seen[0][0] == seen[1][0]
    assert (seen[0][1] == seen[1][1]).all()
    assert seen[0][1].abs().sum() > 0


def test_what_is_no_parquet_is_refused(tmp_path: Path):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"bad\.parquet: expected a readable Parquet file"):
        read_rows(tmp_path / "bad.parquet")


def test_the_training_set_of_opsd_by_its_id(hub: dict[str, Any]):
    id_ = "siyanzhao/Openthoughts_math_30k_opsd"
    hub[id_] = [{"problem": "P", "solution": r"So \boxed{7}."}, {"problem": "Q", "solution": "cut off"}]
    rows, report = read_rows(id_)
    assert [(row.problem, row.answer) for row in rows] == [("P", "7")]
    assert report.missing_answers == (2,)
    assert "1 have no final answer (line 2)" in str(report)
    assert hub["asked"] == [(id_, None, "train")]


def test_benchmarks_by_name(hub: dict[str, Any]):
    hub["HuggingFaceH4/aime_2024"] = [{"id": 60, "problem": "P", "solution": "s", "answer": "204", "year": "2024"}]
    hub["MathArena/hmmt_feb_2025"] = [{"problem_idx": 1, "problem": "P", "answer": r"\frac{1}{2}"}]
    hub["openai/gsm8k"] = [{"question": "P", "answer": "3*4=12\n#### 12"}]
    found = {name: read_benchmark(name).problems[0] for name in ("aime24", "hmmt25", "gsm8k")}
    assert [(p.id, p.answer) for p in found.values()] == [("60", "204"), ("1", r"\frac{1}{2}"), ("gsm8k:1", "12")]
    assert hub["asked"][-1] == ("openai/gsm8k", "main", "test")
    with pytest.raises(DataError, match=r"yentinglin/aime_2025: expected to load .* ConnectionError.*local JSONL"):
        read_benchmark("aime25")


def test_a_benchmark_file_needs_no_solution_and_answers_may_be_numbers(tmp_path: Path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"problem": "P", "answer": 7}\n{"problem": "Q", "answer": "8"}\n{"problem": " P", "answer": 7}\n')
    benchmark = read_benchmark(str(path))
    assert [(p.id, p.answer) for p in benchmark.problems] == [("mine:1", "7"), ("mine:2", "8")]
    assert len(read_benchmark(str(path), max_problems=1).problems) == 1
    before = benchmark.fingerprint
    path.write_text('{"problem": "P", "answer": 7}\n{"problem": "Q", "answer": "9"}\n')
    assert read_benchmark(str(path)).fingerprint != before


def test_every_pass_has_each_row_once_and_the_order_is_for_ever():
    order = [row_at(7, 5, index) for index in range(14)]
    assert sorted(order[:7]) == sorted(order[7:]) == list(range(7))
    assert order[:7] != order[7:]
    assert order == [1, 4, 2, 3, 6, 5, 0, 4, 2, 0, 6, 5, 3, 1]


def test_length_limits_are_inclusive():
    lengths = RowLengths(steps=3, problem_tokens=10, solution_tokens=20)
    assert lengths.breach(LengthLimits(3, 3, 10, 20)) is None
    for limits, name in (
        (LengthLimits(min_steps=4), "min_steps"),
        (LengthLimits(max_steps=2), "max_steps"),
        (LengthLimits(max_problem_tokens=9), "max_problem_tokens"),
        (LengthLimits(max_solution_tokens=19), "max_solution_tokens"),
    ):
        assert lengths.breach(limits) == name


def test_training_and_measuring_are_two_uses_of_a_data_set(hub: dict[str, Any], tmp_path: Path):
    """`openai/gsm8k` as training data once was its test split."""
    hub["openai/gsm8k"] = [{"question": f"Q{i}?", "answer": f"a\nb\n#### {i}"} for i in range(30)]
    task = make_task(EnvConfig(task="math", data_path="openai/gsm8k", probe_size=4))
    assert hub["asked"] == [("openai/gsm8k", "main", "train")]
    problem = task.training_problem(0, 0)
    assert (problem.problem, problem.steps) == (f"Q{problem.answer}?", ("a\n", "b"))
    assert read_benchmark("gsm8k").problems[3].answer == "3"
    hub["asked"].clear()
    with pytest.raises(DataError, match="usable"):  # the stand-in has the same rows in both splits
        make_task(EnvConfig(task="math", data_path="openai/gsm8k", probe_data_path="openai/gsm8k", probe_size=4))
    assert [split for _, _, split in hub["asked"]] == ["train", "test"], "a probe measures"


@pytest.mark.parametrize(
    "source",
    ["openai/gsm8k:test", "openai/gsm8k:main:train+test[:50%]", "HuggingFaceH4/aime_2024", "HuggingFaceH4/MATH-500"],
)
def test_a_benchmarks_split_is_trained_on_only_where_that_is_said(hub: dict[str, Any], source: str):
    hub[source.partition(":")[0]] = [
        {"question": f"Q{i}?", "problem": f"Q{i}?", "solution": "a\nb", "answer": f"a\n#### {i}", "unique_id": i}
        for i in range(30)
    ]
    with pytest.raises(
        DataError, match=r"data_path: expected data to train on, got .* a benchmark measures.*train-on-bench"
    ):
        make_task(EnvConfig(task="math", data_path=source, probe_size=4))
    assert not hub["asked"]
    make_task(EnvConfig(task="math", data_path=source, probe_size=4, train_on_benchmark=True))
    assert len(hub["asked"]) == 1


def test_split_and_configuration_can_be_named(hub: dict[str, Any], tmp_path: Path):
    hub["somebody/problems"] = [{"problem": "P", "solution": "1\n2", "answer": "2"}]
    for source in ("somebody/problems", "somebody/problems:dev", "somebody/problems:hard:train[:50%]"):
        assert len(read_rows(source)[0]) == 1
    assert hub["asked"] == [
        ("somebody/problems", None, "train"),
        ("somebody/problems", None, "dev"),
        ("somebody/problems", "hard", "train[:50%]"),
    ]
    folder = tmp_path / "local"
    folder.mkdir()
    shutil.copy(SAMPLE, folder / "train.jsonl")
    hub[str(folder)] = [json.loads(line) for line in SAMPLE.read_text().splitlines()]
    assert len(read_rows(f"{folder}:test")[0]) == 20
    assert hub["asked"][-1] == (str(folder), None, "test")


def test_a_folder_of_files_is_read_by_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "data").mkdir()
    shutil.copy(SAMPLE, tmp_path / "data" / "test.jsonl")
    rows, _ = read_rows(f"{tmp_path / 'data'}:test")
    assert [row.problem for row in rows] == [row.problem for row in read_rows(SAMPLE)[0]]
    with pytest.raises(DataError, match=r"name another split \(.*:SPLIT or"):
        read_rows(f"{tmp_path / 'data'}:dev")


SHAPES: dict[str, Any] = {
    "ours": {"problem": "1+1?", "solution": "1+1\n=2", "answer": "2"},
    "GSM8K's": {"question": "1+1?", "answer": "1+1\n=2\n#### 2"},
    "TRL's": {"prompt": "1+1?", "completion": "1+1\n=\\boxed{2}"},
    "TRL's messages": {
        "prompt": [{"role": "system", "content": "Count."}, {"role": "user", "content": "1+1?"}],
        "completion": [{"role": "assistant", "content": "1+1\n=\\boxed{2}"}],
    },
    "a number": {"problem": "1+1?", "solution": "1+1\n=2", "answer": 2},
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kind", ["jsonl", "json array", "json lines", "csv", "parquet"])
def test_every_shape_is_read_from_every_kind_of_file(name: str, kind: str, tmp_path: Path):
    row, path = SHAPES[name], tmp_path / f"rows.{kind.split()[0]}"
    if kind == "csv":
        if not all(isinstance(value, str | int) for value in row.values()):
            pytest.skip("a cell holds no list")
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, [*row, "empty"])
            writer.writeheader()
            writer.writerow(row)
    elif kind == "parquet":
        datasets.Dataset.from_list([row]).to_parquet(path)
    else:
        path.write_text(json.dumps([row], indent=1) if kind == "json array" else json.dumps(row) + "\n")
    (read,), report = read_rows(path)
    assert (read.problem, read.answer) == ("1+1?", "2")
    assert read.solution.startswith("1+1\n=")
    assert (read.views, report.num_usable) == ((), 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "rows.csv",
            b"problem,answer\n1,2,3\n",
            r"expected a readable CSV file, got .*more fields than columns in row 1",
        ),
        ("rows.csv", b"problem,answer\n\xff,2\n", "expected a readable CSV file"),
        ("rows.json", b"[1, 2", "expected a readable JSON file"),
        ("rows.json", b"[1]", "line 1: expected a JSON object"),
        (
            "rows.csv",
            b"task,answer\n1,2\n",
            r"field 'solution': .*only the columns 'task', 'answer'\); .*--data-columns",
        ),
        (
            "rows.jsonl",
            b'{"problem": "1", "solution": "1\\n2", "answer": "2", "views": ["x"]}',
            "field 'views': expected an object",
        ),
        ("none.csv", None, "expected a readable CSV file, got No such file"),
    ],
)
def test_files_that_hold_no_rows_are_refused(name: str, content: bytes | None, message: str, tmp_path: Path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_rows(tmp_path / name)
