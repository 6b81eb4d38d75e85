"""Refusals in the words of whoever typed: fields by the names of their flags, and flags that there are not."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable
from typing import Any

from atesd.commands.environment import DATA_SET
from atesd_env.config import BenchConfig, EnvConfig, SurrogateConfig, ToyConfig
from atesd_env.errors import ConfigError
from atesd_env.hints import nearest

_FIELD = re.compile(r"(?<![\w\-./:'\"`])(?<!option )([a-z]\w*)(=(?:'([^']*)'|([\w./-]+))|(: expected\b))?(?![\w/'\"`])")

_COLUMNS = ("--data-columns", "--benchmark-columns")


def flag_names(command: type[Any]) -> set[str]:
    """Returns the names of a verb's flags, with underscores."""
    names = {field.name for field in dataclasses.fields(command) if "Positional" not in str(field.type)}
    if "config" not in names:
        return names
    fields = (leaf.names() for leaf in (EnvConfig, ToyConfig, SurrogateConfig, BenchConfig))
    # The configuration's fields are flags, not itself; the flag of that name is a file's, where a verb takes one.
    own = names - {"config", "config_file"} | ({"config"} if "config_file" in names else set())
    return own.union(*fields, (one.name for one in DATA_SET))


def check_flags(arguments: Iterable[str], names: Collection[str]) -> None:
    """Looks flags up in a verb's.

    Raises:
        ConfigError: If it has not such a one; the message names the nearest.
    """
    flags = [f"--{name.replace('_', '-')}" for name in (*names, "help")]
    for typed in (word.partition("=")[0] for word in arguments if word.startswith("--")):
        flag = typed.replace("_", "-")
        if flag not in flags and flag.replace("--no-", "--", 1) not in flags and not flag.startswith("--tyro-"):
            found = nearest(flag[2:], (one[2:] for one in flags))
            hint = f"did you mean --{found}?" if found else "--help lists them."
            raise ConfigError(f"{typed}: expected a flag of this verb, got one that it has not; {hint}")


def with_columns_joined(arguments: Iterable[str]) -> list[str]:
    """Returns arguments in which columns that stand behind their flag one by one are a single word.

    >>> with_columns_joined(["rows.jsonl", "--data-columns", "problem=q", "answer=a", "--examples", "2"])
    ['rows.jsonl', '--data-columns', 'problem=q,answer=a', '--examples', '2']
    """
    joined: list[str] = []
    for word in arguments:
        if joined[-2:-1] and joined[-2] in _COLUMNS and re.fullmatch(r"[a-z]+=.+", word):
            joined[-1] += f",{word}"
        else:
            joined.append(word)
    return joined


def in_flags(message: str, names: Collection[str]) -> str:
    """Returns a refusal in which a field of the verb is written as its flag.

    A name of one word stands for its field only before ``: expected`` or ``=``; behind ``option`` it is an agent's.

    >>> in_flags("data_path: expected a file, got none; pass data_path='rows.jsonl', or task=math.", {"data_path", "task"})
    '--data-path: expected a file, got none; pass --data-path rows.jsonl, or --task math.'
    """

    def flag(match: re.Match[str]) -> str:
        name, assigned, quoted, bare, expected = match.groups()
        if name not in names or ("_" not in name and not assigned):
            return match[0]
        value = quoted if quoted is not None else bare
        text = "" if value in (None, "True", "False") else f" {value}"
        return f"--{'no-' if value == 'False' else ''}{name.replace('_', '-')}{expected or ''}{text}"

    return _FIELD.sub(flag, message)
