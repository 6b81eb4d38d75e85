"""``atesd completion``: a script that lets bash complete verbs, options, environment ids and agents.

The script holds everything, so that completing starts no Python. tyro's own scripts complete a program of one parser; ours
has one for each verb.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import gymnasium
import tyro

import atesd_env  # noqa: F401  (registers the ids)
from agents.specs.registry import BASELINES
from agents.specs.table import AGENTS

_SCRIPT = """\
_atesd() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="{verbs} --help"
  else
    case "$previous" in
      --env) words="{env_ids}" ;;
      --agent|--agents) words="{agents}" ;;
      *)
        case "${{COMP_WORDS[1]}}" in
{cases}
        esac ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _atesd atesd
"""


@dataclass(frozen=True)
class CompletionCommand:
    """Print a script with which bash completes verbs, options, environment ids and agents.

    In zsh: autoload -U bashcompinit && bashcompinit, then the same.
    """


def completion(arguments: Sequence[str]) -> None:
    """``atesd completion``."""
    tyro.cli(CompletionCommand, args=list(arguments), prog="atesd completion")
    from atesd.commands.cli import EXAMPLES

    print(script({verb: options_of(verb) for verb in EXAMPLES}), end="")


def script(options: Mapping[str, Sequence[str]]) -> str:
    """Returns the script for verbs and their options."""
    cases = "\n".join(f'          {verb}) words="{" ".join(names)}" ;;' for verb, names in options.items())
    return _SCRIPT.format(
        verbs=" ".join(options),
        env_ids=" ".join(env_id for env_id in gymnasium.registry if env_id.startswith("ATESD-")),
        agents=" ".join(entry.name for entry in (*AGENTS, *BASELINES)),
        cases=cases,
    )


def options_of(verb: str) -> list[str]:
    """Returns the long options in a verb's help, in its order.

    >>> "--samples" in options_of("report")
    True
    """
    lines = re.findall(r"^[\s\u2502|]+(?:-\w, )?(--[a-z].*)$", help_of([verb, "--help"]), flags=re.MULTILINE)
    names = [name for line in lines for name in re.findall(r"--[a-z][\w-]*", line.partition("  ")[0])]
    return list(dict.fromkeys(names))


def help_of(arguments: Sequence[str], columns: int = 100) -> str:
    """Returns what the command prints for arguments that ask for help, as plain text of a given width."""
    from atesd.commands.cli import main

    output = io.StringIO()
    before = dict(os.environ)
    os.environ.update({"COLUMNS": str(columns), "NO_COLOR": "1"})
    try:
        with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
            main(arguments)
    finally:
        os.environ.clear()
        os.environ.update(before)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", output.getvalue()).splitlines()
    return "\n".join(line.rstrip() for line in lines).strip()
