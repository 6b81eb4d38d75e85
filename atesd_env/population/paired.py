"""Students that meet the same problems, as branches of one state do, and runs with one seed: what is made once for all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from atesd_env.population.instance import Instance
from atesd_env.population.run_state import RunState


def meeting(students: Sequence[int], instances: Sequence[Instance], runs: Sequence[RunState]) -> list[list[int]]:
    """Returns the students in lots whose next update has the same problems and random numbers: by instance, seed and number."""
    lots = defaultdict(list)
    for student in students:
        lots[id(instances[student]), runs[student].seed, runs[student].num_updates].append(student)
    return list(lots.values())


def likenesses(lots: Sequence[Sequence[int]], adapters: Tensor) -> dict[int, int]:
    """Returns for each student the first of its lot with the same adapter, which answers alike.

    Of several processes, whose adapters are the same, each finds the same.

    Args:
        lots: As ``meeting`` returns them.
        adapters: [K, P], all students'.
    """
    first: dict[int, int] = {}
    # Sums, which are read at once, spare most comparisons; whoever shares one is compared number by number.
    sums: list[float] = adapters.sum(dim=1).tolist() if any(len(lot) > 1 for lot in lots) else []
    for lot in lots:
        others: list[int] = []
        for student in lot:
            alike = (
                one for one in others if sums[one] == sums[student] and torch.equal(adapters[one], adapters[student])
            )
            first[student] = next(alike, student)
            others += [student] if first[student] == student else []
    return first
