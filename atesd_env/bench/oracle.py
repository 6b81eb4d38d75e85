"""The oracle: which schedule of reveal ratios ends best on an instance, searched for over snapshots.

The schedule is open-loop: it is found on some seeds and says what to show in each window whatever happens, so that it can be scored
on other seeds like any controller. (A search within one run, on its own random numbers, is ``lookahead`` with branches to the end.)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atesd_env.envs.contract import Students
from atesd_env.errors import ConfigError


class Schedule(NamedTuple):
    """Reveal ratios of a whole run.

    Attributes:
        ratios: For each window the ratio of each difficulty group, [windows][groups].
        accuracy: Probe accuracy after the last window, mean over the seeds that it was found on; NaN where it is not measured.
        nll: Probe NLL then, likewise; infinite where a student broke.
    """

    ratios: tuple[tuple[float, ...], ...]
    accuracy: float
    nll: float


class Prefix(NamedTuple):
    """How a schedule begins, and where that brought a student of each seed."""

    ratios: tuple[tuple[float, ...], ...]
    snapshots: Sequence[Any]
    nll: float = np.inf


def grid_of_actions(ratios: Sequence[float], groups: int) -> list[tuple[float, ...]]:
    """Returns every choice of a ratio for each group."""
    return list(product(ratios, repeat=groups))


def stage_lengths(windows: int, stages: int) -> list[int]:
    """Returns the windows of each stage, as equal as they can be, the longer ones last.

    >>> stage_lengths(16, 3)
    [5, 5, 6]
    """
    ends = [windows * stage // stages for stage in range(stages + 1)]
    return [end - start for start, end in pairwise(ends)]


def best_schedule(
    students: Students,
    actions: Sequence[tuple[float, ...]],
    seeds: Sequence[int],
    *,
    stages: int,
    width: int,
) -> tuple[Schedule, int]:
    """Searches for the schedule that ends best: a beam over stages, on common random numbers.

    Each prefix in the beam goes on with each action for a stage, by a student of each seed. Into the next stage come the prefixes with
    the lowest probe NLL, but of those that end in the same action only the best: a ratio that pays late is not lost to one that pays
    early. Of the whole schedules ``best_of`` says which.

    Args:
        students: Students of the instance's configuration; others like them are made.
        actions: What may be shown in a stage, each [groups].
        seeds: Seeds to search on, at least one.
        stages: Parts of the run in which the action is kept, from 1 to its windows.
        width: Prefixes that are kept, at least 1.

    Returns:
        The schedule, and the windows of a student that the search took.

    Raises:
        ConfigError: If there is nothing to search, or the stages do not fit.
    """
    windows = students.config.windows
    if not (actions and seeds and width >= 1 and 1 <= stages <= windows):
        raise ConfigError(
            f"oracle: expected actions, seeds, a width of at least 1 and stages from 1 to {windows}, got {len(actions)}, {len(seeds)}, "
            f"{width} and {stages}; correct these."
        )
    lengths = stage_lengths(windows, stages)
    beam = [Prefix((), _started(students, seeds))]
    found: list[Schedule] = []
    spent = 0
    for length in lengths:
        grown: list[Prefix] = []
        for prefix in beam:
            followed = students.twin(len(actions) * len(seeds))
            grown += _grown(followed, prefix, actions, length)
            if len(prefix.ratios) + length == windows:
                found += _ended(followed, grown[-len(actions) :])
            spent += sum(len(run.rows) - len(prefix.ratios) for run in followed.runs)
        beam = kept(grown, width)
    return best_of(found), spent


def best_of(schedules: Sequence[Schedule]) -> Schedule:
    """Returns the schedule with the highest probe accuracy, among equals (or where none is measured) the lowest probe NLL."""
    return max(schedules, key=lambda schedule: (np.nan_to_num(schedule.accuracy), -schedule.nll))


def kept(prefixes: Sequence[Prefix], width: int) -> list[Prefix]:
    """Returns the prefixes of the next stage: of those that end in the same action the best, and of these the ``width`` best."""
    best: dict[tuple[float, ...], Prefix] = {}
    for prefix in sorted(prefixes, key=lambda one: one.nll):
        best.setdefault(prefix.ratios[-1], prefix)
    return list(best.values())[:width]


def _started(students: Students, seeds: Sequence[int]) -> list[Any]:
    """Returns the state of a student of each seed before its first window."""
    starting = students.twin(len(seeds))
    for index, seed in enumerate(seeds):
        starting.reset(index, seed)
    return [starting.snapshot(index) for index in range(len(seeds))]


def _grown(students: Students, prefix: Prefix, actions: Sequence[tuple[float, ...]], length: int) -> list[Prefix]:
    """Returns a prefix followed by each action for ``length`` windows; students are action by action, seed by seed."""
    num_seeds = len(prefix.snapshots)
    for index in range(students.num_students):
        students.restore(index, prefix.snapshots[index % num_seeds])
    ratios = np.repeat(np.array(actions, dtype=np.float64), num_seeds, axis=0)
    for _ in range(length):
        going = [index for index in range(students.num_students) if not students.is_over(index)]
        if going:
            students.window(ratios[going], going)
    grown = []
    for place, action in enumerate(actions):
        its = range(place * num_seeds, (place + 1) * num_seeds)
        nll = [np.inf if students.runs[index].broken else students.runs[index].probe_nll for index in its]
        grown.append(
            Prefix((*prefix.ratios, *[action] * length), [students.snapshot(i) for i in its], float(np.mean(nll)))
        )
    return grown


def _ended(students: Students, prefixes: Sequence[Prefix]) -> list[Schedule]:
    """Returns the schedules that are whole, with what their students came to; a broken one has no accuracy left."""
    schedules = []
    for place, prefix in enumerate(prefixes):
        num_seeds = len(prefix.snapshots)
        runs = [students.runs[place * num_seeds + seed] for seed in range(num_seeds)]
        accuracy: NDArray[np.float64] = np.array(
            [0.0 if run.broken else run.rows[-1].get("probe/accuracy") for run in runs], dtype=np.float64
        )
        schedules.append(Schedule(prefix.ratios, float(accuracy.mean()), prefix.nll))
    return schedules
