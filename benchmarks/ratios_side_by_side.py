"""How far apart fixed reveal ratios end on an instance: students side by side, paired by seed, on held-out problems.

An instance is a base student with the problems and the update settings of a run. All its schedules and seeds are trained in one population,
so schedule A and B of one seed begin with the same adapter and meet the same problems and random numbers. What is printed for an instance:
accuracy at each ratio, the best ratio, and best minus worst with a paired interval.

Example: python -m benchmarks.ratios_side_by_side --student tiny-terse-slip-0 --fields '{"min_addends": 5, "learning_rate": 0.003}'
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from atesd_env.config import EnvConfig, preset_of
from atesd_env.population.population import Population
from atesd_env.population.probe import Probe
from atesd_env.student.packaged import PACKAGED_STUDENTS
from benchmarks.common import mean_with_interval, provenance

RATIOS = (0.0, 0.25, 0.5, 0.75, 1.0)
SCHEDULES = (*(f"fixed:{ratio:g}" for ratio in RATIOS), "random")
KEPT = ("probe/nll", "probe/grounded", "student/mismatch", "student/entropy", "rollout/length", "rollout/success_rate")
"""Columns that are kept of every window."""


def action(schedule: str, window: int, windows: int, groups: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Returns the reveal ratios [groups] of a window (from 0).

    Args:
        schedule: "fixed:A", "random", "staged:A:B..." (equal stages), "cycle:A:B..." (one window each, again and again), or "groups:A:B".
        window: Which.
        windows: Of the run.
        groups: Difficulty groups.
        rng: Of the run, for "random".
    """
    kind, *numbers = schedule.split(":")
    values = [float(number) for number in numbers]
    if kind == "random":
        return np.full(groups, rng.random())
    if kind == "groups":
        return np.array(values)
    place = {"fixed": 0, "staged": window * len(values) // windows, "cycle": window % max(len(values), 1)}[kind]
    return np.full(groups, values[place])


def trained_side_by_side(
    config: EnvConfig, schedules: Sequence[str], seeds: Sequence[int], num_heldout: int
) -> list[dict[str, Any]]:
    """Returns a record for each schedule and seed: held-out accuracy, also by number of addends, and what its windows showed."""
    slots = [(schedule, seed) for seed in seeds for schedule in schedules]
    population = Population(config, len(slots))
    heldout = heldout_probes(population, num_heldout)
    rngs = [np.random.default_rng([seed, 17]) for _, seed in slots]
    for index, (_, seed) in enumerate(slots):
        population.reset(index, seed)
    for window in range(config.windows):
        population.window(
            np.stack(
                [
                    action(schedule, window, config.windows, config.groups, rng)
                    for (schedule, _), rng in zip(slots, rngs, strict=True)
                ]
            )
        )
    records = []
    for index, (schedule, seed) in enumerate(slots):
        run, accuracy = population.runs[index], {}
        for length, probe in heldout.items():
            accuracy[length] = probe.accuracy(index, config.max_new_tokens)
        shares = [len(probe.problems) / num_heldout for probe in heldout.values()]
        records.append(
            {
                "schedule": schedule,
                "seed": seed,
                "accuracy": rounded(np.dot(shares, list(accuracy.values()))),
                "by_addends": {f"{length:g}": rounded(value) for length, value in accuracy.items()},
                "broken": run.broken,
                **{name: [rounded(row.get(name)) for row in run.rows] for name in KEPT},
            }
        )
    return records


def heldout_probes(population: Population, number: int) -> dict[float, Probe]:
    """Returns a population's held-out problems (those of its first student) by number of addends."""
    instance, config = population.instances[0], population.config
    problems = instance.task.heldout_problems(number)
    return {
        length: Probe(
            population.student,
            population.adapters,
            instance.builder,
            [problem for problem in problems if problem.difficulty == length],
            config.probe_max_tokens,
            batch_size=250,
        )
        for length in sorted({problem.difficulty for problem in problems})
    }


def rounded(value: Any) -> float | None:
    """Returns a number with 4 digits behind the point, or None."""
    return None if value is None else round(float(value), 4)


def summary(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns mean accuracy by schedule, which fixed ratio is best and worst, and how far they are apart (paired 95% interval)."""
    schedules = list(dict.fromkeys(record["schedule"] for record in records))
    table = {name: np.array([r["accuracy"] for r in records if r["schedule"] == name]) for name in schedules}
    means = {name: float(values.mean()) for name, values in table.items()}
    fixed = sorted((name for name in schedules if name.startswith("fixed:")), key=lambda name: means[name])
    if not fixed:
        return {"accuracy": means}
    spread = mean_with_interval(table[fixed[-1]] - table[fixed[0]])
    return {"accuracy": means, "best_fixed": fixed[-1], "worst_fixed": fixed[0], "best_minus_worst": spread}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", required=True, help=f"one of {', '.join(PACKAGED_STUDENTS)}, or any other base")
    parser.add_argument("--fields", type=json.loads, default={}, help="JSON object of configuration fields")
    parser.add_argument("--schedules", nargs="+", default=list(SCHEDULES), help=action.__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--heldout", type=int, default=500, help="held-out problems")
    parser.add_argument("--out", type=Path, required=True, help="file that gets a line of JSON for each instance")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # The probe's own accuracy is not needed: what counts is measured once, on more problems.
    defaults = {"hold_window": 4, "probe_size": 64, "probe_accuracy_every": 0, "progress": "signed"}
    config = preset_of(EnvConfig, "ATESD-Tiny-v0", student=arguments.student, **(defaults | arguments.fields))
    started = time.process_time()
    records = trained_side_by_side(config, arguments.schedules, arguments.seeds, arguments.heldout)
    line = {
        **provenance(),
        "student": arguments.student,
        "fields": arguments.fields,
        "heldout_problems": arguments.heldout,
        "seeds": arguments.seeds,
        "cpu_sec_a_run": round((time.process_time() - started) / len(records), 2),
        "summary": summary(records),
        "runs": records,
    }
    with arguments.out.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(arguments.student, arguments.fields, json.dumps(line["summary"]), line["cpu_sec_a_run"], flush=True)


if __name__ == "__main__":
    main()
