"""The house in figures: files, circles, upward imports, lengths, lines.

``python -m benchmarks.house --before e818318 da6bd99`` prints a column for each of these commits and one for the working
tree, and writes ``benchmarks/results/house.json``.  Product lines are the lines, blank ones and comments too, of the .py
files of the packages; test lines are those of ``tests/``.

An import counts wherever it stands: late, for types only, or listed by a room's face (`atesd_env.lazy`).  An upward
import goes to a higher floor of ``FLOORS``; a module that stands in no room (before the rooms there were none) has no
floor, and its imports are not judged.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
PACKAGES = ("atesd_env", "agents", "atesd", "analysis")


def _floors() -> list[list[str]]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (rooms,) = (contract for contract in contracts if contract.get("containers") == ["atesd_env"])
    return [re.findall(r"\w+", layer) for layer in reversed(rooms["layers"])]


FLOORS = _floors()
"""The rooms of ``atesd_env`` from the ground up, as import-linter's contract in pyproject.toml lists them."""


class Module(NamedTuple):
    """One file of a package.

    Attributes:
        name: As it is imported: ``atesd_env.tasks.base``; a package's ``__init__`` has the package's name.
        path: The file.
        tree: What stands in it.
        num_lines: Lines of the file.
    """

    name: str
    path: Path
    tree: ast.Module
    num_lines: int


def modules(root: Path) -> dict[str, Module]:
    """Returns the modules of all packages below ``root`` by name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            text = path.read_text()
            found[name] = Module(name, path.relative_to(root), ast.parse(text), len(text.splitlines()))
    return found


def imports(house: dict[str, Module]) -> dict[str, set[str]]:
    """Returns which modules each module names in an import, wherever the import stands."""
    return {name: set(_imported(module, house)) - {name} for name, module in house.items()}


def _imported(module: Module, house: dict[str, Module]) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # What is named may be a module itself; if it is not, the module before it was meant.
            named = [f"{node.module}.{alias.name}" for alias in node.names]
            named = [name if name in house else node.module for name in named]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "on_first_use":
            homes = node.args[1]
            assert isinstance(homes, ast.Dict), "a face lists its modules by name"
            named = [f"{module.name}.{ast.literal_eval(key)}" for key in homes.keys if key is not None]
        else:
            continue
        yield from (name for name in named if name in house)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Returns the sets of modules that import each other, by however many steps (Tarjan).

    >>> circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})
    [['a', 'b', 'c']]
    """
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = lowest[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
            if other in stack:
                lowest[node] = min(lowest[node], lowest[other])
        if lowest[node] == index[node]:
            members = [stack.pop()]
            while members[-1] != node:
                members.append(stack.pop())
            if len(members) > 1:
                found.append(sorted(members))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def floor(name: str) -> int | None:
    """Returns the floor of a module of ``atesd_env``, from 0; None for what stands in no room.

    >>> floor("atesd_env.tasks.data.rows"), floor("agents.beta")
    (2, None)
    """
    package, *rooms = name.split(".")
    if package != "atesd_env" or not rooms:
        return None
    return next((number for number, names in enumerate(FLOORS) if rooms[0] in names), None)


def upward_imports(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Returns (importer, imported) of the imports that go up."""
    pairs = ((name, other) for name, others in sorted(graph.items()) for other in sorted(others))
    return [
        (name, other)
        for name, other in pairs
        if (lower := floor(name)) is not None and (upper := floor(other)) is not None and lower < upper
    ]


def functions(house: dict[str, Module]) -> dict[str, int]:
    """Returns the length in lines, from ``def`` to the end, of every function and method by module and name."""
    return {
        f"{module.path}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for module in house.values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def figures(root: Path) -> dict[str, Any]:
    """Returns the figures of the tree below ``root``; ``..._where`` tells where the extremes stand."""
    house = modules(root)
    graph = imports(house)
    file_lines = {str(module.path): module.num_lines for module in house.values()}
    function_lines = functions(house)
    circle, up = circles(graph), upward_imports(graph)
    has_rooms = (root / "atesd_env" / "population").is_dir()
    return {
        "root_files": len(list((root / "atesd_env").glob("*.py"))),
        "files": len(house),
        "circles": len(circle),
        "circles_where": circle,
        "upward_imports": len(up) if has_rooms else None,
        "upward_imports_where": [f"{name} -> {other}" for name, other in up],
        "longest_file": max(file_lines.values()),
        "longest_file_where": max(file_lines, key=file_lines.__getitem__),
        "longest_function": max(function_lines.values()),
        "longest_function_where": max(function_lines, key=function_lines.__getitem__),
        "product_lines": sum(file_lines.values()),
        "test_lines": sum(len(path.read_text().splitlines()) for path in (root / "tests").rglob("*.py")),
    }


def figures_at(revision: str) -> dict[str, Any]:
    """Returns the figures of a commit."""
    archive = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
        return figures(Path(folder))


ROWS = (
    ("root_files", "files directly in atesd_env/", "<= 12"),
    ("files", "files of the packages", ""),
    ("circles", "import circles", "0"),
    ("upward_imports", "upward imports", "0"),
    ("longest_file", "longest file (lines)", "<= 400"),
    ("longest_function", "longest function (lines)", "<= 60"),
    ("product_lines", "product lines", "< 27,500"),
    ("test_lines", "test lines", "< 21,500"),
)
"""Figure, its name in words, what it should be."""


def table(columns: dict[str, dict[str, Any]]) -> str:
    """Returns the figures as a table for people, a column for each tree."""
    lines = [["", *columns, "wanted"]]
    for key, words, wanted in ROWS:
        values = [figure[key] for figure in columns.values()]
        lines.append([words, *("-" if value is None else f"{value:,}" for value in values), wanted])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in lines
    )


def main() -> None:
    import argparse

    from benchmarks.common import save

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", nargs="*", default=[], metavar="REV", help="commits to compare with")
    arguments = parser.parse_args()
    columns = {revision: figures_at(revision) for revision in arguments.before} | {"now": figures(ROOT)}
    save("house", columns)
    print(table(columns))


if __name__ == "__main__":
    main()
