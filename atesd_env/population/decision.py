"""What an action decides for a window: reveal ratios, and where it is asked for the version of the reference, and no teacher at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atesd_env.config import EnvConfig
from atesd_env.envs.columns import Row, problem_columns

RETIRED_ABOVE = 0.5
"""An action's last entry above which the teacher is dropped, where the action may drop it."""


class Decision(NamedTuple):
    """A window's decision.

    Attributes:
        reveal_ratios: [groups] in [0, 1]; where each problem has one of its own, the means over each group's.
        view: Number of the version that the teacher is shown, among ``EnvConfig.views``.
        is_retired: Whether the window goes without teacher and update.
        columns: What the row says of it beside the ratios of groups.
        by_problem: Where each problem has a ratio of its own, these: [hold_window * num_rollouts], update by update.
    """

    reveal_ratios: NDArray[np.float64]
    view: int = 0
    is_retired: bool = False
    columns: Row = {}  # noqa: RUF012 (never changed)
    by_problem: NDArray[np.float64] | None = None

    def of_update(self, number: int, num_rollouts: int, share: slice) -> Decision:
        """Returns the same for update ``number`` of the window, from 0: of the problems' ratios those of a share of its rollouts."""
        if self.by_problem is None:
            return self
        return self._replace(by_problem=self.by_problem[number * num_rollouts :][:num_rollouts][share])


def decide(config: EnvConfig, action: NDArray[np.float64], problem_groups: Sequence[int] = ()) -> Decision:
    """Returns what an action means.

    Args:
        config: Says what its entries are.
        action: [config.action_size] in [0, 1]: a ratio for each group or each problem, then the view (its share of [0, 1]), then
            retirement.
        problem_groups: Where each problem has a ratio: the groups of the window's problems, in their order.
    """
    view, is_retired, columns = 0, False, Row()
    if config.action_views is not None:
        view = min(int(action[config.num_ratios] * len(config.views)), len(config.views) - 1)
        columns["exposure/view"] = view
    if config.action_retire:
        is_retired = bool(action[-1] > RETIRED_ABOVE)
        columns["exposure/retired"] = int(is_retired)
    ratios = action[: config.num_ratios]
    if config.action_ratios == "group":
        return Decision(ratios, view, is_retired, columns)
    columns |= zip((column.name for column in problem_columns(config.num_ratios)), ratios.tolist(), strict=True)
    return Decision(means_by_group(ratios, problem_groups, config.groups), view, is_retired, columns, ratios)


def means_by_group(ratios: NDArray[np.float64], problem_groups: Sequence[int], num_groups: int) -> NDArray[np.float64]:
    """Returns the mean ratio of each group's problems, [num_groups], of ratios [P]; of a group without problems that of all.

    >>> means_by_group(np.array([0.0, 0.2, 0.7]), [0, 0, 1], 2)
    array([0.1, 0.7])
    """
    groups = np.asarray(problem_groups)
    parts = [ratios[groups == group] if (groups == group).any() else ratios for group in range(num_groups)]
    # From the lowest up, so that equal ratios have their mean to the bit.
    return np.array([min(part.min() + (part - part.min()).mean(), part.max()) for part in parts])
