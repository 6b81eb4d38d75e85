"""How a class that somebody wrote is imported and called: what it takes of environment, seed and options.

Messages name the spec that it came from, and the nearest name where one is wrong.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import gymnasium

from agents.base import AgentProtocol
from agents.options import option_parameters
from atesd_env.errors import ConfigError
from atesd_env.hints import did_you_mean

Factory = Callable[..., AgentProtocol]
"""A class, or a function, that returns an agent."""


def import_target(spec: str, target: str, *, suggestion: str = "") -> Factory:
    """Returns the class or function "module:name".

    Args:
        spec: What the user wrote, for messages.
        target: Where it is.
        suggestion: What a message adds where there is no such module.

    Raises:
        ConfigError: If the module is missing, or holds nothing of this name that can be called. What the module itself
            raises while it is imported is passed on.
    """
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A missing module inside the user's own is the user's error, and its traceback says more than we could.
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise
        raise ConfigError(
            f"agent {spec!r}: expected an importable module {module_name!r}, found none{suggestion}; "
            f"install it, or run where Python finds it (PYTHONPATH)."
        ) from error
    try:
        factory = functools.reduce(getattr, attribute.split("."), module)
    except AttributeError:
        factory = None
    if not callable(factory):
        names = [name for name, value in vars(module).items() if inspect.isclass(value)]
        raise ConfigError(
            f"agent {spec!r}: expected a class {attribute!r} in {module.__name__}, found none"
            f"{_hint(attribute, names)}; check the name."
        )
    return factory


def construct(
    spec: str, factory: Factory, env: gymnasium.Env[Any, Any], seed: int, options: dict[str, Any]
) -> AgentProtocol:
    """Calls the constructor with what it takes: env and seed, env alone, or nothing; options always.

    Raises:
        ConfigError: If there is no such call, or an option is refused.
    """
    takes = call_form(spec, factory, options)
    arguments = (env,) if "env" in takes else ()
    try:
        return factory(*arguments, **({"seed": seed} if "seed" in takes else {}), **options)
    except ConfigError as error:
        if str(error).partition(":")[0] not in options:
            raise
        # A field of the environment may have the option's name.
        raise ConfigError(f"agent {spec!r}, option {error}") from error


def call_form(spec: str, factory: Factory, options: dict[str, Any]) -> tuple[str, ...]:
    """Returns which of env and seed a constructor takes beside the options.

    Raises:
        ConfigError: If there is no such call.
    """
    try:
        signature = inspect.signature(factory)
    except ValueError:  # a class written in C may have none
        return ("env", "seed")
    forms: list[tuple[str, ...]] = [("env", "seed"), ("env",)] if _takes_env(signature) else [()]
    for form in forms:
        # Bound first and called after: a TypeError inside the constructor must not look like a wrong signature.
        try:
            signature.bind(*(["env"] if "env" in form else []), **({"seed": 0} if "seed" in form else {}), **options)
        except TypeError:
            continue
        return form
    asked = f" and the options {', '.join(options)}" if options else ""
    names = option_parameters(factory)
    unknown = [name for name in options if name not in names]
    wrong = f"; it has no {', '.join(unknown)}{_hint(unknown[0], names)}" if unknown else ""
    raise ConfigError(
        f"agent {spec!r}: expected a constructor that takes (env, seed=...), (env) or nothing{asked}, got "
        f"{getattr(factory, '__name__', 'a function')}{signature}{wrong}; change one of the two."
    )


def _takes_env(signature: inspect.Signature) -> bool:
    """Whether the first argument is an environment: it is called so, or must be given and could be nothing else."""
    first = next(iter(signature.parameters.values()), None)
    return first is not None and (first.name == "env" or first.default is inspect.Parameter.empty)


def _hint(name: str, names: Iterable[str]) -> str:
    """Returns " (did you mean 'x'?)" for the nearest of some names, or nothing where none is near."""
    hint = did_you_mean(name, names)
    return f" ({hint})" if hint else ""
