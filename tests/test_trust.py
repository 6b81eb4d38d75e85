"""Every call that could run a stranger's code says that it must not."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOADERS = ("from_pretrained", "from_config", "LLM")  # data sets have no code to run since datasets 4
UNSAFE = {
    ("pickle", "loads"): {"atesd_env/population/workers.py"},  # pipes between our own processes
    ("pickle", "load"): set(),
    ("torch", "load"): set(),
    ("cloudpickle", "loads"): set(),
    ("np", "load"): set(),
    ("joblib", "load"): set(),
    ("yaml", "load"): set(),
}
FILES = [
    path
    for top in ("atesd_env", "agents", "atesd", "analysis", "benchmarks")
    for path in sorted((ROOT / top).rglob("*.py"))
]


def unsafe_calls(source: str) -> list[str]:
    """Returns the calls of loaders without ``trust_remote_code=False``, as "name, line"."""
    return [
        f"{called(node)}, line {node.lineno}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and called(node) in LOADERS
        and not any(
            one.arg == "trust_remote_code" and getattr(one.value, "value", None) is False for one in node.keywords
        )
    ]


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_loader_runs_code_and_nothing_is_unpickled(path: Path):
    source = path.read_text()
    assert unsafe_calls(source) == []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            allowed = UNSAFE.get((node.value.id, node.attr))
            assert allowed is None or str(path.relative_to(ROOT)) in allowed, f"line {node.lineno}"
        if isinstance(node, ast.keyword):
            assert (node.arg, getattr(node.value, "value", None)) not in {
                ("allow_pickle", True),
                ("weights_only", False),
            }


def test_the_check_sees_an_unsafe_call():
    assert unsafe_calls("AutoModel.from_pretrained(x)\nfrom_config(x, trust_remote_code=True)") == [
        "from_pretrained, line 1",
        "from_config, line 2",
    ]
    assert unsafe_calls("AutoModel.from_pretrained(x, trust_remote_code=False)") == []
