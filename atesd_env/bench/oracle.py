"""The oracle: which schedule of reveal ratios ends best on an instance, searched for over snapshots.

The schedule is open-loop: it is found on some seeds and says what to show in each window whatever happens, so that it can be scored
on other seeds like any controller. (A search within one run, on its own random numbers, is ``lookahead`` with branches to the end.)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise, product
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
            grown += _grown(followed, prefix, [(action,) * length for action in actions])
            if len(prefix.ratios) + length == windows:
                found += _ended(followed, grown[-len(actions) :])
            spent += sum(len(run.rows) - len(prefix.ratios) for run in followed.runs)
        beam = kept(grown, width)
    return best_of(found), spent


def random_schedule(
    students: Students,
    actions: Sequence[tuple[float, ...]],
    seeds: Sequence[int],
    *,
    stages: int,
    budget: int,
    rng: np.random.Generator,
) -> tuple[Schedule, int]:
    """Returns the best of schedules that were drawn among all that ``best_schedule`` may find, what a search must beat.

    Args:
        students: As there.
        actions: As there.
        seeds: As there.
        stages: As there.
        budget: Windows of a student that may be spent, at least those of one schedule.
        rng: Draws the schedules, each at most once.

    Returns:
        The schedule, and the windows of a student that were spent.
    """
    cost = students.config.windows * len(seeds)
    number = min(budget // cost, len(actions) ** stages)
    drawn = rng.choice(len(actions) ** stages, size=number, replace=False)
    lengths = stage_lengths(students.config.windows, stages)
    places = np.stack(np.unravel_index(drawn, (len(actions),) * stages), axis=1)
    paths = [tuple(chain(*([actions[p]] * n for p, n in zip(one, lengths, strict=True)))) for one in places]
    return best_of(followed_to_the_end(students, paths, seeds)), number * cost


def followed_to_the_end(
    students: Students, paths: Sequence[tuple[tuple[float, ...], ...]], seeds: Sequence[int]
) -> list[Schedule]:
    """Returns what whole schedules [N][windows][groups] come to, each played by a student of each seed."""
    followed = students.twin(len(paths) * len(seeds))
    return _ended(followed, _grown(followed, Prefix((), _started(students, seeds)), paths))


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


def _grown(students: Students, prefix: Prefix, paths: Sequence[tuple[tuple[float, ...], ...]]) -> list[Prefix]:
    """Returns a prefix followed by each of some paths [N][windows][groups]; students are path by path, seed by seed."""
    num_seeds = len(prefix.snapshots)
    for index in range(students.num_students):
        students.restore(index, prefix.snapshots[index % num_seeds])
    ratios = np.repeat(np.array(paths, dtype=np.float64), num_seeds, axis=0)
    for window in range(ratios.shape[1]):
        going = [index for index in range(students.num_students) if not students.is_over(index)]
        if going:
            students.window(ratios[going, window], going)
    grown = []
    for place, path in enumerate(paths):
        its = range(place * num_seeds, (place + 1) * num_seeds)
        nll = [np.inf if students.runs[index].broken else students.runs[index].probe_nll for index in its]
        grown.append(Prefix((*prefix.ratios, *path), [students.snapshot(i) for i in its], float(np.mean(nll))))
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
