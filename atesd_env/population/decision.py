"""What an action decides for a window: reveal ratios, and where it is asked for the version of the reference, and no teacher at all."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atesd_env.config import EnvConfig
from atesd_env.envs.columns import Row

RETIRED_ABOVE = 0.5
"""An action's last entry above which the teacher is dropped, where the action may drop it."""


class Decision(NamedTuple):
    """A window's decision.

    Attributes:
        reveal_ratios: [groups] in [0, 1].
        view: Number of the version that the teacher is shown, among ``EnvConfig.views``.
        is_retired: Whether the window goes without teacher and update.
        columns: What the row says of it beside the ratios.
    """

    reveal_ratios: NDArray[np.float64]
    view: int = 0
    is_retired: bool = False
    columns: Row = {}  # noqa: RUF012 (never changed)


def decide(config: EnvConfig, action: NDArray[np.float64]) -> Decision:
    """Returns what an action means.

    Args:
        config: Says what its entries are.
        action: [config.action_size] in [0, 1]: a ratio for each group, then the view (its share of [0, 1]), then retirement.
    """
    view, is_retired, columns = 0, False, Row()
    if config.action_views is not None:
        view = min(int(action[config.groups] * len(config.views)), len(config.views) - 1)
        columns["exposure/view"] = view
    if config.action_retire:
        is_retired = bool(action[-1] > RETIRED_ABOVE)
        columns["exposure/retired"] = int(is_retired)
    return Decision(action[: config.groups], view, is_retired, columns)
