"""The environment's part of a command: ``--env`` says whose configuration stands behind the other flags."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from atesd_env.config import BenchConfig, EnvConfig, RunConfig, SurrogateConfig, preset_of
from atesd_env.tasks.data.sources import named_source

Command = TypeVar("Command")
"""A command's dataclass, with the fields ``env`` and ``config``; those without a default are required flags."""


def parse_command(
    command: type[Command], arguments: Sequence[str], prog: str, leaf: type[RunConfig] = RunConfig
) -> Command:
    """Returns the command that was typed; its flags are its own fields and those of the environment's leaf.

    Args:
        command: Its dataclass.
        arguments: What was typed behind the verb.
        prog: What the help calls the command.
        leaf: The kind of configuration that the verb needs.

    Raises:
        ConfigError: If the environment id is unknown or of another kind, or a value is refused.
        RunFilesError: If a surrogate's file cannot be read.
    """
    # Which environment it is decides which other flags there are, so it is looked for first.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--env", default=_defaults(command)["env"])
    first.add_argument("--file")
    chosen = first.parse_known_args(arguments)[0]
    config = preset_of(leaf, chosen.env)
    if isinstance(config, SurrogateConfig) and chosen.file is not None:
        from atesd_env.simulated.surrogate import surrogate_config

        config = surrogate_config(chosen.file)
    _check_whose(arguments, command, config)
    return parse_with(command, arguments, prog, chosen.env, config)


def parse_with(command: type[Command], arguments: Sequence[str], prog: str, env_id: str, config: RunConfig) -> Command:
    """Returns a command whose configuration's flags have the names and defaults of ``config``."""
    hidden = _hidden(command, config)
    rules = ConstructorRegistry()

    @rules.struct_rule
    def in_rooms(asked: StructTypeInfo) -> StructConstructorSpec | None:
        if isinstance(asked.default, _Room):
            return StructConstructorSpec(dict, tuple(asked.default.fields))
        if asked.default is not config:
            return None
        # A copy is not this configuration any more, so tyro's own rule answers.
        whole = ConstructorRegistry.get_struct_spec(dataclasses.replace(asked, default=config.replace()))
        assert isinstance(whole, StructConstructorSpec)
        headings, rooms = _headings(type(config)), dict[str, _Room]()
        for one in whole.fields:
            if one.name not in hidden:
                # A surrogate without a file is none: tyro asks for it, and shows in --help that it must be given.
                is_open = (one.name, one.default) == ("file", "")
                flag = dataclasses.replace(one, default=tyro.MISSING) if is_open else one
                rooms.setdefault(headings[one.name], _Room()).fields.append(flag)
        if isinstance(config, EnvConfig) and "data_path" not in hidden:
            rooms["task"].fields.extend(DATA_SET)
        structure = (StructFieldSpec(name, tyro.conf.OmitArgPrefixes[_Room], room) for name, room in rooms.items())
        return StructConstructorSpec(
            lambda **given: _replaced(config, dict(ChainMap(*given.values()))), tuple(structure)
        )

    default = command(**{**_defaults(command), "env": env_id, "config": config})
    with rules:
        return tyro.cli(command, args=list(arguments), default=default, prog=prog)


def _check_whose(arguments: Sequence[str], command: type[Any], config: RunConfig) -> None:
    """Refuses a flag that only another environment has; the message says which kind."""
    own = {one.name for one in dataclasses.fields(command)}.union(config.names(), (one.name for one in DATA_SET))
    of_others = {name for leaf in RunConfig.__subclasses__() for name in leaf.names()} - own
    for word in arguments:
        name = word.partition("=")[0].replace("-", "_").removeprefix("__").removeprefix("no_")
        if word.startswith("--") and name in of_others:
            config.replace(**{name: None})


_TEXT = cast(type[Any], str | None)
DATA_SET = (
    StructFieldSpec("data_split", _TEXT, None, "Split of data_path, where that is a data set of the hub or a folder."),
    StructFieldSpec("data_config", _TEXT, None, "Configuration of that data set."),
)
"""Flags beside those of the configuration, which has both in ``data_path``."""


def _replaced(config: RunConfig, given: dict[str, Any]) -> RunConfig:
    """Returns a configuration with what was typed; split and configuration of a data set are a part of its name."""
    chosen = [given.pop(name, None) for name in ("data_config", "data_split")]
    if any(chosen):
        given["data_path"] = named_source(given["data_path"] or "", *chosen)
    return config.replace(**given)


@dataclass
class _Room:
    """Some of a configuration's flags, which stand together in the help under their heading."""

    fields: list[StructFieldSpec] = field(default_factory=list)


def _headings(leaf: type[RunConfig]) -> dict[str, str]:
    """Returns under which heading each field of a configuration stands: the comment line above it in the source."""
    found: dict[str, str] = {}
    for owner in (one for one in leaf.__mro__ if issubclass(one, RunConfig)):
        heading = owner.student_kind.replace(" ", "_")
        for comment, name in re.findall(
            r"^    (?:# ([A-Z][a-z ]+).*|([a-z_]+): .*)$", inspect.getsource(owner), re.MULTILINE
        ):
            heading = comment.strip().lower().replace(" ", "_") or heading
            found.setdefault(name, heading)
    return found


def _hidden(command: type[Any], config: RunConfig) -> set[str]:
    """Returns the fields of a configuration that are no flags.

    A flag of the verb itself comes first: ``atesd evaluate --adapter`` says who answers, and no student begins with one there.
    What a surrogate's runs had is known from its file, and what an instance has from its set; only the reward may be chosen anew, and
    on the bench what has a ratio of its own.
    """
    hidden = {field.name for field in dataclasses.fields(command)}
    if isinstance(config, SurrogateConfig | BenchConfig):
        is_open = config.keywords() if isinstance(config, BenchConfig) else RunConfig.names("is_reward")
        hidden |= {*RunConfig.names()}.difference(is_open)
    return hidden


def _defaults(command: type[Any]) -> dict[str, Any]:
    """Returns a command's values where nothing is given; ``tyro.MISSING`` where something must be."""
    return {
        field.name: field.default if field.default is not dataclasses.MISSING else tyro.MISSING
        for field in dataclasses.fields(command)
        if field.default_factory is dataclasses.MISSING
    }
