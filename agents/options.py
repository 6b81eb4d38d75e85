"""A controller's options: the arguments of its constructor beside environment and seed, and checks of what they hold."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from atesd_env.config.checks import is_finite
from atesd_env.errors import ConfigError

GIVEN_BY_MAKE = ("self", "env", "seed")
"""Arguments of a constructor that are no options."""


def option_parameters(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Returns the arguments that options can go to; what a function passes on as ``**options`` is not among them."""
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError:  # a class written in C may have none
        return {}
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {name: one for name, one in parameters.items() if one.kind in kinds and name not in GIVEN_BY_MAKE}


class PassesOptionsOn:
    """A class whose subclasses may write ``**options`` for those of the class above: they are shown to whoever asks for a signature."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__init__" in vars(cls):
            cls.__signature__ = _joined_signature(cls)  # type: ignore[attr-defined]


def _joined_signature(cls: type) -> inspect.Signature:
    """Returns the signature of a class, with the options of the class above it in the place of ``**options``."""
    _, *own = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
    if own and own[-1].kind is inspect.Parameter.VAR_KEYWORD:
        names = {one.name for one in own}
        above = inspect.signature(cls.__mro__[1]).parameters.values()
        own = own[:-1] + [one for one in above if one.name not in names]
    return inspect.Signature(own)


def checked_number(
    name: str, value: float, *, least: float = -math.inf, above: float = -math.inf, most: float = math.inf
) -> float:
    """Returns an option that must be a finite number, at least ``least``, above ``above`` and at most ``most``.

    Raises:
        ConfigError: If it is not.
    """
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if is_number and is_finite(value) and least <= value <= most and value > above:
        return float(value)
    low = f" above {above:g}" if math.isfinite(above) else f" from {least:g}" if math.isfinite(least) else ""
    high = f" to {most:g}" if math.isfinite(most) else ""
    kind = f"a number{low}{high}" if low else "a finite number"
    raise ConfigError(f"{name}: expected {kind}, got {value!r}; pass such a number.")


def checked_count(name: str, value: int, *, least: int) -> int:
    """Returns an option that must be a whole number, at least ``least``.

    Raises:
        ConfigError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"{name}: expected a whole number from {least}, got {value!r}; pass such a number.")
    return int(value)


def checked_ratio(name: str, value: float) -> float:
    """Returns an option that must be a reveal ratio.

    Raises:
        ConfigError: If it is no number in [0, 1].
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0.0 <= value <= 1.0:
        raise ConfigError(f"{name}: expected a reveal ratio in [0, 1], got {value!r}; pass a number in that range.")
    return float(value)


def checked_choice(name: str, value: Any, choices: tuple[str, ...]) -> Any:
    """Returns an option that must be one of some names.

    Raises:
        ConfigError: If it is not.
    """
    if value not in choices:
        raise ConfigError(f"{name}: expected one of {', '.join(choices)}, got {value!r}; pass one of these.")
    return value


def checked_limits(a_min: float, a_max: float) -> tuple[float, float]:
    """Returns the smallest and the largest ratio that a controller gives.

    Raises:
        ConfigError: If they are not reveal ratios with ``a_min`` below ``a_max``.
    """
    a_min, a_max = checked_ratio("a_min", a_min), checked_ratio("a_max", a_max)
    if a_min >= a_max:
        raise ConfigError(f"a_min: expected a ratio below a_max={a_max}, got {a_min}; pass a number in that range.")
    return a_min, a_max
