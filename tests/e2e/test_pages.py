"""Every page of docs/: its commands and programs run in the page's order, from an empty folder, as they are typed.

Above a block, unseen by who reads the site, a page may say otherwise, in ``<!-- test: ... -->``: ``small [FLAGS]`` (with sizes of
seconds, and these flags behind each command), ``OLD -> NEW`` (a number that takes minutes), ``understood`` (it needs a GPU, the hub,
a terminal or many minutes: verb and flags are looked up), or the file of the test that runs it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from atesd.commands.spelled import check_flags, flag_names
from atesd.commands.verbs import VERBS
from tests.models import save_narrow_qwen3
from tests.programs import ROOT, typed, without_processes

DOCS = ROOT / "docs"
BLOCK = re.compile(r"(?:<!-- test: ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if "```" in page.read_text() and "gsm8k" not in str(page)]
SMALL = {
    "run": "--windows 1 --hold-window 1 --num-rollouts 2 --max-new-tokens 8 --probe-size 2 --seeds 0 --quiet",
    "evaluate": "--max-problems 2 --k 2 --sampling-tokens 8 --quiet",
}
SMALL |= {"compare": SMALL["run"], "train": "--total-windows 320 --quiet"}
OTHERS = ("pip", "make", "export")
"""Programs that are not ours."""
OTHER_FLAGS = set(
    re.findall(
        r"--\S+",
        "--splits --check --num_processes --multi_gpu --eval-freq --optimize-hyperparameters --env-kwargs --hyperparams "
        "--enable-lora --fixed_teacher --use_ema_teacher --beta --top_k_loss --use_tinker_loss --reason_first",
    )
)
"""Flags in the pages' prose of other programs: scripts, launchers, RL Zoo, vLLM and OPSD."""


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Returns a page's blocks as (what is said of the test, language, text)."""
    return BLOCK.findall(page.read_text())


def commands_of(text: str) -> list[list[str]]:
    """Returns the words of each command of ours."""
    lines = (shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines())
    return [words for words in lines if words and words[0] not in OTHERS]


def help_flags(verb: str, words: list[str]) -> set[str]:
    """Returns the flags of a verb with the environment that a command names."""
    env = words[words.index("--env") :][:2] if "--env" in words else []
    return flags_in(verb, *env)


@functools.cache
def flags_in(*arguments: str) -> set[str]:
    return set(re.findall(r"--[a-z][\w-]*", typed(*arguments, "--help").stdout))


def smaller(verb: str, words: list[str]) -> list[str]:
    """Returns what makes a command one of seconds; a closed form is that anyway."""
    return [] if verb != "train" and "ATESD-Toy-v0" in words else SMALL[verb].split()


def follow(said: str, language: str, text: str, names: dict[str, object]) -> None:
    """Does with a block what its page says."""
    if (ROOT / said).is_file():
        return
    old, arrow, new = said.partition(" -> ")
    if arrow:
        assert old in text
        text = text.replace(old, new)
    if language == "python":
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(text, "page", "exec"), names)
        return
    for program, verb, *rest in commands_of(text):
        if said == "understood":
            if program == "atesd":
                assert {word for word in rest if word.startswith("--")} <= help_flags(verb, rest), text
            continue
        assert program == "atesd", f"{program}: say which test runs it"
        how, *more = said.split() if said and not arrow else ("",)
        assert how in ("", "small"), f"{said}: not a word of this test"
        with without_processes():
            result = typed(verb, *rest, *(smaller(verb, rest) if how else ()), *more, cwd=Path.cwd())
        assert result.returncode == 0, f"{verb} {rest}\n{result.stdout}\n{result.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_command_and_program_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setenv("MINARI_DATASETS_PATH", "")  # the page sets it
    if "./my-model" in page.read_text():  # what the reader of a page has in the folder
        save_narrow_qwen3(Path("my-model"))
    if page == DOCS / "tasks/code.md":
        shutil.copyfile(ROOT / "tests/data/mbppplus_sample.jsonl", "problems.jsonl")
    names: dict[str, object] = {"__name__": "reader"}
    for said, language, text in blocks(page):
        if language in ("sh", "python"):
            follow(said, language, text, names)


def test_blocks_are_of_a_language_that_is_tested():
    assert {language for page in PAGES for _, language, _ in blocks(page)} == {"sh", "python", "json", "toml"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_flags_named_in_a_pages_prose_exist(page: Path):
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for line in dict.fromkeys(re.findall(r"`atesd ([a-z-]+ [^`]*--[^`]*)`", prose)):
        verb, *rest = shlex.split(line.replace("\n", " "))
        assert verb in VERBS, line
        flags = {word.partition("=")[0] for word in rest if word.startswith("--")} - {"--help"}
        assert flags <= help_flags(verb, rest), line
    named = set(re.findall(r"`(--[a-z][\w-]*)", prose)) - OTHER_FLAGS
    check_flags(sorted(named), set().union(*(flag_names(verb.module().Command) for verb in VERBS.values())))
