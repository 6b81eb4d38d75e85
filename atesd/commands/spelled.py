"""Refusals in the words of whoever typed: fields by the names of their flags."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection
from typing import Any

from atesd.commands.environment import DATA_SET
from atesd_env.config import BenchConfig, EnvConfig, SurrogateConfig, ToyConfig

_FIELD = re.compile(r"(?<![\w\-./:'\"`])(?<!option )([a-z]\w*)(=(?:'([^']*)'|([\w./-]+))|(: expected\b))?(?![\w/'\"`])")


def flag_names(command: type[Any]) -> set[str]:
    """Returns the names of a verb's flags, with underscores."""
    names = {field.name for field in dataclasses.fields(command) if "Positional" not in str(field.type)}
    if "config" not in names:
        return names
    fields = (leaf.names() for leaf in (EnvConfig, ToyConfig, SurrogateConfig, BenchConfig))
    return (names - {"config"}).union(*fields, (one.name for one in DATA_SET))


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
