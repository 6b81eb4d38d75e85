"""Every message of an exception that we raise ourselves says what was expected, what came, and what to do."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {
    name.name
    for name in ast.parse((ROOT / "atesd_env" / "errors.py").read_text()).body
    if isinstance(name, ast.ClassDef)
} | {"AnalysisError", "DamagedRunError", "NoRunsError", "NotImplementedError"}
CAME = ("got", "found", "but", "also", "lacks", " is ", "misses")


def messages(source: str) -> list[tuple[int, str]]:
    """Returns line and text of each message that is written where it is raised or returned, with `{}` for what is inserted."""
    found = []
    for node in ast.walk(ast.parse(source)):
        call = node.exc if isinstance(node, ast.Raise) else node.value if isinstance(node, ast.Return) else None
        if (
            not isinstance(call, ast.Call)
            or not isinstance(call.func, ast.Name)
            or call.func.id not in OURS
            or not call.args
        ):
            continue
        text = written(call.args[0])
        if len(text.replace("{}", "").strip(" :;.")) > 20:  # others pass on a message that was made elsewhere
            found.append((node.lineno, text))
    return found


def written(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return ""


def lacking(text: str) -> list[str]:
    """Returns which of the three parts a message lacks."""
    if text.endswith((". {}", ": {}")):  # another message, which has the three parts, follows
        return []
    parts = []
    if "expected" not in text:
        parts.append("what was expected")
    if not any(word in text for word in CAME):
        parts.append("what came")
    if not any(sign in text for sign in ("; ", ". ", ".{} ")) and ". " not in text:
        parts.append("what to do")
    return parts


@pytest.mark.parametrize("package", ["atesd_env", "agents", "atesd", "analysis"])
def test_messages_have_three_parts(package: str):
    faults = [
        f"{path.relative_to(ROOT)}:{line}: {', '.join(lacking(text))}: {text}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, text in messages(path.read_text())
        if lacking(text)
    ]
    assert faults == []


def test_messages_are_found_and_judged():
    source = 'raise ConfigError(f"k: expected 1, got {k}; pass 1.")\nraise ConfigError(f"k of {k} is a bad number.")\n'
    assert [line for line, _ in messages(source)] == [1, 2]
    assert [lacking(text) for _, text in messages(source)] == [[], ["what was expected", "what to do"]]
