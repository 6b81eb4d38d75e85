"""The check of an action: what a caller hands to ``step`` becomes reveal ratios, or a clear error."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atesd_env.config.checks import RATIO_TOLERANCE
from atesd_env.errors import ConfigError, shown


def checked_ratios(action: Any, groups: int) -> NDArray[np.float64]:
    """Returns an action as reveal ratios, float64 [groups], each in [0, 1].

    Args:
        action: Array, sequence or tensor of shape (groups,); with one group also a plain number or an array of no
            dimension.
        groups: Difficulty groups of the environment.

    Raises:
        ConfigError: If the action is not numbers, has another shape, or has an entry that is NaN, infinite, below 0 or
            above 1 (by more than ``RATIO_TOLERANCE``).

    >>> checked_ratios(0.25, groups=1)
    array([0.25])
    """
    try:
        array = np.asarray(action)
        if (
            array.dtype.kind not in "iuf"
        ):  # texts, truth values and objects are no ratios, though numpy would make some of them
            raise TypeError(f"an array of {array.dtype}")
        ratios = array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # RuntimeError: a tensor that has a gradient
        raise ConfigError(
            f"action: expected {groups} reveal ratio(s) in [0, 1], got {shown(action)}; pass an array of numbers of shape ({groups},)."
        ) from error
    if ratios.ndim == 0 and groups == 1:
        ratios = ratios.reshape(1)
    if ratios.shape != (groups,):
        raise ConfigError(
            f"action: expected shape ({groups},), one reveal ratio for each difficulty group, got {ratios.shape}; "
            f"pass an array of shape ({groups},), or make the environment with another `groups`."
        )
    # One ratio is compared as a plain number: a quarter of the time.
    alone = ratios.item() if groups == 1 else None
    lowest = np.minimum.reduce(ratios, initial=0.0) if alone is None else alone
    highest = np.maximum.reduce(ratios, initial=1.0) if alone is None else alone
    # Written so that NaN, which compares False with everything, is refused too.
    if lowest >= 0.0 and highest <= 1.0:
        return ratios
    is_valid = (ratios >= -RATIO_TOLERANCE) & (ratios <= 1.0 + RATIO_TOLERANCE)
    if not is_valid.all():
        group = int(np.argmin(is_valid))
        raise ConfigError(
            f"action: expected reveal ratios in [0, 1], got {ratios[group]:g} for group {group} (whole action: "
            f"{ratios.tolist()}); clip or rescale the action before `step`."
        )
    return np.clip(ratios, 0.0, 1.0)


def checked_batch(actions: Any, groups: int, num_students: int, going: Sequence[int]) -> NDArray[np.float64]:
    """Returns the reveal ratios [S, groups] of the S students in ``going``; the lines of others are not looked at.

    Args:
        actions: Reveal ratios [K, groups].
        groups: Difficulty groups of the environment.
        num_students: K.
        going: Which students' lines are meant.

    Raises:
        ConfigError: If there are not K lines, or a line is refused (``checked_ratios``); the message names the student.
    """
    try:
        num_lines = None if isinstance(actions, Mapping | Set | str) else len(actions)
    except TypeError:  # one number, None
        num_lines = None
    if num_lines != num_students:
        got = shown(actions) if num_lines is None else f"{num_lines} lines"
        raise ConfigError(
            f"actions: expected shape ({num_students}, {groups}), a line of reveal ratios for each student, got "
            f"{got}; pass an array of that shape."
        )
    if isinstance(actions, np.ndarray) and actions.shape == (num_students, groups):
        # All lines at once; only where one is refused are they looked at one by one, to say which.
        with contextlib.suppress(ConfigError):
            chosen = actions if len(going) == num_students else actions[going]
            return checked_ratios(chosen.ravel(), len(going) * groups).reshape(len(going), groups)
    ratios = np.zeros((len(going), groups))
    for position, index in enumerate(going):
        try:
            ratios[position] = checked_ratios(actions[index], groups)
        except ConfigError as error:
            raise ConfigError(f"student {index}: {error}") from error
    return ratios
