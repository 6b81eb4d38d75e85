"""The help of every verb, and the completion made from it."""

from __future__ import annotations

import re
import subprocess

import pytest

from atesd.commands.cli import _VERBS, EXAMPLES
from atesd.commands.completion import help_of, options_of, script

VERBS = list(_VERBS)


def test_every_verb_has_an_example():
    assert list(EXAMPLES) == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_help_begins_with_an_example_that_its_options_can_read(verb: str):
    first, rest = help_of([verb, "--help"]).split("\n", 1)
    assert first == f"example: {EXAMPLES[verb]}"
    assert f"usage: atesd {verb}" in rest
    assert set(re.findall(r"--[a-z][\w-]*", EXAMPLES[verb])) <= set(options_of(verb))


def test_the_overview_begins_with_an_example_and_has_every_verb():
    lines = help_of(["--help"]).splitlines()
    assert lines[0].startswith("example: atesd run ")
    assert [verb for verb in VERBS if not any(line.startswith(f"  {verb} ") for line in lines)] == []


def test_bash_completes_verbs_options_environments_and_agents():
    completion = script({"run": ["--env", "--agent", "--out"], "report": ["--out", "--samples"]})
    asked = "".join(
        f'COMP_WORDS=({" ".join(words)}{last!r}); COMP_CWORD={len(words)}; COMPREPLY=(); _atesd; echo "${{COMPREPLY[@]}}"\n'
        for *words, last in (
            ("atesd ", ""),
            ("atesd ", "rep"),
            ("atesd ", "report ", "--s"),
            ("atesd ", "run ", "--env ", "ATESD-To"),
            ("atesd ", "run ", "--agent ", "exp"),
            ("atesd ", "run ", "--agent ", "sf"),
        )
    )
    result = subprocess.run(["bash", "-c", completion + asked], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["run report --help", "report", "--samples", "ATESD-Toy-v0", "exp3s", "sft"]
