"""The text of the field `phases`: what each part of a run trains on, in numbers of addends."""

from __future__ import annotations

import re

from atesd_env.errors import ConfigError


def phase_ranges(text: str) -> tuple[tuple[int, int], ...]:
    """Returns the fewest and the most addends of each phase.

    Raises:
        ConfigError: If the text cannot be read.

    >>> phase_ranges("4,5"), phase_ranges("2-3, 5")
    (((4, 4), (5, 5)), ((2, 3), (5, 5)))
    """
    ranges = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*([0-9]{1,2})(?:-([0-9]{1,2}))?\s*", part)
        low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 2 <= low <= high:
            raise ConfigError(
                f"phases: expected addends for each part of the run, such as '4,5' or '2-3,4-5', got {text!r}; give at least 2 addends, "
                "the fewest first."
            )
        ranges.append((low, high))
    return tuple(ranges)


def check_phases(text: str, min_addends: int, max_addends: int, jitter: float) -> None:
    """Refuses phases that do not go with the probe's problems, or that may not keep their order.

    Raises:
        ConfigError: If they do not reach from ``min_addends`` to ``max_addends``, or ``jitter`` is more than half a phase.
    """
    ranges = phase_ranges(text)
    reached = min(low for low, _ in ranges), max(high for _, high in ranges)
    if reached != (min_addends, max_addends):
        raise ConfigError(
            f"phases: expected sums of {min_addends} to {max_addends} addends in all, as the probe has them (min_addends, max_addends), "
            f"got {text!r}; set min_addends={reached[0]} and max_addends={reached[1]}."
        )
    if jitter > 0.5 / len(ranges):
        raise ConfigError(
            f"phase_jitter: expected at most half a phase, {0.5 / len(ranges):g} of the run with {len(ranges)} phases, got {jitter:g}; "
            "lower it."
        )
