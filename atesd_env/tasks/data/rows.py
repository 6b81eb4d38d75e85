r"""Data of worked problems, one problem a row, checked row by row.

A row has ``problem``, ``solution`` and ``answer``, and optionally ``id`` (string or integer) and ``level`` (a number, or MATH's
"Level 3"); what other shapes are read says `atesd_env.tasks.data.shapes`, where rows come from `atesd_env.tasks.data.sources`. Other
fields are ignored, and so are blank lines. What is malformed is refused by file, line and field; what is well-formed but of no use (a
problem that came before, an empty solution) is left out and reported.

An answer is what every reveal ratio shows, 0 too, so it is cleaned or refused: of ``#### 66``, a boxed answer or a whole solution the final
answer alone is kept (`shapes.final_answer`); numbers are taken as text; an answer that then still has several lines, or is longer than
`MAX_ANSWER_LENGTH`, is refused. A solution of several words that the answer repeats counts as empty.
"""

from __future__ import annotations

import hashlib
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from atesd_env.errors import DataError, shown
from atesd_env.tasks.data.shapes import ANSWER_MARKER, ShapeError, as_our_fields, final_answer, listed
from atesd_env.tasks.data.sources import Use, is_data_set, is_parquet, raw_rows
from atesd_env.tasks.grading.answers import MAX_ANSWER_LENGTH, answers_match, last_boxed
from atesd_env.tasks.segmentation import without_annotations

_logger = logging.getLogger(__name__)

_LEVEL = re.compile(r"\s*(?:level\s*)?(\d+(?:\.\d+)?)\s*", re.IGNORECASE)
_UNKNOWN_LEVEL = re.compile(r"\s*(?:level)?\s*\??\s*", re.IGNORECASE)
_MAX_NAMED_LINES = 8


@dataclass(frozen=True)
class DataRow:
    r"""One usable row.

    Attributes:
        line: Line number in its file, from 1.
        id: As given, or "<file stem>:<line>".
        problem: The problem's text.
        solution: The worked solution, not blank.
        answer: The final answer, without ``\boxed{}``.
        level: Difficulty as given, or None.
        views: Other versions of the solution, (name, text) each.
    """

    line: int
    id: str
    problem: str
    solution: str
    answer: str
    level: float | None
    views: tuple[tuple[str, str], ...] = ()

    def as_fields(self) -> dict[str, Any]:
        """Returns what it is read from, without id and level."""
        views = {"views": dict(self.views)} if self.views else {}
        return {"problem": self.problem, "solution": self.solution, "answer": self.answer, **views}


@dataclass(frozen=True)
class DataReport:
    """What was read from one file, and what was left out; ``str()`` gives one sentence for people.

    Attributes:
        path: The file.
        num_rows: Rows in the file.
        num_usable: Rows that are used.
        duplicates: (line, line of the first) of each row whose problem came before, blanks aside.
        conflicts: Lines among ``duplicates`` that give another answer than the first.
        empty_solutions: Lines whose solution is blank, or says no more than the answer.
        missing_levels: Lines without a level, if others have one.
        shared: Lines left out because their problem is also in another file, which needs it more (the probe's file
            comes before the held-out one, and that before training).
        missing_answers: Rows of a hub's data set or a Parquet file from which no final answer can be told (in JSONL, which
            one writes oneself, they are refused).
    """

    path: str
    num_rows: int
    num_usable: int
    duplicates: tuple[tuple[int, int], ...] = ()
    conflicts: tuple[int, ...] = ()
    empty_solutions: tuple[int, ...] = ()
    missing_levels: tuple[int, ...] = ()
    shared: tuple[int, ...] = ()
    missing_answers: tuple[int, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether there is nothing to report."""
        return not (
            self.duplicates or self.empty_solutions or self.missing_levels or self.shared or self.missing_answers
        )

    def __str__(self) -> str:
        kinds = [
            ("repeat an earlier problem", [line for line, _ in self.duplicates]),
            ("of these give another answer", self.conflicts),
            ("have an empty solution", self.empty_solutions),
            ("are also in another file", self.shared),
            ("have no final answer", self.missing_answers),
            ("have no level (so difficulty is the number of steps)", self.missing_levels),
        ]
        remarks = [f"{len(lines)} {what} ({_named(lines)})" for what, lines in kinds if lines]
        return (
            f"{self.path}: {self.num_usable} of {self.num_rows} rows are used"
            + "".join(f"; {r}" for r in remarks)
            + "."
        )


def normalised_problem(problem: str) -> str:
    """Returns what two texts of the same problem share: every run of blanks counts as one."""
    return " ".join(problem.split())


def problem_checksum(problem: str) -> bytes:
    """Returns the SHA-256 of a problem's text, blanks aside."""
    return hashlib.sha256(normalised_problem(problem).encode()).digest()


class ParseRow(Protocol):
    """Makes a checked row of the fields of one: ``parse_row``, or another task's."""

    def __call__(
        self,
        path: str | Path,
        line: int,
        fields: Any,
        *,
        columns: Mapping[str, str] | None = None,
        needs_solution: bool = True,
    ) -> DataRow: ...


def read_rows(
    path: str | Path,
    use: Use = "training",
    *,
    needs_solution: bool = True,
    columns: Mapping[str, str] | None = None,
    parse: ParseRow | None = None,
) -> tuple[list[DataRow], DataReport]:
    """Reads a file or a data set (see `sources`) and leaves out what is of no use (see the report; logs nothing).

    Args:
        path: The source.
        use: Which entry of a known data set is meant.
        needs_solution: Whether rows without a worked solution are of no use.
        columns: Our field -> theirs, where they differ.
        parse: Makes a row; None is ``parse_row``.

    Raises:
        DataError: If the source cannot be read, a row is malformed, or no row can be used.
    """
    num_rows = 0
    first_of: dict[str, DataRow] = {}
    lines_of_id: dict[str, int] = {}
    duplicates: list[tuple[int, int]] = []
    conflicts, empty_solutions, missing_answers = [], [], []
    is_made_by_others = is_data_set(path) or is_parquet(path)
    for line, fields in raw_rows(path, use):
        num_rows += 1
        try:
            row = (parse or parse_row)(path, line, fields, columns=columns, needs_solution=needs_solution)
        except MissingAnswerError:
            if not is_made_by_others:
                raise
            missing_answers.append(line)
            continue
        if needs_solution and _says_no_more_than_the_answer(row):
            empty_solutions.append(line)
            continue
        first = first_of.setdefault(normalised_problem(row.problem), row)
        if first is not row:
            duplicates.append((line, first.line))
            if first.answer != row.answer and not answers_match(row.answer, first.answer):
                conflicts.append(line)
            continue
        if (id_line := lines_of_id.setdefault(row.id, line)) != line:
            raise refused(Path(path), line, "id", "an id of its own", f"{row.id!r} as in line {id_line}", "rename it")
    rows = list(first_of.values())
    if not rows:
        raise _nothing_of_use(path, num_rows, len(empty_solutions), needs_solution)
    missing_levels = [row.line for row in rows if row.level is None] if needs_solution else []
    return rows, DataReport(
        path=str(path),
        num_rows=num_rows,
        num_usable=len(rows),
        duplicates=tuple(duplicates),
        conflicts=tuple(conflicts),
        empty_solutions=tuple(empty_solutions),
        missing_levels=tuple(missing_levels) if len(missing_levels) < len(rows) else (),
        missing_answers=tuple(missing_answers),
    )


def _nothing_of_use(path: str | Path, num_rows: int, num_empty: int, needs_solution: bool) -> DataError:
    reason = "all with an empty solution" if num_empty else "none with a final answer"
    got = f"{num_rows} rows, {reason}" if num_rows else "an empty file"
    return DataError(
        f"{path}: expected at least one row with problem, {'solution ' if needs_solution else ''}and answer, got {got}; check the file."
    )


def log_report(report: DataReport) -> None:
    """Logs a report as a warning if rows were left out, or levels are missing."""
    if not report.is_clean:
        _logger.warning("%s", report)


class MissingAnswerError(DataError):
    """A row from which no final answer can be told."""


def parse_row(
    path: str | Path,
    line: int,
    fields: Any,
    *,
    columns: Mapping[str, str] | None = None,
    needs_solution: bool = True,
) -> DataRow:
    """Returns one row of a source, checked.

    Args:
        path: The file or the data set, for messages and for the ids of rows without one.
        line: Number of the row, from 1.
        fields: What the row holds; anything but a mapping is refused.
        columns: Our field -> theirs, where they differ.
        needs_solution: Whether there must be a solution; without it, neither solution nor level is looked at.

    Raises:
        MissingAnswerError: If it has no final answer, or one that is no final answer.
        DataError: If the row is malformed.
    """
    path = Path(path)
    if not isinstance(fields, Mapping):
        raise DataError(
            f"{path}, line {line}: expected a JSON object with problem, solution and answer, got {_shown(fields)}; "
            "mend or remove the line."
        )
    there = listed(fields)
    try:
        fields = as_our_fields(fields, columns or {})
    except ShapeError as error:
        raise refused(path, line, error.field, error.expected, error.got, error.remedy) from error
    # What is not used is not looked at: a benchmark's spelling of it must not stop an evaluation.
    is_used = needs_solution or isinstance(fields.get("solution"), str)
    solution = text_field(path, line, fields, "solution", there, may_be_blank=True) if is_used else ""
    return DataRow(
        line=line,
        id=id_field(path, line, fields),
        problem=text_field(path, line, fields, "problem", there).strip(),
        solution=solution,
        answer=_answer_field(path, line, fields, solution, there),
        level=level_field(path, line, fields) if needs_solution else None,
        views=views_field(path, line, fields) if needs_solution else (),
    )


def _answer_field(path: Path, line: int, fields: dict[str, Any], solution: str, there: str) -> str:
    value = fields.get("answer")
    if (isinstance(value, Decimal) and value.is_finite()) or _is_number(value):
        value = fields["answer"] = str(value)
    if value in (None, ""):
        answer = last_boxed(solution)
        if answer is None and ANSWER_MARKER in solution:
            answer = final_answer(solution)[0]
        if not answer:
            expected = "text, here or in a \\boxed{} of the solution"
            got = "neither" if "answer" in fields or solution.strip() else f"only {there}"
            raise refused(path, line, "answer", expected, got, "add the field", MissingAnswerError)
    else:
        answer = final_answer(text_field(path, line, fields, "answer", there))[0]
    if "\\begin" in answer:
        answer = " ".join(answer.split())
    num_lines = len(answer.splitlines())
    if not answer or num_lines > 1 or len(answer) > MAX_ANSWER_LENGTH:
        got = f"{len(answer)} characters on {num_lines} lines" if answer else "nothing behind it"
        expected = f"a final answer on one line of at most {MAX_ANSWER_LENGTH} characters"
        raise refused(
            path, line, "answer", expected, got, "write the answer alone, or in \\boxed{}", MissingAnswerError
        )
    return answer


def _says_no_more_than_the_answer(row: DataRow) -> bool:
    """Whether a solution is blank, or stands whole in the answer that every reveal ratio shows; a bare answer is a solution too."""
    solution, answer = (
        re.sub(rf"\\boxed|{ANSWER_MARKER}|[{{}}$]", "", text).split()
        for text in (without_annotations(row.solution), row.answer)
    )
    return not solution or (len(solution) > 1 and "".join(solution) in "".join(answer))


def text_field(
    path: Path, line: int, fields: Mapping[str, Any], field: str, there: str, *, may_be_blank: bool = False
) -> str:
    """Returns a field that must be text, for those who parse rows.

    Raises:
        DataError: If it is missing, no text, blank, or no valid Unicode.
    """
    if field not in fields:
        remedy = f"add or rename it, or name the column that holds it (--data-columns {field}=COLUMN, of a benchmark --benchmark-columns)"
        raise refused(path, line, field, "text", f"no such field (only {there})", remedy)
    value = fields[field]
    if not isinstance(value, str):
        raise refused(path, line, field, "text", _shown(value), "write it as a JSON string")
    if not may_be_blank and not value.strip():
        raise refused(path, line, field, "text that is not blank", _shown(value), "fill it in or remove the line")
    return _valid_text(path, line, field, value)


def _valid_text(path: Path, line: int, field: str, value: str) -> str:
    if any("\ud800" <= char <= "\udfff" for char in value):
        # JSON can spell half of a character pair, which no tokenizer takes.
        raise refused(path, line, field, "valid Unicode", "half of a surrogate pair", "mend the \\u escape")
    return value


def id_field(path: Path, line: int, fields: Mapping[str, Any]) -> str:
    """Returns a row's id: as given, or file and line.

    Raises:
        DataError: If it is neither a text nor an integer.
    """
    value = fields.get("id")
    if value is None:
        return f"{path.stem}:{line}"
    if not (isinstance(value, str) or _is_number(value)) or isinstance(value, float) or not str(value).strip():
        raise refused(path, line, "id", "a string or an integer", _shown(value), "mend it or leave it out")
    return _valid_text(path, line, "id", str(value))


def level_field(path: Path, line: int, fields: Mapping[str, Any]) -> float | None:
    """Returns a row's difficulty, or None where there is none.

    Raises:
        DataError: If it is neither a number nor "Level 3".
    """
    value = fields.get("level")
    if isinstance(value, str):
        if match := _LEVEL.fullmatch(value):
            return float(match[1])
        if _UNKNOWN_LEVEL.fullmatch(value):  # MATH has a few rows of "Level ?"
            return None
    elif value is None or _is_number(value):
        return None if value is None else float(value)
    raise refused(path, line, "level", "a number or 'Level 3'", _shown(value), "mend it or leave it out")


def views_field(path: Path, line: int, fields: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Returns a row's other versions of the solution, (name, text) each.

    Raises:
        DataError: If they are no object of texts that are not blank.
    """
    views = fields.get("views")
    if views is None:
        return ()
    if not isinstance(views, Mapping) or not all(isinstance(text, str) and text.strip() for text in views.values()):
        raise refused(
            path, line, "views", "an object of texts that are not blank", _shown(views), "mend it or leave it out"
        )
    return tuple((str(name), _valid_text(path, line, "views", text)) for name, text in views.items())


def _is_number(value: Any) -> bool:
    """Whether this is a finite number, and not too large a whole one for a float."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max  # NaN is not


def refused(
    path: Path, line: int, field: str, expected: str, got: str, remedy: str, kind: type[DataError] = DataError
) -> DataError:
    """Returns what to raise about a field of a row."""
    return kind(f"{path}, line {line}, field {field!r}: expected {expected}, got {got}; {remedy}.")


def _shown(value: Any) -> str:
    return shown(value, longest=60)


def _named(lines: Sequence[int]) -> str:
    shown = ", ".join(str(line) for line in lines[:_MAX_NAMED_LINES])
    return f"line {shown}" + (", ..." if len(lines) > _MAX_NAMED_LINES else "")
