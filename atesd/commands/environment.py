"""The environment's part of a command: ``--env`` says whose configuration stands behind the other flags."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from atesd_env.config import RunConfig, SurrogateConfig, preset

Command = TypeVar("Command")
"""A command's dataclass, with the fields ``env`` and ``config``; those without a default are required flags."""


def parse_command(command: type[Command], arguments: Sequence[str], prog: str) -> Command:
    """Returns the command that was typed; its flags are its own fields and those of the environment's leaf.

    Raises:
        ConfigError: If the environment id is unknown, or a value is refused.
        RunFilesError: If a surrogate's file cannot be read.
    """
    fields = dataclasses.fields(command)  # type: ignore[arg-type]
    chosen = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chosen.add_argument("--env", default=next(field.default for field in fields if field.name == "env"))
    chosen.add_argument("--file")
    first = chosen.parse_known_args(arguments)[0]
    config = preset(first.env)
    values: dict[str, Any] = {
        field.name: tyro.MISSING
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    values |= {
        "env": first.env,
        "config": _surrogate_flags(first.file) if isinstance(config, SurrogateConfig) else config,
    }
    typed = tyro.cli(command, args=list(arguments), default=command(**values), prog=prog)
    if isinstance(config, SurrogateConfig):
        plain = SurrogateConfig(**typed.config.keywords())  # type: ignore[attr-defined]
        return dataclasses.replace(typed, config=plain)  # type: ignore[type-var]
    return typed


def _surrogate_flags(file: str | None) -> SurrogateConfig:
    """Returns what the flags of a surrogate begin with: what its runs had is known from its file, and is no flag."""
    if file is None:
        config = SurrogateConfig()
    else:
        from atesd_env.simulated.surrogate import surrogate_config

        config = surrogate_config(file)
    hints = typing.get_type_hints(SurrogateConfig)
    fixed = [name for name in RunConfig.names() if name not in RunConfig.names("is_reward")]
    annotations = {name: tyro.conf.Suppress[hints[name]] for name in fixed}  # type: ignore[misc, valid-type]
    shown = type("SurrogateConfig", (SurrogateConfig,), {"__annotations__": annotations})
    flags: SurrogateConfig = shown(**config.keywords())
    if file is None:
        object.__setattr__(flags, "file", tyro.MISSING)  # tyro asks for it, and shows in --help that it must be given
    return flags
