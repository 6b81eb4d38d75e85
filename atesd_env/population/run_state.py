"""What a language-model student's run has come to, apart from its tensors."""

from __future__ import annotations

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
