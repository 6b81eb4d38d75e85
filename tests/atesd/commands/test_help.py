"""The table of verbs, the help of each, the ways to start the command, and what completes it in a shell."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from atesd.commands.verbs import VERBS
from docs.generator.command_pages import help_of
from tests.programs import ATESD, ROOT, ran

MODULE = [sys.executable, "-m", "atesd"]


@pytest.mark.parametrize("verb", VERBS)
def test_help_begins_with_an_example_that_its_options_can_read(verb: str):
    first, rest = help_of([verb, "--help"]).split("\n", 1)
    example = VERBS[verb].example
    assert first == f"example: {example}"
    assert f"usage: atesd {verb}" in rest
    options = set(re.findall(r"^[\s\u2502|]+(?:-\w, )?(--[a-z][\w-]*)", rest, flags=re.MULTILINE))
    assert set(re.findall(r"--[a-z][\w-]*", example)) <= options


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_the_overview_begins_with_an_example_and_has_every_verb(arguments: list[str]):
    lines = help_of(arguments).splitlines()
    assert lines[0].startswith("example: atesd run ")
    assert [verb for verb in VERBS if not any(line.startswith(f"  {verb} ") for line in lines)] == []


def test_every_file_of_a_verb_is_in_the_table():
    """A verb that is not in the table could not be typed."""
    commands = ROOT / "atesd" / "commands"
    files = {path.stem for path in commands.glob("*.py") if "\nclass Command:" in path.read_text()}
    assert files == {verb.replace("-", "_") for verb in VERBS}


def test_no_verb_has_flags_of_the_configuration_behind_a_prefix():
    for verb in VERBS:
        assert "--config." not in help_of([verb, "--help"])


def test_the_module_is_the_command():
    command, module = (ran(*start, "watch", "--help") for start in ([ATESD], MODULE))
    assert "usage: atesd watch" in command.stdout
    assert command.stdout == module.stdout


def test_bash_completes_verbs_and_options(tmp_path: Path):
    (tmp_path / "atesd").write_text(ran(*MODULE, "--tyro-print-completion", "bash").stdout)
    asked = "".join(
        f'COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; COMPREPLY=(); $complete; echo "${{COMPREPLY[@]}}"\n'
        for words in (("atesd", "rep"), ("atesd", "report", "--s"), ("atesd", "run", "--checkp"))
    )
    found = "complete=$(complete -p atesd | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n"
    result = ran("bash", "-c", f"source {tmp_path / 'atesd'}\n{found}{asked}")
    assert result.stdout.splitlines() == ["report", "--samples", "--checkpoint-every"]
