"""What the processes of one run on several devices tell each other: sums, gathered rows, and whether they still agree.

Rows of a batch are shared out; everything else (base, adapters, optimizers, order of problems, random streams) each process
holds whole. A process by itself is the group of one, for which nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from atesd_env.errors import RankError

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: Which one this is, from 0.
        size: How many there are.
        group: Their ``torch.distributed`` process group; None for one process.
    """

    rank: int = 0
    size: int = 1
    group: Any = None

    def share(self, num_rows: int) -> slice:
        """Returns this process's rows of ``num_rows``: shares lie one behind the other and differ by one row at most."""
        return slice(num_rows * self.rank // self.size, num_rows * (self.rank + 1) // self.size)

    def sum_(self, tensor: Tensor) -> None:
        """Adds a tensor up over the processes, in place; all of them get the same bits.

        Raises:
            RankError: If another process ended or does not answer.
        """
        if self.size > 1:
            with others_answering():
                dist.all_reduce(tensor, group=self.group)

    def gathered(self, items: Sequence[_Item]) -> list[_Item]:
        """Returns the items of all processes, rank by rank: those of ``share``'s rows are then in the rows' order."""
        if self.size == 1:
            return list(items)
        parts: list[Any] = [None] * self.size
        with others_answering():
            dist.all_gather_object(parts, list(items), group=self.group)
        return [item for part in parts for item in part]

    def check_same(self, tensor: Tensor, what: str) -> None:
        """Refuses to go on if the processes' copies of a float32 tensor differ in a single bit of their sum.

        Raises:
            RankError: If they do.
        """
        if self.size == 1:
            return
        total = int(tensor.detach().view(torch.int32).sum(dtype=torch.int64))
        if len(set(self.gathered([total]))) > 1:
            raise RankError(
                f"ranks: expected the same {what} in all {self.size} processes, but they differ; run on devices of one kind with "
                "one version of torch."
            )


ALONE = Ranks()
"""One process by itself."""


@contextmanager
def others_answering() -> Iterator[None]:
    """Turns what ``torch.distributed`` raises when another process is gone into a ``RankError``."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, RankError):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[0].rpartition("] ")[2] or lines[0]  # behind the place in the library's source
        raise RankError(
            "ranks: expected every process of the run to answer, but one has ended or does not answer within rank_timeout_sec: "
            f"{reason.rstrip('.')}. Rows and checkpoints written before are intact; the same command with --resume goes on."
        ) from error
