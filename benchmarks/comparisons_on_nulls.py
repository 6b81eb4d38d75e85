"""How often are comparisons of agents right? Coverage and false alarms on simulated tables, before and after.

Tables of equal agents are drawn: outcomes of seeds x agents, with a part that is the same for all agents of a seed. What is
called a difference there is a false alarm. *Before* is the rule that this project had until the functions of
``analysis.contrasts``: percentile bootstrap intervals over seeds, each by itself, the best fixed ratio chosen on the seeds it is
judged by (or, for each seed, by the others). *After* calls those functions.

- ``pair``: the 95% interval of one paired difference covers 0.
- ``reference``: at least one agent of the table is told from the first.
- ``best``: at least one agent is told from the one with the best mean.
- ``best_fixed``: at least one agent is told from the best of the fixed ratios (1, 3 and 5 of 2, 5 and 16 agents).
- ``best_fixed_dominates``: the same, where one fixed ratio and all that are none are far above the other fixed ratios.
- ``winner``: somebody is named the winner, as the verdict does it.

Example: python -m benchmarks.comparisons_on_nulls
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from analysis.contrasts import Contrast, to_best, to_best_fixed, to_reference
from analysis.verdict import LEAST_SEEDS
from benchmarks.common import save

SEEDS = (3, 5, 8, 16)
SEEDS_BEYOND = (3, 8)
NUM_FIXED = {2: 1, 5: 3, 16: 5}
"""Agents of a table -> how many of them, the first ones, are fixed ratios."""
FAR = 100.0
"""How far the better ones are above the other fixed ratios in ``best_fixed_dominates``, in standard deviations."""

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]


def in_ties(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Returns normal numbers rounded to half a standard deviation, so that one pair in seven is equal."""
    return np.round(2 * rng.standard_normal(shape)) / 2


KINDS: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "skewed": lambda rng, shape: rng.gamma(4.0, size=shape) / 2,
    "ties": in_ties,
}
"""Outcomes of standard deviation 1; "skewed" has a skewness of 1 (gamma, shape 4)."""

BEYOND: dict[str, Draw] = {
    "very skewed": lambda rng, shape: rng.exponential(size=shape),
    "one agent six times as noisy": lambda rng, shape: (
        rng.standard_normal(shape) * np.append(np.ones(shape[-1] - 1), 6.0)
    ),
    "half of the agents four times as noisy": lambda rng, shape: (
        rng.standard_normal(shape) * np.where(np.arange(shape[-1]) < (shape[-1] + 1) // 2, 1.0, 4.0)
    ),
}
"""What the claims do not cover; measured to say how far they fail."""


def claimed(outcomes: str, num_agents: int) -> dict[str, float]:
    """Returns what is claimed of tables of equal agents, in percent; of all of them at most 5% have a winner named.

    Differences of two equal agents are symmetric, whatever the outcomes. With more agents the limits are those of normal outcomes,
    which are careful where outcomes are skewed: 4, not 5. Where one fixed ratio dominates, nobody is below another one, so
    that only the odds of being above it are left, half of all.
    """
    told = 4.0 if outcomes == "skewed" and num_agents > 2 else 5.0
    dominates = 5.0 if num_agents == 2 else 2.5
    return {"pair": 95.0, "reference": told, "best": told, "best_fixed": told, "best_fixed_dominates": dominates}


def tables(rng: np.random.Generator, draw: Draw, num_tables: int, num_seeds: int, num_agents: int) -> Array:
    """Returns tables of equal agents, [num_tables, num_seeds, num_agents]; ties are kept by whole effects of seeds."""
    effect = np.round(2 * rng.standard_normal((num_tables, num_seeds, 1)))
    return effect + draw(rng, (num_tables, num_seeds, num_agents))


def dominated(table: Array) -> Array:
    """Returns the table with all fixed ratios but the first far below the others."""
    shift = np.zeros(table.shape[-1])
    shift[1 : NUM_FIXED[table.shape[-1]]] = -FAR
    return table + shift


def leaves_out_zero(low: Array, high: Array) -> bool:
    return bool(((low > 0) | (high < 0)).any())


def after(table: Array) -> dict[str, bool]:
    """Returns what the functions of ``analysis`` say of a table of equal agents."""
    num_seeds, num_agents = table.shape
    fixed = range(NUM_FIXED[num_agents])
    best, place = to_best(table, higher_is_better=True)

    def is_told(contrast: Contrast) -> bool:
        return leaves_out_zero(contrast.low, contrast.high)

    is_worse = best.high < 0
    is_worse[place] = True
    shifted = to_best_fixed(dominated(table), fixed, higher_is_better=True)
    equal = [0, *range(len(fixed), num_agents)]  # the others are far below, and rightly told
    return {
        "pair": not is_told(to_reference(table[:, :2], 0)),
        "reference": is_told(to_reference(table, 0)),
        "best": is_told(best),
        "best_fixed": is_told(to_best_fixed(table, fixed, higher_is_better=True)),
        "best_fixed_dominates": leaves_out_zero(shifted.low[equal[1:]], shifted.high[equal[1:]]),
        "winner": num_seeds >= LEAST_SEEDS and bool(is_worse.all()),
    }


def percentile_interval(values: Array, weights: Array) -> tuple[Array, Array]:
    """Returns the old rule's interval: 2.5% and 97.5% of the means of resampled seeds.

    Args:
        values: Differences, [num_seeds, ...].
        weights: Shares of each seed in each resample, [num_resamples, num_seeds].
    """
    means = np.tensordot(weights, values, axes=1)
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    return low, high


def before(table: Array, weights: Array) -> dict[str, bool]:
    """Returns what the old rule says of a table of equal agents."""
    num_seeds, num_agents = table.shape
    fixed = table[:, : NUM_FIXED[num_agents]]
    means = table.mean(axis=0)
    best = int(means.argmax())
    second = int(np.argsort(means)[-2])
    # The sum over the other seeds decides for each seed; with one fixed ratio there is nothing to choose.
    others = fixed.sum(axis=0) - fixed
    chosen = fixed[np.arange(num_seeds), others.argmax(axis=1)]
    free = table[:, fixed.shape[1] :]
    on_the_same = fixed[:, [int(fixed.mean(axis=0).argmax())]]
    low, _ = percentile_interval(table[:, best] - table[:, second], weights)
    return {
        "pair": not leaves_out_zero(*percentile_interval(table[:, 1] - table[:, 0], weights)),
        "reference": leaves_out_zero(*percentile_interval(table[:, 1:] - table[:, :1], weights)),
        "best": leaves_out_zero(*percentile_interval(np.delete(table, best, axis=1) - table[:, [best]], weights)),
        "best_fixed": leaves_out_zero(*percentile_interval(free - on_the_same, weights)),
        "best_fixed_by_the_others": leaves_out_zero(*percentile_interval(free - chosen[:, None], weights)),
        "winner": bool(low > 0),
    }


def shares(said: list[dict[str, bool]]) -> dict[str, float]:
    """Returns the share of tables of which each thing was said, in percent."""
    return {name: round(100 * float(np.mean([one[name] for one in said])), 2) for name in said[0]}


def measure(draw: Draw, num_seeds: int, num_agents: int, num_tables: int, *, with_before: int = 0) -> dict[str, Any]:
    """Returns the shares of one kind of outcomes; the old rule on the first ``with_before`` of the tables."""
    rng = np.random.default_rng([num_seeds, num_agents, 16])
    drawn = tables(rng, draw, num_tables, num_seeds, num_agents)
    result: dict[str, Any] = {"after": shares([after(table) for table in drawn])}
    if with_before:
        weights = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=1000) / num_seeds
        result["before"] = shares([before(table, weights) for table in drawn[:with_before]])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=4000, help="simulated tables of each kind")
    parser.add_argument("--tables-before", type=int, default=2000, help="of these, judged by the old rule too")
    arguments = parser.parse_args()
    started = time.perf_counter()
    cells = [(kind, n, k) for kind in KINDS for n in SEEDS for k in NUM_FIXED]
    cells += [(kind, n, k) for kind in BEYOND for n in SEEDS_BEYOND for k in NUM_FIXED]
    lines = []
    for kind, num_seeds, num_agents in track(cells, description="kinds"):
        draw = KINDS.get(kind) or BEYOND[kind]
        line = {"outcomes": kind, "is_claimed": kind in KINDS, "seeds": num_seeds, "agents": num_agents}
        if kind in KINDS:
            line["claimed"] = claimed(kind, num_agents)
        num_before = arguments.tables_before if kind in KINDS else 0
        lines.append({**line, **measure(draw, num_seeds, num_agents, arguments.tables, with_before=num_before)})
    save(
        "comparisons_on_nulls",
        {
            "tables": arguments.tables,
            "tables_before": arguments.tables_before,
            "standard_error": round(100 * float(np.sqrt(0.05 * 0.95 / arguments.tables)), 2),
            "wall_sec": round(time.perf_counter() - started, 1),
            "lines": lines,
        },
    )


if __name__ == "__main__":
    main()
