"""An agent's options for whoever asks: meaning and range from its docstring, type from its annotation, default from its signature."""

from __future__ import annotations

import functools
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from agents.options import option_parameters
from agents.specs.registry import factory_of
from agents.specs.table import AGENTS, Table

_WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text", types.NoneType: "null"}
_ARGS = re.compile(r"^ *Args:\n(.*?)(?:\n\s*\n|\Z)", flags=re.DOTALL | re.MULTILINE)
_ENTRY = re.compile(r"^(\w+): (.*?)(?=^[\w*]|\Z)", flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Option:
    """What there is to know of an option.

    Attributes:
        type: What may be written, in words.
        default: As a spec would write it.
        meaning: From the docstring, range included; empty where it has none.
    """

    type: str
    default: str
    meaning: str


def described_options(spec: str, table: Table = AGENTS) -> dict[str, Option]:
    """Returns an agent's options by name; ``**options`` that are passed on are shown where their class is known.

    Raises:
        ConfigError: If the spec is not understood.
    """
    factory = factory_of(spec, table)
    meanings, hints = _meanings(factory), _hints(factory)
    return {
        name: Option(_type(hints.get(name, Any)), _default(one.default), meanings.get(name, ""))
        for name, one in option_parameters(factory).items()
    }


def _bearers(factory: Callable[..., Any]) -> Iterator[Any]:
    """Yields what may carry docstring and annotations, the nearest first: a class and those above it, or a function."""
    factory = factory.func if isinstance(factory, functools.partial) else factory
    for one in inspect.getmro(factory) if inspect.isclass(factory) else (factory,):
        yield one
        if inspect.isclass(one) and "__init__" in vars(one):
            yield vars(one)["__init__"]


def _meanings(factory: Callable[..., Any]) -> dict[str, str]:
    """Returns what the sections ``Args:`` say, by name."""
    found: dict[str, str] = {}
    for bearer in _bearers(factory):
        for section in _ARGS.findall(inspect.cleandoc(bearer.__doc__ or "")):
            found = {
                name: " ".join(text.replace("``", "").split())
                for name, text in _ENTRY.findall(inspect.cleandoc(section))
            } | found
    return found


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for bearer in _bearers(factory):
        if inspect.isfunction(bearer):
            try:
                found = typing.get_type_hints(bearer) | found
            except NameError:  # annotations of a user's own may name what is imported for the type checker alone
                continue
    return found


def _type(hint: Any) -> str:
    """Returns a type in words: ``float | None`` is "number or null"."""
    kind, parts = typing.get_origin(hint), typing.get_args(hint)
    if kind is typing.Literal:
        return " or ".join(map(str, parts))
    if kind in (types.UnionType, typing.Union):
        return " or ".join(map(_type, parts))
    if parts and kind is not None and issubclass(kind, typing.Collection) and not issubclass(kind, typing.Mapping):
        return f"[{_type(parts[0])}, ...]"
    return _WORDS.get(hint, "anything" if hint is Any else getattr(hint, "__name__", str(hint)))


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "(must be given)"
    return value if isinstance(value, str) else json.dumps(value, default=str)
