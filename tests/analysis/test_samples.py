"""Sample rollouts made ready to read: what only the teacher saw is marked, and no text can hide or rearrange anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis.samples import printable, read_samples, revealed_part


@pytest.mark.parametrize(
    ("student", "teacher", "revealed"),
    [
        ("<u>1+2<end>", "<u>1+2|1+2=3#3<end>", "|1+2=3#3"),
        ("problem\n\nclosing", "problem\n\nReference: 3\n\nclosing", "Reference: 3\n\n"),
        ("same", "same", ""),  # no privileged context
        ("aaa", "aaaaa", "aa"),  # beginning and end must not overlap
        ("", "all of it", "all of it"),
    ],
)
def test_the_revealed_part_is_what_the_student_lacks(student: str, teacher: str, revealed: str):
    part = revealed_part(student, teacher)
    assert part.revealed == revealed
    assert part.before + part.revealed + part.after == teacher
    assert part.before + part.after == student


def test_control_and_direction_characters_become_visible():
    assert printable("a\x00\x1b[2J\u202eb\ud800\tc\nd") == "a␀␛[2J\ufffdb\ufffd\tc\nd"
    assert printable("ordinary: é, 漢, 😀, שלום") == "ordinary: é, 漢, 😀, שלום"


def test_a_long_text_is_cut_and_says_so():
    assert printable("x" * 12, longest=10) == "x" * 10 + " [... 2 more characters]"
    assert printable("x" * 10, longest=10) == "x" * 10


def write_lines(folder: Path, lines: list[str]) -> None:
    (folder / "samples.jsonl").write_text("".join(lines))


def sample(window: int) -> str:
    return json.dumps({"window": window, "student_prompt": "s", "teacher_prompt": "t", "rollout": "r"}) + "\n"


@pytest.mark.parametrize(
    ("number", "windows"), [(0, []), (1, [9]), (2, [1, 9]), (3, [1, 5, 9]), (20, list(range(1, 10)))]
)
def test_samples_are_spread_from_the_first_window_to_the_last(tmp_path: Path, number: int, windows: list[int]):
    write_lines(tmp_path, [sample(window) for window in range(1, 10)])
    samples, num_damaged = read_samples(tmp_path, number)
    assert [found["window"] for found in samples] == windows
    assert num_damaged == 0


def test_damaged_lines_are_counted_and_an_unfinished_last_one_is_not(tmp_path: Path):
    write_lines(tmp_path, [sample(1), "{broken\n", '{"window": 3}\n', sample(4), '{"window": 5, "stud'])
    samples, num_damaged = read_samples(tmp_path, 10)
    assert [found["window"] for found in samples] == [1, 4]
    assert num_damaged == 2


def test_a_run_without_samples_has_none(tmp_path: Path):
    assert read_samples(tmp_path, 3) == ([], 0)
