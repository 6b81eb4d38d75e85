"""What README and the documentation import is the public face: the packages and the rooms, and no file inside of them."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("atesd_env", "agents", "analysis", "atesd")
ROOMS = {f"atesd_env.{path.parent.name}" for path in (ROOT / "atesd_env").glob("*/__init__.py")}
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])

NAMES = {
    "agents": {"Agent"},
    "analysis": {"load_runs", "plot_exposure"},
    "atesd": {"ExposureCallback"},
    "atesd_env": {"PromptBuilder", "counterfactual", "exposure_scores", "preset"},
    "atesd_env.bench": {"InstanceSet", "check_instance_set"},
    "atesd_env.distillation": {"mean_columns", "measured_update", "rollout_weights"},
    "atesd_env.envs": {"LoopStatistics"},
    "atesd_env.rollouts": {"SamplingSpec", "generate"},
    "atesd_env.student": {"load_student"},
    "atesd_env.tasks": {"ArithmeticTask", "GeneratedTask", "Problem"},
}
"""Package or room -> the names that pages import from it; whoever uses another one on a page adds it here."""


def imported(page: str) -> set[tuple[str, str]]:
    """Returns (module, name) of each import of ours in a page's Python snippets; an empty name for the module itself."""
    found = set()
    for snippet in re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE):
        for node in ast.walk(ast.parse(snippet)):
            if isinstance(node, ast.Import):
                found |= {(alias.name, "") for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found |= {(str(node.module), alias.name) for alias in node.names}
    return {(module, name) for module, name in found if module.split(".")[0] in PACKAGES}


@pytest.fixture(scope="module")
def used() -> set[tuple[str, str]]:
    return set().union(*(imported(page.read_text()) for page in PAGES))


def test_pages_import_from_faces_alone(used: set[tuple[str, str]]):
    assert {module for module, _ in used} <= {*PACKAGES, *ROOMS}
    assert {("atesd_env", ""), ("agents", ""), ("analysis", "")} <= used, "pages do import us"


def test_the_names_that_pages_import_are_these_and_exist(used: set[tuple[str, str]]):
    names: dict[str, set[str]] = {}
    for module, name in used:
        if name:
            names.setdefault(module, set()).add(name)
    assert names == NAMES
    for module, expected in names.items():
        face = importlib.import_module(module)
        assert expected <= set(face.__all__)
        assert all(hasattr(face, name) for name in expected)


def test_imports_are_found():
    page = "```python\nimport numpy, agents\nfrom atesd_env.envs.branch import counterfactual as follow\n```\n"
    assert imported(page) == {("agents", ""), ("atesd_env.envs.branch", "counterfactual")}
    assert imported(page.replace("python", "text")) == set()
