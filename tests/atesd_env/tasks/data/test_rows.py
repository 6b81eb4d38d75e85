"""Data files: what is refused and how it is said, what is left out and how it is reported."""

import json
from pathlib import Path
from typing import Any

import pytest

from atesd_env.errors import DataError
from atesd_env.tasks.data.rows import DataReport, read_rows

SAMPLES = Path(__file__).parents[3] / "data"


def row(**changes: Any) -> dict[str, Any]:
    """A good row; a field that is changed to ``...`` is missing."""
    fields = {"id": "a", "problem": "What is 1+1?", "solution": "1+1=2", "answer": "2"} | changes
    return {name: value for name, value in fields.items() if value is not ...}


def write(path: Path, *rows: Any) -> Path:
    """Writes rows as JSON, text and bytes as they are."""
    lines = [r if isinstance(r, bytes) else (r if isinstance(r, str) else json.dumps(r)).encode() for r in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


@pytest.mark.parametrize(("name", "num_rows"), [("gsm8k_sample", 40), ("math_sample", 20)])
def test_the_samples_are_read_whole(name: str, num_rows: int) -> None:
    rows, report = read_rows(SAMPLES / f"{name}.jsonl")
    assert len(rows) == num_rows
    assert report == DataReport(str(SAMPLES / f"{name}.jsonl"), num_rows=num_rows, num_usable=num_rows)
    assert report.is_clean


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"problem": "x",', r"line 3: expected one JSON object a line, got .*problem.*mend or remove"),
        ("[1, 2]", r"line 3: expected a JSON object with problem, solution and answer, got \[1, 2\]"),
        ("null", r"line 3: expected a JSON object .* got None"),
        ("[" * 100_000, r"line 3: expected one JSON object"),
        (b'{"problem": "caf\xe9"}', r"line 3: expected UTF-8, got byte 0xe9 at position 16; save the file as UTF-8"),
        (row(problem=...), r"line 3, field 'problem': expected text, got no such field \(only .*'id'.*; add or rename"),
        (row(problem=" "), r"line 3, field 'problem': expected text that is not blank, got ' '; fill it in"),
        (row(problem=7), r"line 3, field 'problem': expected text, got 7; write it as a JSON string"),
        (row(problem="x\ud800"), r"line 3, field 'problem': expected valid Unicode, got half of a surrogate"),
        (row(solution=...), r"line 3, field 'solution': expected text, got no such field"),
        (row(solution=["1+1=2"]), r"line 3, field 'solution': expected text, got \['1\+1=2'\]"),
        (row(solution=None), r"line 3, field 'solution': expected text, got None"),
        (row(answer=True), r"line 3, field 'answer': expected text, got True; write it as a JSON string"),
        (row(answer=float("inf")), r"line 3, field 'answer': expected text, got inf"),
        (
            row(answer="5\n6"),
            r"line 3, field 'answer': expected a final answer on one line of at most 500 characters, got 3 characters on 2 l",
        ),
        (row(answer="7" * 501), r"line 3, field 'answer': expected a final answer .*got 501 characters on 1 lines"),
        (
            row(answer="#### "),
            r"line 3, field 'answer': expected a final answer .*got nothing behind it; write the answer",
        ),
        (row(answer="  "), r"line 3, field 'answer': expected text that is not blank"),
        (
            row(answer=...),
            r"line 3, field 'answer': expected text, here or in a \\boxed\{\} of the solution, got neither",
        ),
        (row(answer=None), r"line 3, field 'answer': .* got neither; add the field"),
        (row(answer="", solution=r"cut off \boxed{2"), r"line 3, field 'answer': .* got neither"),
        (row(id=""), r"line 3, field 'id': expected a string or an integer, got ''"),
        (row(id=1.5), r"line 3, field 'id': expected a string or an integer, got 1.5"),
        (row(id="first"), r"line 3, field 'id': expected an id of its own, got 'first' as in line 1; rename it"),
        (row(level="hard"), r"line 3, field 'level': expected a number or 'Level 3', got 'hard'"),
        (row(level=True), r"line 3, field 'level': expected a number"),
        (row(level=float("nan")), r"line 3, field 'level': expected a number or 'Level 3', got nan"),
    ],
)
def test_a_malformed_row_is_refused_by_file_line_and_field(tmp_path: Path, bad: Any, message: str) -> None:
    # The blank line counts as a line, or editors would show another one.
    path = write(tmp_path / "bad.jsonl", row(id="first", problem="Another?"), "", bad)
    with pytest.raises(DataError, match=rf"bad\.jsonl, {message}") as caught:
        read_rows(path)
    assert len(str(caught.value)) < 500 + len(str(path)), "a message must not repeat a whole row"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected at least one row .* got an empty file"),
        (b"\n \n", "expected at least one row .* got an empty file"),
        (json.dumps(row(solution=" ")).encode(), "expected at least one row .* got 1 rows, all with an empty solution"),
        ("problem,solution".encode("utf-16"), "line 1: expected UTF-8, got byte 0xff"),
    ],
)
def test_a_file_with_nothing_usable_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "none.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"none\.jsonl.*{message}"):
        read_rows(path)


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.jsonl: expected a readable JSONL file, got No such file"):
        read_rows(tmp_path / "absent.jsonl")
    with pytest.raises(DataError, match=r"expected a readable JSONL file, got Is a directory|Permission denied"):
        read_rows(tmp_path)


def test_duplicates_and_empty_solutions_are_left_out_and_reported(tmp_path: Path) -> None:
    path = write(
        tmp_path / "some.jsonl",
        row(id="a", solution="\n"),  # left out first, so that the same problem with a solution is used
        row(id="b"),
        row(id="c", problem="  What is\n1+1? "),
        row(id="d", problem="What is 1+2?", answer="3"),
        row(id="e", problem="What is  1+2?", answer="4"),
        row(id="f", problem="What is 2+2?", solution="<<2+2=4>>"),
    )
    rows, report = read_rows(path)
    assert [(r.id, r.line) for r in rows] == [("b", 2), ("d", 4)]
    assert report.duplicates == ((3, 2), (5, 4))
    assert report.conflicts == (5,)
    assert report.empty_solutions == (1, 6)
    assert (report.num_rows, report.num_usable, report.is_clean) == (6, 2, False)
    assert str(report) == (
        f"{path}: 2 of 6 rows are used; 2 repeat an earlier problem (line 3, 5); 1 of these give another answer (line 5"
        "); 2 have an empty solution (line 1, 6)."
    )


def test_a_missing_answer_comes_from_the_last_box_and_a_boxed_answer_is_unwrapped(tmp_path: Path) -> None:
    path = write(
        tmp_path / "boxes.jsonl",
        row(id="a", problem="A", answer=..., solution=r"Not \boxed{1} but \boxed{\frac{1}{2}}."),
        row(id="b", problem="B", answer=r"$\boxed{7}$"),
        row(id="c", problem="C", answer="9", solution="no box here"),
    )
    assert [r.answer for r in read_rows(path)[0]] == [r"\frac{1}{2}", "7", "9"]


def test_ids_are_made_from_file_and_line_where_none_is_given(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", row(id=..., problem="A"), row(id=17, problem="B"), row(id=None, problem="C"))
    assert [r.id for r in read_rows(path)[0]] == ["mine:1", "17", "mine:3"]


def test_levels_are_numbers_or_words_and_missing_ones_are_reported(tmp_path: Path) -> None:
    levels = [3, 2.5, "Level 5", "4", "Level ?", None]
    rows = [row(id=str(i), problem=f"{i}?", level=level) for i, level in enumerate(levels)]
    read, report = read_rows(write(tmp_path / "levels.jsonl", *rows))
    assert [r.level for r in read] == [3.0, 2.5, 5.0, 4.0, None, None]
    assert report.missing_levels == (5, 6)
    assert "2 have no level" in str(report)


def test_line_ends_of_windows_a_byte_order_mark_and_odd_separators_inside_strings_are_read(tmp_path: Path) -> None:
    path = tmp_path / "odd.jsonl"
    lines = [row(id="a", problem="A\u2028B"), row(id="b", problem="C\r\nD")]
    text = "\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [r.problem for r in read_rows(path)[0]] == ["A\u2028B", "C\r\nD"]
