"""Signs that a student is about to break, seen in its rollouts alone: loops and repetition."""

from __future__ import annotations

from collections.abc import Sequence

PERIODS = range(2, 51)
"""Lengths of a loop, in tokens."""
REPEATS = 3
"""How often a loop must have come round."""
_RUN = 4


def ends_in_a_loop(token_ids: Sequence[int]) -> bool:
    """Returns whether a rollout says the same 2 to 50 tokens at least three times over, up to its last token.

    >>> ends_in_a_loop([7, 1, 2, 1, 2, 1, 2]), ends_in_a_loop([1, 2, 1, 2, 1, 2, 7])
    (True, False)
    """
    return any(
        token_ids[-REPEATS * period : -period] == token_ids[-(REPEATS - 1) * period :]
        for period in PERIODS
        if REPEATS * period <= len(token_ids) and token_ids[-1] == token_ids[-1 - period]
    )


def repetition(token_ids: Sequence[int]) -> float:
    """Returns the share of a rollout's runs of four tokens that came before in it, 0..1.

    >>> repetition([1, 2, 1, 2, 1, 2, 1]), repetition([1, 2])
    (0.5, 0.0)
    """
    runs = [tuple(token_ids[start : start + _RUN]) for start in range(len(token_ids) - _RUN + 1)]
    return 1.0 - len(set(runs)) / len(runs) if runs else 0.0
