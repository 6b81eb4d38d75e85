"""A command given as a file: ``atesd run --config run.yaml``, with flags that go before it; a run's own ``config.json`` works too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.files.atomic import write_atomically
from atesd_env.files.ownership import MARKER
from atesd_env.files.reading import open_regular, reading

_FLAG = "--config"
_MOST_BYTES = 2**20
# What a run's own file calls what a flag calls otherwise.
_RUNS_NAMES = {"env_id": "env", "seed": "seeds"}
_RUNS_OWN = ("format_version", "run", "config", "student_source", "versions", MARKER)


def with_file(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments of a command, with those of the file that ``--config`` names in front where no flag says otherwise.

    Args:
        arguments: What was typed behind the verb.

    Raises:
        ConfigError: If the file holds something else than names and plain values.
        RunFilesError: If it cannot be read.
    """
    path = _path(arguments)
    if path is None:
        return list(arguments)
    typed = {argument.partition("=")[0].replace("_", "-") for argument in arguments if argument.startswith("--")}
    front: list[str] = []
    for name, value in _entries(path).items():
        flag = f"--{name.replace('_', '-')}"
        if flag in typed or f"--no-{flag[2:]}" in typed:
            continue
        if isinstance(value, bool):
            front.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, list):
            front += [flag, *map(str, value)]
        else:
            front += [flag, str(value)]
    return [*front, *arguments]


def _path(arguments: Sequence[str]) -> Path | None:
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == _FLAG:
            following = value if equals else next(iter(arguments[place + 1 :]), "")
            if not following or following.startswith("--"):
                raise ConfigError(f"config: expected a file behind {_FLAG}, got none; name a YAML or JSON file.")
            return Path(following)
    return None


def _entries(path: Path) -> dict[str, Any]:
    """Returns a file's names and values, those of a run's configuration among them."""
    with reading(path, "a command's file", remedy="name a YAML or JSON file (--config)"), open_regular(path) as file:
        text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise RunFilesError(
                f"{path}: expected a command's file of at most 1 MiB, got more; name another (--config)."
            )
        try:
            content: Any = yaml.safe_load(text.decode())
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigError(
                f"{path}: expected YAML or JSON, got {str(error)[:200]!r}; mend it (--config)."
            ) from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ConfigError(f"{path}: expected names and values, got {content!r:.80}; write `name: value` lines.")
    fields = content.get("config")
    flat: dict[str, Any] = content if not isinstance(fields, dict) else content | fields
    entries: dict[str, Any] = {
        _RUNS_NAMES.get(name, name): value for name, value in flat.items() if name not in _RUNS_OWN
    }
    for name, value in entries.items():
        values = value if isinstance(value, list) else [value]
        if any(isinstance(one, dict | list) for one in values):
            raise ConfigError(
                f"{path}: expected a plain value or a list of them for {name!r}, got {value!r:.80}; mend it."
            )
    return entries


def save(path: Path, entries: Mapping[str, Any]) -> None:
    """Writes a command's names and values as YAML, for ``--config``.

    Raises:
        RunFilesError: If it cannot be written.
    """
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in entries.items()}
    write_atomically(path, yaml.safe_dump(plain, sort_keys=False).encode())
