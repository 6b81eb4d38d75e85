"""Rows of programs: a prompt, a reference solution, tests, and the name of the function that they test.

The form is HumanEval's: ``problem``, ``solution``, ``answer`` (the tests) and perhaps ``entry_point``, ``id``, ``level``. The solution is a
whole program, or what stands behind the problem where that is the beginning of one (HumanEval). The tests are assertions, or a function
``check`` that is given the function. Without an ``entry_point`` it is the last function of the solution that the tests name.
"""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atesd_env.errors import DataError, shown
from atesd_env.tasks.data.rows import DataRow, id_field, level_field, refused, text_field, views_field
from atesd_env.tasks.data.shapes import ShapeError, as_our_fields, listed
from atesd_env.tasks.programs import find_function, parsed, signature, visible_examples, without_docstring

_CODE_OF_A_PROBLEM = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


@dataclass(frozen=True, kw_only=True)
class CodeRow(DataRow):
    """One usable row; ``answer`` is the function's signature and the examples that the problem shows, one a line.

    Attributes:
        context: The problem where it is a program (imports, helpers, the function's head), else "".
        tests: Assertions about the function, or a function ``check``.
        entry_point: The function's name.
    """

    context: str
    tests: str
    entry_point: str

    def as_fields(self) -> dict[str, Any]:
        return {
            **super().as_fields(),
            "problem": self.context or self.problem,
            "answer": self.tests,
            "entry_point": self.entry_point,
        }


def parse_code_row(
    path: str | Path,
    line: int,
    fields: Any,
    *,
    columns: Mapping[str, str] | None = None,
    needs_solution: bool = True,
) -> CodeRow:
    """Returns one row of a source, checked; as ``rows.parse_row`` for the arguments.

    Raises:
        DataError: If the row is malformed, or its solution is no Python that defines the function.
    """
    path = Path(path)
    if not isinstance(fields, Mapping):
        raise DataError(
            f"{path}, line {line}: expected a JSON object with problem, solution and answer (the tests), got "
            f"{shown(fields, longest=60)}; mend or remove the line."
        )
    there = listed(fields)
    try:
        # A test is no worked solution, whatever it looks like.
        ours = as_our_fields({"solution": "", **fields}, columns or {})
    except ShapeError as error:
        raise refused(path, line, error.field, error.expected, error.got, error.remedy) from error
    problem = text_field(path, line, ours, "problem", there)
    tests = text_field(path, line, ours, "answer", there)
    solution = text_field(path, line, ours, "solution", there, may_be_blank=True)
    if solution.strip() and parsed(solution) is None:
        solution = problem + solution
    entry_point = _entry_point(path, line, ours, solution or problem, tests)
    if solution.strip():
        if find_function(solution, entry_point) is None:
            expected = f"Python that defines {entry_point!r}"
            raise refused(path, line, "solution", expected, shown(solution, longest=60), "mend or remove the line")
        solution = without_docstring(solution, entry_point)
    context = problem if _is_program(problem) else ""
    examples = (signature(solution or problem, entry_point), *visible_examples(problem, entry_point))
    return CodeRow(
        line=line,
        id=id_field(path, line, ours),
        problem=problem.strip(),
        solution=solution,
        answer="\n".join(filter(None, examples)),
        level=level_field(path, line, ours) if needs_solution else None,
        views=views_field(path, line, ours) if needs_solution else (),
        context=context,
        tests=tests,
        entry_point=entry_point,
    )


def _entry_point(path: Path, line: int, fields: Mapping[str, Any], program: str, tests: str) -> str:
    if "entry_point" in fields:
        name = text_field(path, line, fields, "entry_point", listed(fields))
    else:
        tree = parsed(program)
        names = [node.name for node in (tree.body if tree else ()) if isinstance(node, ast.FunctionDef)]
        name = next((name for name in reversed(names) if re.search(rf"\b{re.escape(name)}\b", tests)), "")
    if not name.isidentifier() or keyword.iskeyword(name):
        expected = "the name of the function that is tested"
        raise refused(path, line, "entry_point", expected, repr(name[:60]), "add the field")
    return name


def _is_program(problem: str) -> bool:
    """Whether a problem is a program that does nothing but define: prose may be Python too ("Sum")."""
    tree = parsed(problem)
    return tree is not None and all(
        isinstance(node, _CODE_OF_A_PROBLEM) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in tree.body
    )
