"""Specs: the short names of agents on the command line, and how a spec becomes an agent.

    name[:RATIO...][:key=value...]            beta    fixed:0.5    staged:0.3:1    beta:credit=one-step:batch_size=8
    package.module:Class[:key=value...]       a class, or a function, of your own
    path/to/agent.safetensors[:key=value...]  an agent that was saved; .zip, which needs trust=true, is Stable-Baselines3's
                                              (agents/specs/saved.py, trust.py)

A ``name`` is one of the table of agents (agents/specs/table.py); or an entry point that an installed package declares in
the group ``atesd.agents``. A ``key`` is an argument of the agent's constructor; a ``value`` is read as JSON where it
is JSON (``0.5``, ``true``, ``[64,64]``), else as text. Controllers are imported when one is made.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import inspect
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium import spaces

from agents.base import Agent, AgentProtocol
from agents.options import GIVEN_BY_MAKE, option_parameters
from agents.own_loop import NoEnvironment, OwnLoop
from agents.sb3.files import check_trusted
from agents.specs.construct import Factory, call_form, construct, import_target
from agents.specs.saved import SUFFIXES, Frozen, load_own
from agents.specs.table import AGENTS, Entry, Table
from atesd_env.config import RunConfig
from atesd_env.errors import ConfigError, RunFilesError
from atesd_env.hints import nearest

Spec = str | os.PathLike[str] | AgentProtocol | Factory
"""What ``make`` takes: a spec, a class or function that returns an agent, or an agent."""

ENTRY_POINT_GROUP = "atesd.agents"
"""Group of entry points in which an installed package names its agents."""


OWN_CLASS = "package.module:Class"
"""How a class of the user's own is written."""
SAVED_FILE = "path/to/agent.safetensors"
"""How a saved agent is written; a .zip is Stable-Baselines3's."""

_OWN_CLASS_MEANING = "A class (or function) of your own that returns something with Stable-Baselines3's predict."
_SAVED_FILE_MEANING = (
    "A saved agent (.zip: Stable-Baselines3's, with trust=true); learn=true goes on learning, else it only decides."
)
_OWN_CLASS_PATTERN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_OPTION = re.compile(r":(?=[A-Za-z_]\w*=)")
_TRUST = re.compile(r":trust=[^:]*")


def available(table: Table = AGENTS) -> dict[str, str]:
    """Returns the forms of a spec, each with one sentence; entry points are listed without being imported."""
    return {
        **{entry.form: entry.meaning for entry in table},
        **{
            name: f"{point.value}, from the installed package {point.dist.name if point.dist else '(unknown)'}."
            for name, point in _entry_points(table).items()
        },
        OWN_CLASS: _OWN_CLASS_MEANING,
        SAVED_FILE: _SAVED_FILE_MEANING,
    }


def make(
    spec: Spec,
    env: gymnasium.Env[Any, Any] | None = None,
    seed: int = 0,
    *,
    space: spaces.Box[Any] | None = None,
    config: RunConfig | None = None,
    **options: Any,
) -> Any:
    """Returns an agent for an environment, or for a training loop of one's own.

    Args:
        spec: One of ``available()``, with options if need be: "beta", "fixed:0.5", "beta:credit=one-step",
            "package.module:Class", "agent.safetensors". Or a class, or a function of the same arguments. Or an agent,
            which is returned as it is.
        env: The environment that it decides in; None where ``space`` is given.
        space: Actions of a loop without an environment, ``Box(0, 1, (groups,))``.
        config: The loop's windows and reward, which learning controllers read; None is those of every run.
        seed: Seed of the run and of the agent.
        **options: Further arguments of the agent's constructor; they come before those of the spec.

    Returns:
        An object with ``predict``, and perhaps ``learn``, ``save`` and ``diagnostics`` (agents/base.py); for a loop without an
        environment one with ``decide`` and ``observe`` (agents/own_loop.py).

    Raises:
        ConfigError: If the spec is not understood, cannot be imported, or its class takes other arguments; if there is neither
            environment nor space, or both.
        RunFilesError: If the file of a saved agent is missing or damaged.
    """
    if space is not None and env is None:
        alone = NoEnvironment(space, config or RunConfig(groups=space.shape[0]))
        return OwnLoop(make(spec, alone, seed, **options), space.shape[0])
    if env is None or space is not None:
        raise ConfigError(
            "make: expected an environment, or space= for a loop without one, got both or neither; pass one of them."
        )
    if is_agent(spec):
        if options:
            raise ConfigError(
                f"agent {label(spec)}: expected no options beside an object that is made already, got "
                f"{', '.join(options)}; pass its class instead."
            )
        return spec
    factory, given = _resolved(spec)
    name = label(spec)
    agent = construct(name, factory, env, seed, {**given, **options})
    if not isinstance(agent, AgentProtocol):
        raise ConfigError(
            f"agent {name!r}: expected an object with predict(observation, state, episode_start, deterministic), got a "
            f"{type(agent).__name__} without it; add that method (agents.base.Agent is a base class that has the rest)."
        )
    return agent


def is_agent(spec: object) -> bool:
    """Whether this is an agent already, not a description of one."""
    return isinstance(spec, AgentProtocol) and not inspect.isclass(spec)


def label(spec: Spec) -> str:
    """Returns what an agent is called in messages, tables and folders: the spec, or its class as "module:Class"."""
    if isinstance(spec, str | os.PathLike):
        return _TRUST.sub("", os.fspath(spec))  # whether a file is trusted makes no other agent of it
    named = type(spec) if is_agent(spec) else spec
    return f"{named.__module__}:{getattr(named, '__qualname__', type(named).__qualname__)}"


def resolve(spec: Spec, table: Table = AGENTS) -> tuple[Factory, dict[str, Any]]:
    """Returns the class behind a spec, imported, and the arguments that the spec gives it.

    A name of the table before the first colon is always ours; then come entry points; anything else must be a saved
    agent's file, or "package.module:Class".

    Raises:
        ConfigError: As ``make``, but without making anything, so that a list of specs can be checked before the first
            runs.
        RunFilesError: If the file of a saved agent is missing.
    """
    factory, options = _resolved(spec, table)
    if isinstance(spec, str | os.PathLike) and _is_zip(spec):
        check_trusted(label(spec), trust=options.get("trust", False))
    if not is_agent(spec):
        call_form(label(spec), factory, options)
    return factory, options


def _resolved(spec: Spec, table: Table = AGENTS) -> tuple[Factory, dict[str, Any]]:
    """``resolve`` without the question whether the class takes these arguments."""
    if is_agent(spec):
        return lambda *_, **__: spec, {}  # type: ignore[return-value]
    if isinstance(spec, str | os.PathLike):
        text = os.fspath(spec)
        head, *parts = _OPTION.split(text)
        factory, ratios = _factory(text, head, table)
        options = _options(text, parts)
        if twice := ratios.keys() & options.keys():
            raise ConfigError(
                f"agent {text!r}: expected {twice.pop()} once, got it behind the name and as an option; leave one out."
            )
        return factory, {**ratios, **options}
    if not callable(spec):
        raise ConfigError(
            f"agent: expected a spec ({', '.join(available(table))}), a class or an object with predict, got {spec!r}; "
            "pass one of these."
        )
    return spec, {}


def options_of(spec: Spec, table: Table = AGENTS) -> dict[str, Any]:
    """Returns the options that an agent takes, with their defaults; without one, ``inspect.Parameter.empty``.

    What a function passes on as ``**options`` is not among them.
    """
    if is_agent(spec):
        return {}
    return {name: one.default for name, one in option_parameters(factory_of(spec, table)).items()}


def factory_of(spec: Spec, table: Table = AGENTS) -> Factory:
    """Returns the class or function behind a spec; a bare name of ours may lack its ratios."""
    return _resolved(_with_ratios(spec) if isinstance(spec, str) else spec, table)[0]


def _with_ratios(spec: str) -> str:
    """Returns a bare name of ours with ratios behind it, so that a person may ask for the options of "fixed"."""
    needed = next((entry.num_ratios for entry in AGENTS if entry.name == spec), 0)
    return spec + ":0.5" * needed


def trusted(specs: Sequence[Spec]) -> list[Spec]:
    """Returns the specs with ``trust=true`` given to Stable-Baselines3's zip files (``--trust-pickle``)."""
    return [f"{label(spec)}:trust=true" if isinstance(spec, str) and _is_zip(spec) else spec for spec in specs]


def _is_zip(spec: str | os.PathLike[str]) -> bool:
    return Path(_OPTION.split(os.fspath(spec))[0]).suffix == ".zip"


def with_option(specs: Sequence[Spec], key: str, value: str, table: Table = AGENTS) -> list[Spec]:
    """Returns the specs with an option given to those that take it; objects and classes are left as they are.

    Raises:
        ConfigError: If none takes it, or one has it already.
    """
    for spec in specs:
        if isinstance(spec, str) and any(part.startswith(f"{key}=") for part in _OPTION.split(spec)[1:]):
            raise ConfigError(
                f"{key}: expected it once, got {value!r} and {spec!r}; leave one of the two out, or write it in each spec."
            )
    takers = [isinstance(spec, str) and key in options_of(spec, table) for spec in specs]
    if not any(takers):
        raise ConfigError(
            f"{key}: expected an agent with the option {key!r} (such as beta), got only "
            f"{', '.join(label(spec) for spec in specs)}; leave {key} out, or add such an agent."
        )
    return [f"{spec}:{key}={value}" if takes else spec for spec, takes in zip(specs, takers, strict=True)]


def _options(spec: str, parts: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for part in parts:
        key, _, text = part.partition("=")
        if key in options or key in GIVEN_BY_MAKE:
            reason = "each option once" if key in options else "no option of this name (--seeds, seed=)"
            raise ConfigError(f"agent {spec!r}: expected {reason}, got {part!r}; leave it out.")
        try:
            options[key] = json.loads(text)
        except (ValueError, RecursionError):
            options[key] = text
    return options


def _factory(spec: str, head: str, table: Table) -> tuple[Factory, dict[str, Any]]:
    """Returns the class of a spec without its options, and the arguments that its ratios go to."""
    if Path(head).suffix in SUFFIXES:
        if not os.path.isfile(head):  # unlike Path's, it takes a name that is too long for one that is not there
            raise RunFilesError(f"{head}: expected the file of a saved agent, found none; check the path.")
        load = import_target(spec, "agents.sb3.agent:load_agent") if Path(head).suffix == ".zip" else _load_own
        return functools.partial(load, Path(head)), {}
    name, *texts = head.split(":")
    for entry in table:
        if entry.name == name:
            if entry.needs is not None and importlib.util.find_spec(entry.needs) is None:
                raise ConfigError(
                    f"agent {spec!r}: expected the package {entry.needs}, found none; install it with "
                    f"`pip install atesd-env[{entry.needs}]`."
                )
            return import_target(spec, entry.target), _ratios(spec, entry, texts)
    if (point := _entry_points(table).get(name)) is not None:
        if texts:
            raise ConfigError(
                f"agent {spec!r}: expected {name}, with options as key=value, got {':'.join(texts)!r} after the name; "
                "correct the spec."
            )
        return import_target(spec, f"{point.module}:{point.attr}"), {}
    if _OWN_CLASS_PATTERN.fullmatch(head):
        module = head.partition(":")[0]
        return import_target(spec, head, suggestion=_suggestion(module)), {}
    raise ConfigError(
        f"agent: expected one of {', '.join(available(table))}, got {spec!r}{_suggestion(name)}; "
        "`atesd agents` explains them."
    )


def _load_own(
    path: Path,
    env: gymnasium.Env[Any, Any],
    seed: int = 0,
    *,
    learn: bool = False,
    deterministic: bool = True,
    agent_class: str | type[Agent] | None = None,
) -> Any:
    """Returns the agent of a .safetensors file; its class may be named by its spec, and what is installed is known."""
    kind: Any = resolve(agent_class)[0] if isinstance(agent_class, str) else agent_class
    installed = {f"{point.module}.{point.attr}": point.load for point in _entry_points(AGENTS).values()}
    agent = load_own(path, env, seed, agent_class=kind, installed=installed)
    return agent if learn else Frozen(agent, deterministic=deterministic)


def _entry_points(table: Table) -> dict[str, importlib.metadata.EntryPoint]:
    """Returns the entry points of installed packages whose names are not ours, by name."""
    ours = {entry.name for entry in table}
    return {
        point.name: point
        for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
        if point.name not in ours
    }


def _ratios(spec: str, entry: Entry, texts: list[str]) -> dict[str, Any]:
    is_right = len(texts) == entry.num_ratios if entry.least is None else len(texts) >= entry.least
    if not is_right:
        count = (
            f"{entry.num_ratios} reveal ratio(s)" if entry.least is None else f"at least {entry.least} reveal ratios"
        )
        raise ConfigError(
            f"agent {spec!r}: expected {entry.form}, with {count} after the name, got {len(texts)}; options are "
            "written key=value."
        )
    numbers = [_ratio(spec, entry, text) for text in texts]
    if entry.least is not None:
        return {entry.ratios[0]: tuple(numbers)}
    return dict(zip(entry.ratios, numbers, strict=True))


def _ratio(spec: str, entry: Entry, text: str) -> float:
    try:
        ratio = float(text)
    except ValueError:
        ratio = float("nan")
    if not 0.0 <= ratio <= 1.0:
        example = f"{entry.name}{':0.5' * entry.num_ratios}"
        raise ConfigError(
            f"agent {spec!r}: expected {entry.form} with numbers in [0, 1], got {text!r}; write it like {example}. "
            f"({entry.name!r} is a name of ours; a class of your own is written {OWN_CLASS}.)"
        )
    return ratio


def _suggestion(name: str) -> str:
    forms = {entry.name: entry.form for entry in AGENTS} | {point: point for point in _entry_points(AGENTS)}
    found = nearest(name, forms)
    return f" (did you mean {forms[found]}?)" if found else ""
