"""Specs: the short names of agents on the command line, and how a spec becomes an agent.

``AGENTS`` is the whole table; an agent of our own is added by a line. Controllers are imported when one is made.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import gymnasium

from agents.base import AgentProtocol
from atesd_env.errors import ConfigError

Factory = Callable[..., AgentProtocol]


@dataclass(frozen=True)
class Entry:
    """A line of the table.

    Attributes:
        form: How the spec is written, such as "linear:A:B": a name, and a capital letter for each reveal ratio after
            it.
        meaning: One sentence.
        target: The class, "module:Class".
        ratios: The constructor's arguments that the reveal ratios go to, in order.
    """

    form: str
    meaning: str
    target: str
    ratios: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The part before the first colon."""
        return self.form.partition(":")[0]


AGENTS: tuple[Entry, ...] = (
    Entry(
        "beta",
        "The paper's controller: a Beta policy trained by REINFORCE inside the run.",
        "agents.beta:BetaController",
    ),
    Entry(
        "fixed:A", "The reveal ratio A in every window; fixed:1 is OPSD.", "agents.schedules:FixedSchedule", ("ratio",)
    ),
    Entry("random", "A uniformly random reveal ratio in every window.", "agents.schedules:RandomSchedule"),
    Entry(
        "linear:A:B",
        "From A to B in a straight line over the run.",
        "agents.schedules:LinearSchedule",
        ("start", "end"),
    ),
    Entry("ucb", "UCB1 on a grid of ratios; ucb:discount=0.95 or ucb:window=50 forgets.", "agents.bandits:UcbBandit"),
    Entry(
        "thompson",
        "Thompson sampling on a grid of ratios; discount and window as for ucb.",
        "agents.bandits:ThompsonBandit",
    ),
    Entry("exp3s", "Exp3.S on a grid of ratios; slow, and assumes nothing.", "agents.bandits:Exp3sBandit"),
    Entry(
        "linucb",
        "LinUCB on a grid of ratios, in the context of the paper's six features; discount and window as for ucb.",
        "agents.bandits:LinUcbBandit",
    ),
)
"""The agents that come with the package."""

OWN_CLASS = "package.module:Class"
"""How a class of the user's own is written."""

_OWN_CLASS_MEANING = "A class (or function) of your own that returns something with Stable-Baselines3's predict."
_OWN_CLASS_PATTERN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def available() -> dict[str, str]:
    """Returns the forms of a spec, each with one sentence."""
    return {**{entry.form: entry.meaning for entry in AGENTS}, OWN_CLASS: _OWN_CLASS_MEANING}


def make(spec: str, env: gymnasium.Env[Any, Any], seed: int = 0, **options: Any) -> Any:
    """Returns an agent for an environment.

    Args:
        spec: One of ``available()``: "beta", "fixed:0.5", "random", "linear:0:1", or "package.module:Class".
        env: The environment that it decides in.
        seed: Seed of the run and of the agent.
        **options: Further arguments of the agent's constructor.

    Returns:
        An object with ``predict``, and perhaps ``learn``, ``save`` and ``diagnostics`` (agents/base.py).

    Raises:
        ConfigError: If the spec is not understood, cannot be imported, or its class takes other arguments.
    """
    factory, ratios = resolve(spec)
    agent = _construct(spec, factory, env, seed, {**ratios, **options})
    if not isinstance(agent, AgentProtocol):
        raise ConfigError(
            f"agent {spec!r}: expected an object with predict(observation, state, episode_start, deterministic), got a "
            f"{type(agent).__name__} without it; add that method (agents.base.Agent is a base class that has the rest)."
        )
    return agent


def resolve(spec: str) -> tuple[Factory, dict[str, float]]:
    """Returns the class behind a spec, imported, and the arguments that the spec gives it.

    A name of the table before the first colon is always ours; anything else must be "package.module:Class".

    Raises:
        ConfigError: As ``make``, but without making anything, so that a list of specs can be checked before the first
            runs.
    """
    name, *texts = spec.split(":")
    for entry in AGENTS:
        if entry.name == name:
            return _import(spec, entry.target), _ratios(spec, entry, texts)
    if _OWN_CLASS_PATTERN.fullmatch(spec):
        return _import(spec, spec), {}
    raise ConfigError(f"agent: expected one of {', '.join(available())}, got {spec!r}{_suggestion(name)}.")


def _ratios(spec: str, entry: Entry, texts: list[str]) -> dict[str, float]:
    if len(texts) != len(entry.ratios):
        raise ConfigError(
            f"agent {spec!r}: expected {entry.form}, with {len(entry.ratios)} reveal ratio(s) after the name, "
            f"got {len(texts)}."
        )
    return {argument: _ratio(spec, entry, text) for argument, text in zip(entry.ratios, texts, strict=True)}


def _ratio(spec: str, entry: Entry, text: str) -> float:
    try:
        ratio = float(text)
    except ValueError:
        ratio = float("nan")
    if not 0.0 <= ratio <= 1.0:
        example = f"{entry.name}{':0.5' * len(entry.ratios)}"
        raise ConfigError(
            f"agent {spec!r}: expected {entry.form} with numbers in [0, 1], got {text!r}; write it like {example}. "
            f"({entry.name!r} is a name of ours; a class of your own is written {OWN_CLASS}.)"
        )
    return ratio


def _import(spec: str, target: str) -> Factory:
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A missing module inside the user's own is the user's error, and its traceback says more than we could.
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise
        raise ConfigError(
            f"agent {spec!r}: expected an importable module {module_name!r}, found none{_suggestion(module_name)}; "
            f"install it, or run where Python finds it (PYTHONPATH)."
        ) from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        names = [name for name, value in vars(module).items() if inspect.isclass(value)]
        nearest = difflib.get_close_matches(attribute, names, n=1)
        hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
        raise ConfigError(
            f"agent {spec!r}: expected a class {attribute!r} in {module.__name__}, found none{hint}; check the name."
        )
    return factory  # type: ignore[no-any-return]


def _construct(
    spec: str, factory: Factory, env: gymnasium.Env[Any, Any], seed: int, options: dict[str, Any]
) -> AgentProtocol:
    """Calls the constructor with what it takes: env and seed, env alone, or nothing; options always."""
    try:
        signature = inspect.signature(factory)
    except ValueError:  # a class written in C may have none
        return factory(env, seed=seed, **options)
    attempts: list[tuple[tuple[Any, ...], dict[str, Any]]] = [((), options)]
    if _takes_env(signature):
        attempts = [((env,), {"seed": seed, **options}), ((env,), options)]
    for arguments, keywords in attempts:
        # Bound first and called after: a TypeError inside the constructor must not look like a wrong signature.
        try:
            signature.bind(*arguments, **keywords)
        except TypeError:
            continue
        return factory(*arguments, **keywords)
    asked = f" and the options {', '.join(options)}" if options else ""
    unknown = [name for name in options if name not in signature.parameters]
    wrong = f"; it has no {', '.join(unknown)}{_nearest(unknown[0], signature.parameters)}" if unknown else ""
    raise ConfigError(
        f"agent {spec!r}: expected a constructor that takes (env, seed=...), (env) or nothing{asked}, got "
        f"{getattr(factory, '__name__', factory)}{signature}{wrong}; change one of the two."
    )


def _takes_env(signature: inspect.Signature) -> bool:
    """Whether the first argument is an environment: it is called so, or must be given and could be nothing else."""
    first = next(iter(signature.parameters.values()), None)
    return first is not None and (first.name == "env" or first.default is inspect.Parameter.empty)


def _suggestion(name: str) -> str:
    nearest = difflib.get_close_matches(name.lower(), [entry.name for entry in AGENTS], n=1)
    form = next((entry.form for entry in AGENTS if nearest and entry.name == nearest[0]), None)
    return f" (did you mean {form}?)" if form else ""


def _nearest(name: str, names: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""
