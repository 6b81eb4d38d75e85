"""What a language-model student's run has come to, apart from its tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from atesd_env.envs.columns import Row
from atesd_env.envs.observation import RunningStatistics


@dataclass
class RunState:
    """The state of a run.

    Attributes:
        seed: Seed of the run.
        num_updates: Updates made; also counts the random streams and the problems used.
        initial_nll: Probe NLL of the base, nats a token.
        probe_nll: Latest probe NLL.
        statistics: What a controller may know.
        rows: The rows so far.
        broken: Why the student counts as broken, or None.
    """

    seed: int
    num_updates: int = 0
    initial_nll: float = 0.0
    probe_nll: float = 0.0
    statistics: RunningStatistics = field(default_factory=RunningStatistics)
    rows: list[Row] = field(default_factory=list)
    broken: str | None = None

    @property
    def cut(self) -> str | None:
        """Only a student that breaks ends its episode before the last window."""
        return None

    def collapse(
        self, collapse_nll: float, most_loops: float | None = None, loop_rate: float | None = None
    ) -> str | None:
        """Returns why the student counts as broken by its latest probe NLL or its rollouts, or None.

        Args:
            collapse_nll: By how much the probe NLL may exceed the initial one, in nats a token.
            most_loops: Share of rollouts that may end in a loop; None is any.
            loop_rate: Share of the window's rollouts that did; None where there were none.
        """
        if most_loops is not None and loop_rate is not None and loop_rate > most_loops:
            return (
                f"collapsed: {loop_rate:.0%} of the rollouts end in a loop, more than collapse_loop_rate={most_loops:g}"
            )
        if math.isfinite(self.probe_nll) and self.probe_nll - self.initial_nll <= collapse_nll:
            return None
        return (
            f"collapsed: probe NLL {self.probe_nll:.3f} exceeds the initial {self.initial_nll:.3f} by more than "
            f"collapse_nll={collapse_nll:g}"
        )
