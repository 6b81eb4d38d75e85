r"""Program texts: where a reference program is cut into steps, and what of a rollout is its program. Pure functions.

The steps of a program are its blocks: a cut stands before each statement at the top of the program and before each statement at the top
of a function's body there. An import, a function's head and its docstring say little by themselves: they stay with the statement behind
them. A comment stays with what it stands above (one that is indented further, with what is before); blank lines stay with the step before.
A class is one block. The steps joined give the program back.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_FENCED = re.compile(
    r"^[ \t]*```[ \t]*(?:python3?|py)?[ \t]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE | re.IGNORECASE
)
_DOCTEST = re.compile(r"^[ \t]*>>> (?P<call>.+)\n(?P<value>.*)", re.MULTILINE)
_ASSERTION = re.compile(r"^[ \t]*(assert .+)$", re.MULTILINE)
_Function = (ast.FunctionDef, ast.AsyncFunctionDef)


def parsed(program: str) -> ast.Module | None:
    """Returns a program's tree, or None if it is no Python."""
    try:
        return ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def split_program(program: str) -> tuple[str, ...]:
    r"""Cuts a program into steps by this module's rule; ``"".join`` of them is the program.

    A text that is no Python is one step.

    >>> split_program("import math\ndef f(x):\n    y = x\n    # twice\n    return 2 * y\n")
    ('import math\ndef f(x):\n    y = x\n', '    # twice\n    return 2 * y\n')
    """
    tree = parsed(program)
    if tree is None or not tree.body:
        return (program,) if program else ()
    lines = _LINE.findall(program)
    cuts = [0]
    end_of_last = 0  # line, from 1, in which the block before ends
    for statement in _blocks(tree):
        first = _first_line(statement)
        while first - 1 > end_of_last and _is_comment(lines[first - 2], statement.col_offset):
            first -= 1
        is_alone = not lines[first - 1][: statement.col_offset].strip() or first < _first_line(statement)
        if first - 1 > cuts[-1] and first > end_of_last and is_alone and not _is_head(lines, cuts[-1], first - 1):
            cuts.append(first - 1)
        end_of_last = statement.end_lineno or first
    ends = [*cuts[1:], len(lines)]
    return tuple("".join(lines[start:end]) for start, end in zip(cuts, ends, strict=True))


def _blocks(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yields the statements that a cut may stand before, in order; of a function its head, then its body."""
    for statement in tree.body:
        if isinstance(statement, _Function) and statement.body[0].lineno > statement.lineno:
            # The head ends where the body begins.
            yield ast.Pass(
                lineno=_first_line(statement), col_offset=statement.col_offset, end_lineno=statement.body[0].lineno - 1
            )
            yield from statement.body
        else:
            yield statement


def _first_line(statement: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(decorator.lineno for decorator in decorators)])


def _is_comment(line: str, most_blanks: int) -> bool:
    """Whether a line is a comment that is not indented further than what it may belong to."""
    bare = line.lstrip()
    return bare.startswith("#") and len(line) - len(bare) <= most_blanks


def _is_head(lines: list[str], start: int, end: int) -> bool:
    """Whether lines hold nothing but imports, a function's head, docstrings and comments, which stay with what follows."""
    text = "".join(lines[start:end])
    tree = parsed(text)
    if tree is None:
        tree = parsed(f"{text.rstrip()}\n    pass\n")
    if tree is None:
        return False
    statements = [
        inner
        for statement in tree.body
        for inner in (statement.body if isinstance(statement, _Function) else [statement])
    ]
    return all(
        isinstance(inner, ast.Import | ast.ImportFrom | ast.Pass)
        or (isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant))
        for inner in statements
    )


def find_function(program: str, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """Returns the last function of that name at the top of a program, or None."""
    tree = parsed(program)
    found = [node for node in (tree.body if tree else ()) if isinstance(node, _Function) and node.name == name]
    return found[-1] if found else None


def signature(program: str, name: str) -> str:
    r"""Returns the head of a function without its colon, on one line; "" if there is no such function.

    >>> signature("def f(x: int, *, y=2) -> int:\n    return x", "f")
    'def f(x: int, *, y=2) -> int'
    """
    function = find_function(program, name)
    if function is None:
        return ""
    returned = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    return f"def {name}({ast.unparse(function.args)}){returned}"


def visible_examples(problem: str, name: str) -> tuple[str, ...]:
    r"""Returns the examples of a function that a problem's text shows, as assertions: doctests and lines of ``assert``.

    >>> visible_examples("Doubles.\n>>> f(2)\n4\nassert f(3) == 6\n", "f")
    ('assert f(2) == 4', 'assert f(3) == 6')
    """
    called = re.compile(rf"\b{re.escape(name)}\(")
    examples = []
    # The value of one call may be the line of the next, so the search goes on behind each call.
    for start in re.finditer(r"^[ \t]*>>> ", problem, re.MULTILINE):
        if match := _DOCTEST.match(problem, start.start()):
            call, value = match["call"].strip(), match["value"].strip()
            if " == " in call:
                examples.append(f"assert {call}")
            elif value and not value.startswith((">>>", '"""', "'''")):
                examples.append(f"assert {call} == {value}")
    examples += [match[1].strip() for match in _ASSERTION.finditer(problem)]
    return tuple(example for example in examples if called.search(example))


def without_docstring(program: str, name: str) -> str:
    """Returns a program without the docstring of one of its functions, which for a reference is the problem once more."""
    function = find_function(program, name)
    if function is None or ast.get_docstring(function) is None or len(function.body) < 2:
        return program
    docstring = function.body[0]
    lines = _LINE.findall(program)
    is_alone = docstring.lineno > function.lineno and function.body[1].lineno > (docstring.end_lineno or 0)
    return "".join(lines[: docstring.lineno - 1] + lines[docstring.end_lineno :]) if is_alone else program


def program_of(text: str) -> str | None:
    r"""Returns the program that a rollout states: the last closed block between fences that is Python's or nobody's.

    >>> program_of("So:\n```python\ndef f(x):\n    return x\n```\n")
    'def f(x):\n    return x\n'
    """
    blocks = _FENCED.findall(text)
    return blocks[-1] if blocks and blocks[-1].strip() else None
