"""Phases of a run: training problems whose number of addends changes as the run goes on."""

from __future__ import annotations

from dataclasses import dataclass

from atesd_env.streams import numpy_stream


@dataclass(frozen=True)
class Phases:
    """Equal parts of a run, one after the other, with a range of addends each.

    Attributes:
        ranges: Fewest and most addends of each phase.
        num_problems: Problems of the whole run; what comes after them is of the last phase.
        jitter: Each change of phase lies at most this share of the run before or after its place, uniformly; drawn from the seed.
    """

    ranges: tuple[tuple[int, int], ...]
    num_problems: int
    jitter: float = 0.0

    def changes(self, seed: int) -> list[float]:
        """Returns where the phases but the first begin, in shares of the run of ``seed``, increasing."""
        count = len(self.ranges)
        shifts = numpy_stream(seed, "phases").uniform(-self.jitter, self.jitter, size=count - 1)
        return [place / count + float(shift) for place, shift in zip(range(1, count), shifts, strict=True)]

    def addends(self, seed: int, index: int) -> tuple[int, int]:
        """Returns fewest and most addends of training problem ``index`` (from 0) in the order of ``seed``."""
        return self.ranges[sum(index >= change * self.num_problems for change in self.changes(seed))]
