"""When a student counts as collapsed, and its run as broken."""

from __future__ import annotations

import math


def collapse_reason(
    probe_nll: float,
    initial_nll: float,
    collapse_nll: float,
    loop_rate: float | None = None,
    collapse_loop_rate: float | None = None,
) -> str | None:
    """Returns why a student counts as broken by its latest probe NLL or its rollouts, or None.

    Args:
        probe_nll: Latest probe NLL, in nats a token.
        initial_nll: That of the base.
        collapse_nll: By how much the latest may exceed it.
        loop_rate: Share of the window's rollouts that end in a loop; None where there were none.
        collapse_loop_rate: Share that may; None is any.

    >>> collapse_reason(2.0, 1.0, collapse_nll=1.0), collapse_reason(2.5, 1.0, collapse_nll=1.0)
    (None, 'collapsed: probe NLL 2.500 exceeds the initial 1.000 by more than collapse_nll=1')
    """
    if collapse_loop_rate is not None and loop_rate is not None and loop_rate > collapse_loop_rate:
        return (
            f"collapsed: {loop_rate:.0%} of the rollouts end in a loop, more than "
            f"collapse_loop_rate={collapse_loop_rate:g}"
        )
    if math.isfinite(probe_nll) and probe_nll - initial_nll <= collapse_nll:
        return None
    return (
        f"collapsed: probe NLL {probe_nll:.3f} exceeds the initial {initial_nll:.3f} by more than "
        f"collapse_nll={collapse_nll:g}"
    )
