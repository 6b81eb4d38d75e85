"""What a field of a configuration may hold: its range or its choices, and the check of a value against them.

How far a reveal ratio may lie outside its range stands here too, for all rooms that check one.

What else is known of a field stands with it, as metadata that ``number``, ``choice`` and ``option`` set: ``instance`` (the
students of one population may differ in it) and ``is_carrying_out`` (it says how a run is carried out, not what it is: a run
may go on with another value).
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from atesd_env.errors import ConfigError, shown
from atesd_env.hints import suggestion

RATIO_TOLERANCE = 1e-6
"""How far from what was meant a reveal ratio may lie and count as rounding of a float32: outside [0, 1], below a step."""


@dataclass(frozen=True)
class Bounds:
    """Range of a numeric field; ``None`` means unbounded, ``open_low`` that the lower end itself is refused."""

    low: float | None = None
    high: float | None = None
    open_low: bool = False

    def __contains__(self, value: float) -> bool:
        if not (isinstance(value, int) or math.isfinite(value)):  # a whole number is compared as such, however long
            return False
        above = self.low is None or (value > self.low if self.open_low else value >= self.low)
        return above and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        low = "(-inf" if self.low is None else f"{'(' if self.open_low else '['}{self.low:g}"
        high = "inf)" if self.high is None else f"{self.high:g}]"
        return f"{low}, {high}"


def number(
    default: Any, low: float | None = None, high: float | None = None, *, open_low: bool = False, **metadata: bool
) -> Any:
    """Returns a dataclass field for a number in a range."""
    return dataclasses.field(default=default, metadata={"bounds": Bounds(low, high, open_low), **metadata})


def choice(default: str, *choices: str, **metadata: bool) -> Any:
    """Returns a dataclass field for one of some texts."""
    return dataclasses.field(default=default, metadata={"choices": choices, **metadata})


def option(default: Any, **metadata: bool) -> Any:
    """Returns a dataclass field for anything else; without metadata, its default alone is enough."""
    return dataclasses.field(default=default, metadata=metadata)


def checked(field: dataclasses.Field[Any], value: Any) -> Any:
    """Returns ``value`` as plain Python; raises ConfigError unless it has the field's type, range or choice."""
    annotation = str(field.type)
    if value is None and annotation.endswith("| None"):
        return None
    if "choices" in field.metadata:
        choices = field.metadata["choices"]
        if not isinstance(value, str) or value not in choices:
            raise ConfigError(
                f"{field.name}: expected one of {choices}, got {shown(value)}; choose one of these."
                f"{suggestion(str(value), choices)}"
            )
        return str(value)
    base = annotation.removesuffix(" | None")
    if base.startswith("tuple"):
        names = tuple(value) if isinstance(value, list | tuple) else ()
        if not names or not all(isinstance(name, str) and name for name in names):
            raise ConfigError(
                f"{field.name}: expected a non-empty tuple of names, got {shown(value)}; pass them as a list."
            )
        return names
    plain = _plain(base, value)
    if plain is None:
        raise ConfigError(
            f"{field.name}: expected {annotation}, got {shown(value)} ({type(value).__name__}); pass a value of that type."
        )
    bounds = field.metadata.get("bounds")
    if bounds is not None and plain not in bounds:
        raise ConfigError(f"{field.name}: expected a number in {bounds}, got {shown(value)}; pass one of these.")
    return plain


def checked_seed(seed: Any, name: str = "seed") -> int:
    """Returns a seed as plain Python.

    Args:
        seed: What was given.
        name: What the message calls it.

    Raises:
        ConfigError: If it is no whole number from 0 to 2^63 - 1, the largest that tables can hold.
    """
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or not 0 <= int(seed) < 2**63:
        what = "whole numbers" if name.endswith("s") else "a whole number"
        raise ConfigError(
            f"{name}: expected {what} from 0 to 2^63 - 1, got {str(seed)[:40]}; pass such (--{name.replace('_', '-')})."
        )
    return int(seed)


def is_finite(value: float) -> bool:
    """Whether a number is finite as a float: no NaN, no infinity, and no whole number that is too long for one."""
    return abs(value) <= sys.float_info.max


def _plain(base: str, value: Any) -> str | bool | int | float | None:
    """Returns ``value`` as the Python type that ``base`` names, or None if it is not of that kind."""
    if base == "bool":
        return bool(value) if isinstance(value, bool | np.bool_) else None
    if base == "str":
        return os.fsdecode(value) if isinstance(value, str | os.PathLike) else None
    if isinstance(value, bool):  # a whole number to Python, a slip here
        return None
    if base == "int":
        return int(value) if isinstance(value, numbers.Integral) else None
    if not isinstance(value, numbers.Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf  # outside any bounds
