"""Small data files that once were read wrongly: what they hold now, for training and as benchmarks."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atesd_env.config import EnvConfig
from atesd_env.errors import ConfigError, DataError
from atesd_env.evaluation.benchmarks import read_benchmark
from atesd_env.tasks.base import Problem
from atesd_env.tasks.data.rows import DataRow, parse_row, read_rows
from atesd_env.tasks.data.shapes import as_our_fields, parse_columns
from atesd_env.tasks.math import MathTask
from atesd_env.tasks.registry import make_task
from atesd_env.tasks.segmentation import split_steps

CASES = Path(__file__).parents[3] / "data" / "cases"


def answers_of_benchmark(case: str) -> list[tuple[str, str]]:
    return [(problem.problem, problem.answer) for problem in read_benchmark(str(CASES / f"{case}.jsonl")).problems]


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_an_answer_behind_the_marker_of_gsm8k():
    assert answers_of_benchmark("gsm8k_answer_marker") == [("11+22+33", "66"), ("45+12+10", "67")]
    rows, report = read_rows(CASES / "gsm8k_answer_marker.jsonl")
    assert [(row.solution, row.answer) for row in rows] == [("steps", "67")]
    assert report.empty_solutions == (1,)


def test_a_whole_solution_as_answer_is_never_shown_at_ratio_0():
    (row,), _ = read_rows(CASES / "whole_solution_as_answer.jsonl")
    assert row.answer == "7"
    task = MathTask.__new__(MathTask)
    problem = Problem("a", row.problem, split_steps(row.solution), row.answer, 1.0)
    assert "3+4=7" not in task.teacher_request(problem, (), row.answer)
    assert task.is_correct(r"so \boxed{7}", problem)


def test_numbers_are_answers_in_training_and_in_benchmarks(tmp_path: Path):
    (row,), _ = read_rows(CASES / "number_answers_training.jsonl")
    assert row.answer == "7"
    path = write(tmp_path / "numbers.jsonl", {"problem": "P", "answer": 0.5}, {"problem": "Q", "answer": -3})
    assert [problem.answer for problem in read_benchmark(path).problems] == ["0.5", "-3"]


def test_a_benchmark_that_contradicts_itself_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        assert answers_of_benchmark("benchmark_conflict") == [("11+22+33", "66")]
    assert "1 repeat an earlier problem (line 2); 1 of these give another answer (line 2)" in caplog.text
    caplog.clear()
    path = write(tmp_path / "same.jsonl", {"problem": "P", "answer": "1/2"}, {"problem": "P", "answer": "0.5"})
    with caplog.at_level(logging.WARNING):
        assert len(read_benchmark(path).problems) == 1
    assert "repeat" in caplog.text
    assert "another answer" not in caplog.text


def test_the_columns_of_others_are_read_in_benchmarks_too():
    assert answers_of_benchmark("capital_answer_benchmark") == [("11+22+33", "66")]
    assert answers_of_benchmark("question_column_benchmark") == [("11+22+33", "66")]
    with pytest.raises(DataError, match=r"'solution': .*no such field \(only the columns 'question', 'answer'\)"):
        read_rows(CASES / "question_column_benchmark.jsonl")


def test_columns_can_be_named(tmp_path: Path):
    rows = [{"prompt": f"{n}+1?", "work": f"{n}+1\n={n + 1}", "final": n + 1, "problem": "not this"} for n in range(9)]
    path = write(tmp_path / "theirs.jsonl", *rows)
    config = EnvConfig(
        task="math", data_path=path, data_columns="problem=prompt, solution=work,answer=final", probe_size=2
    )
    problem = make_task(config).training_problem(0, 0)
    number = int(problem.answer) - 1
    assert (problem.problem, problem.steps) == (f"{number}+1?", (f"{number}+1\n", f"={number + 1}"))
    assert read_benchmark(path, 1, columns=parse_columns("problem=prompt,answer=final")).problems[0].answer == "1"


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    [
        (
            {"prompt": "P", "answer": "1"},
            None,
            r"'problem': .* no such field \(only the columns 'prompt', 'answer'\).*--data-col",
        ),
        ({"problem": "P", "final": "1"}, None, r"'answer': .* got only the columns 'problem', 'final'"),
        (
            {"problem": "P", "answer": "1"},
            "problem=prompt",
            r"the column 'prompt', which was named for it, got only the columns 'problem', 'answer'",
        ),
    ],
)
def test_a_missing_column_is_named_beside_those_that_there_are(
    row: dict[str, str], columns: str | None, message: str, tmp_path: Path
):
    with pytest.raises(DataError, match=message):
        read_benchmark(write(tmp_path / "b.jsonl", row), columns=parse_columns(columns))


@pytest.mark.parametrize("named", ["problem", "problem=", "question=problem", "problem=a,problem=b", ""])
def test_columns_that_cannot_be_read_are_refused(named: str):
    if not named:
        assert parse_columns(named) == {}
        return
    with pytest.raises(ConfigError, match=r"data_columns: expected OURS=THEIRS, .* pass for example problem=question"):
        parse_columns(named)


def test_rows_of_messages_are_read(tmp_path: Path):
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "3+4?"}]},
        {"role": "assistant", "content": "3+4=7\nSo \\boxed{7}."},
    ]
    (row,), _ = read_rows(write(tmp_path / "chat.jsonl", {"messages": chat}))
    assert (row.problem, row.solution, row.answer) == ("3+4?", "3+4=7\nSo \\boxed{7}.", "7")
    (row,), _ = read_rows(
        write(tmp_path / "named.jsonl", {"chat": chat, "answer": 7}), columns=parse_columns("messages=chat")
    )
    assert row.answer == "7"
    for bad in (chat[:1], chat[::-1], [*chat, *chat[1:]], [], None, "text", [{"role": "user", "content": None}]):
        with pytest.raises(DataError, match=r"field 'messages': expected one message of the user, the problem"):
            read_rows(write(tmp_path / "bad.jsonl", {"messages": bad}))


# ---- what ratio 0 shows ----

_LINES = st.lists(st.text(string.ascii_lowercase + " =+0123456789", min_size=6, max_size=20), min_size=1, max_size=5)


@st.composite
def rows(draw: st.DrawFn) -> dict[str, str]:
    """Rows as careless data has them: the answer alone, marked, boxed, or with all or a part of the solution around it."""
    lines = [line for line in draw(_LINES) if line.strip()] or ["1 and 2"]
    solution, answer = "\n".join(lines), draw(st.sampled_from(["7", "x+1", r"\frac{1}{2}", "east"]))
    shape = draw(
        st.sampled_from(["{a}", "#### {a}", "{s}\n#### {a}", r"{s} \boxed{{{a}}}", "{s}", "{s} {a}", "{s}\n{a}"])
    )
    return {"problem": "P?", "solution": solution, "answer": shape.format(a=answer, s=solution)}


def read_or_refusal(path: str) -> tuple[DataRow | None, str]:
    try:
        return read_rows(path)[0][0], ""
    except DataError as error:
        return None, str(error)


@settings(max_examples=300, deadline=None)
@given(rows())
def test_what_ratio_0_shows_never_contains_the_solution(tmp_path_factory: pytest.TempPathFactory, row: dict[str, str]):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    read, refusal = read_or_refusal(write(path, row))
    if read is None:
        assert re.search("a final answer on one line|all with an empty solution", refusal)
        return
    task = MathTask.__new__(MathTask)
    problem = Problem("a", read.problem, split_steps(read.solution), read.answer, 1.0)
    of_another = dataclasses.replace(problem, steps=("Another solution.",))
    assert task.teacher_request(problem, (), read.answer) == task.teacher_request(of_another, (), read.answer)
    is_bare_answer = len(row["solution"].split()) == 1
    assert is_bare_answer or "".join(row["solution"].split()) not in "".join(read.answer.split())


@pytest.mark.parametrize(
    ("answer", "cleaned"),
    [
        ("The answer is 7.", "7"),
        ("Answer: \\frac{1}{2}", "\\frac{1}{2}"),
        ("\\boxed{\\begin{pmatrix} 1 \\\\\n 2 \\end{pmatrix}}", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}"),
        ("\\begin{pmatrix} 1 \\\\\n 2 \\end{pmatrix}", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}"),
        (" 7\n", "7"),
        ("#### \\boxed{7}", "7"),
    ],
)
def test_answers_are_cleaned_by_rule(answer: str, cleaned: str):
    assert parse_row("f.jsonl", 1, {"problem": "P", "solution": "1\n2", "answer": answer}).answer == cleaned


def test_what_has_our_names_is_left_alone():
    fields = {"problem": "P", "solution": "S", "answer": "#### 1", "question": "Q", "Answer": "A", "messages": []}
    assert as_our_fields(fields, {}) == fields
