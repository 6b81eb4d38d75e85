"""Where rows come from: Parquet, the hub's library (a stand-in, no network), benchmarks, and the order of rows."""

from __future__ import annotations

import json
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest

from atesd_env.errors import ConfigError, DataError
from atesd_env.evaluation.benchmarks import read_benchmark
from atesd_env.tasks.data.filters import LengthLimits, RowLengths
from atesd_env.tasks.data.rows import read_rows
from atesd_env.tasks.math import MathTask
from atesd_env.tasks.ordering import ordered_rows, row_at

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


def test_parquet_and_jsonl_give_the_same_rows(tmp_path: Path):
    path = as_parquet(tmp_path)
    assert read_rows(path)[0] == read_rows(SAMPLE)[0]
    tasks = [MathTask(source, probe_size=4) for source in (path, SAMPLE)]
    assert tasks[0].training_problem(3, 7) == tasks[1].training_problem(3, 7)


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


def test_the_order_survives_resumption_and_any_number_of_workers():
    rows = [f"row {index}" for index in range(7)]
    alone = list(islice(ordered_rows(rows, seed=5), 40))
    assert [row for _, row in alone] == [rows[row_at(7, 5, index)] for index in range(40)]
    assert len({row for _, row in alone[7:14]}) == 7, "each row once in a pass"
    for num_workers in (1, 2, 3, 5):
        shares = [islice(ordered_rows(rows, 5, 10, worker, num_workers), 30) for worker in range(num_workers)]
        assert sorted(chain.from_iterable(shares))[:30] == alone[10:]
    with pytest.raises(ConfigError, match="worker 2 of 2"):
        ordered_rows(rows, 0, worker=2, num_workers=2)


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
