"""What holds of controllers on the bench: comparisons on the split test, each with intervals that hold together.

Reads the landscapes beside a set (``benchmarks.references``), so that anybody can compute it anew in seconds. A difference is the
mean over instances of the paired difference by seed; its interval is Student's t with Welch's degrees of freedom
(``analysis.stratified``), at a confidence of 1 - 0.05 / m where m comparisons stand in a table (Bonferroni).

Example: python -m benchmarks.claims
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from agents.credit import learning_progress_return
from analysis.bench import at_equal_compute, bench_outcomes
from analysis.contrasts import to_best
from analysis.stratified import stratified_mean_interval
from atesd_env.bench.instances import InstanceSet
from atesd_env.bench.landscapes import landscape
from benchmarks.common import mean_with_interval, save
from benchmarks.references import BEST_FIXED, SEARCH_WITHIN, with_best_fixed, with_grid

LOOKAHEAD = "lookahead:candidates=scores:windows=1"
CREDITS = "beta:credit="
"""Beta's credits stand beside each other, and as one of them, ``beta``, beside other agents."""
ALL = "all instances"
GAMMA = 0.9
"""Discount of the credit that is set against one window's."""
SWEEP = ("slip_teleport-4", "slip_teleport-5", "teleport-slip_teleport-5")
"""The paper's picture in small."""


def accuracies(outcomes: pd.DataFrame, agents: Sequence[str], instance: str) -> NDArray[np.float64]:
    """Returns accuracy on an instance in points of a hundred, [seeds, agents].

    Raises:
        ValueError: If the agents' seeds differ there.
    """
    here = outcomes[(outcomes["instance"] == instance) & outcomes["agent"].isin(agents)]
    table = here.pivot(index="seed", columns="agent", values="probe/accuracy").reindex(columns=[*agents])
    if table.isna().any(axis=None):
        raise ValueError(f"{instance}: expected accuracies of {', '.join(agents)} at the same seeds, got\n{table}")
    return 100.0 * table.to_numpy()


def mean_accuracy(outcomes: pd.DataFrame, agent: str) -> float:
    """Returns an agent's accuracy over all instances, which count alike, in points of a hundred."""
    instances = outcomes.loc[outcomes["agent"] == agent, "instance"].unique()
    return float(np.mean([accuracies(outcomes, [agent], name).mean() for name in instances]))


def difference(outcomes: pd.DataFrame, agent: str, other: str, comparisons: int) -> dict[str, float]:
    """Returns by how many points an agent is above another one, mean over instances, with its interval among so many comparisons."""
    pairs = [accuracies(outcomes, [agent, other], name) for name in sorted(outcomes["instance"].unique())]
    strata = [pair[:, 0] - pair[:, 1] for pair in pairs]
    low, high = stratified_mean_interval(strata, confidence=1 - 0.05 / comparisons)
    return {"mean": float(np.mean([one.mean() for one in strata])), "low": low, "high": high}


def against_all(outcomes: pd.DataFrame, controllers: Sequence[str], others: Sequence[str]) -> dict[str, Any]:
    """Returns each controller's difference to each of the others; all intervals of a controller hold together."""
    return {
        agent: {
            other: difference(outcomes, agent, other, len(others) - (agent in others))
            for other in others
            if other != agent
        }
        for agent in controllers
    }


def baselines(agents: Sequence[str]) -> list[str]:
    """Returns those that a controller must beat: fixed ratios by size, the best one of each instance, random ones, Beta, feedback."""
    fixed = sorted((agent for agent in agents if agent.startswith("fixed:")), key=lambda agent: float(agent[6:]))
    return [*fixed, *(agent for agent in agents if agent.startswith((BEST_FIXED, "random", "beta", "feedback")))]


def different(outcomes: pd.DataFrame, agents: Sequence[str]) -> list[str]:
    """Returns agents without those whose runs are another one's: ratios that show as much on all instances are compared once."""
    nll = outcomes.pivot(index="agent", columns=["instance", "seed"], values="probe/nll").loc[[*agents]]
    return list(nll.index[~nll.duplicated()])


def on_instance(outcomes: pd.DataFrame, instance: str) -> dict[str, Any]:
    """Returns each agent's accuracy on an instance, and its difference to the best one, whose intervals hold together."""
    agents = sorted(outcomes.loc[outcomes["instance"] == instance, "agent"].unique())
    found = accuracies(outcomes, agents, instance)
    contrast, best = to_best(found, higher_is_better=True)
    return {
        "best": agents[best],
        "agents": {
            agent: {
                **mean_with_interval(found[:, k]),
                "to_best": [float(contrast.difference[k]), float(contrast.low[k]), float(contrast.high[k])],
            }
            for k, agent in enumerate(agents)
        },
    }


def credit(frame: pd.DataFrame, outcomes: pd.DataFrame, fixed: Sequence[str]) -> dict[str, Any]:
    """Returns what the first window and discounted progress would each choose among fixed ratios, and what that ends at.

    The differences' intervals, one an instance and one over all, hold together (Bonferroni).
    """
    chosen: dict[str, Any] = {}
    differences: dict[str, NDArray[np.float64]] = {}
    for instance, rows in frame[frame["agent"].isin(fixed)].groupby("instance"):
        ends = accuracies(outcomes, fixed, str(instance))
        drops = np.stack([_drops(rows[rows["agent"] == agent]) for agent in fixed], axis=1)  # [seeds, ratios, windows]
        whole = drops.shape[-1]
        returns = np.stack(
            [[learning_progress_return(run, gamma=GAMMA, lookahead=whole)[0] for run in seed] for seed in drops]
        )
        seeds = np.arange(len(ends))
        one, many = ends[seeds, drops[..., 0].argmax(axis=1)], ends[seeds, returns.argmax(axis=1)]
        chosen[str(instance)] = {
            "first window": float(one.mean()),
            "discounted": float(many.mean()),
            "best ratio": float(ends.mean(axis=0).max()),
        }
        differences[str(instance)] = many - one
    confidence = 1 - 0.05 / (len(differences) + 1)
    for instance, strata in {
        **{name: [values] for name, values in differences.items()},
        ALL: list(differences.values()),
    }.items():
        low, high = stratified_mean_interval(strata, confidence=confidence)
        told = {"mean": float(np.mean([values.mean() for values in strata])), "low": low, "high": high}
        chosen.setdefault(instance, _mean_of(chosen))["difference"] = told
    return chosen


def _mean_of(lines: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the mean of lines of numbers, those that are none left out."""
    names = [name for name, value in next(iter(lines.values())).items() if isinstance(value, float)]
    return {name: float(np.mean([line[name] for line in lines.values()])) for name in names}


def returns(frame: pd.DataFrame) -> dict[str, float]:
    """Returns each agent's mean return, instances counting alike; the id's ``reward_threshold`` is that of ``balance``."""
    runs = frame.groupby(["agent", "instance", "seed"])["reward/total"].sum()
    return {
        str(agent): float(mean)
        for agent, mean in runs.groupby(["agent", "instance"]).mean().groupby("agent").mean().items()
    }


def _drops(rows: pd.DataFrame) -> NDArray[np.float64]:
    """Returns the drop of the probe NLL in each window of an agent's runs, [seeds, windows]; what a run that broke lacks is 0."""
    after = rows.pivot(index="seed", columns="window", values="probe/nll")
    before = after.shift(axis=1)
    before[1] = rows[rows["window"] == 1].set_index("seed")[
        "probe/nll_before"
    ]  # which the first window's row alone tells
    return (before - after).fillna(0.0).to_numpy()


def sweep(frame: pd.DataFrame, outcomes: pd.DataFrame, instance: str, fixed: Sequence[str]) -> dict[str, Any]:
    """Returns accuracy and mismatch by fixed ratio on an instance, and how far random ratios are below the best one."""
    here = frame[frame["instance"] == instance]
    mismatch = here.groupby(["agent", "seed"])["student/mismatch"].mean()
    known = on_instance(outcomes[outcomes["agent"].isin([*fixed, "random"])], instance)
    return {**known, "mismatch": {agent: mean_with_interval(mismatch[agent]) for agent in fixed}}


def within(outcomes: pd.DataFrame, others: Sequence[str]) -> dict[str, Any]:
    """Returns what a search within each run reaches beside other agents on its seeds, and what it spends; empty where it was not run."""
    runs = outcomes[outcomes["agent"] == SEARCH_WITHIN]
    same = outcomes.merge(runs[["instance", "seed"]])
    agents = [*others, SEARCH_WITHIN] if len(runs) else []
    spent = same.assign(
        updates=same["num_updates"] + same["branch_updates"], tokens=same["num_tokens"] + same["branch_tokens"]
    )
    return {
        agent: {
            "num_seeds": runs["seed"].nunique(),
            "accuracy": mean_accuracy(same, agent),
            **spent.loc[spent["agent"] == agent, ["updates", "tokens"]].mean().to_dict(),
            **({} if agent == SEARCH_WITHIN else {"search_above": difference(same, SEARCH_WITHIN, agent, len(others))}),
        }
        for agent in agents
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", default="atesd-bench", help="a packaged set, or a .json file")
    arguments = parser.parse_args()
    instances = InstanceSet.load(arguments.instances)
    of_split = {instance.id for instance in instances.of("test")}
    frame = landscape(instances)
    frame = with_best_fixed(with_grid(instances, frame[frame["instance"].isin(of_split)]))
    searched = within(bench_outcomes(frame), ["oracle", "balance:by=problem", "balance", BEST_FIXED])
    frame = frame[frame["agent"] != SEARCH_WITHIN]
    at_end, at_equal = bench_outcomes(frame), at_equal_compute(frame)
    agents = list(at_end["agent"].unique())
    every, controllers = baselines(agents), [agent for agent in agents if agent not in baselines(agents)]
    others = different(at_end, every)
    fixed = [agent for agent in others if agent.startswith("fixed:")]
    means = {agent: mean_accuracy(at_end, agent) for agent in agents}
    single = max(fixed, key=means.__getitem__)
    grid = [agent for agent in every if agent.startswith("fixed:")]
    left_out = {BEST_FIXED, *grid} - {single, "fixed:1"}
    shown = [agent for agent in agents if agent not in left_out and not agent.startswith(CREDITS)]
    save(
        "claims",
        {
            "num_seeds": int(at_end.groupby(["instance", "agent"]).size().min()),
            "single_fixed": single,
            "accuracy": means,
            "accuracy_at_equal_compute": {agent: mean_accuracy(at_equal, agent) for agent in agents},
            "return": returns(frame),
            "a_at_equal_compute": against_all(at_equal, controllers, others),
            "a_after_the_last_window": against_all(at_end, controllers, others),
            "b_without_branches": against_all(
                at_end, [agent for agent in controllers if not agent.startswith("lookahead")], [LOOKAHEAD]
            ),
            "instances": {name: on_instance(at_end[at_end["agent"].isin(shown)], name) for name in sorted(of_split)},
            "fixed": {name: on_instance(at_end[at_end["agent"].isin(grid)], name) for name in sorted(of_split)},
            "search_within": searched,
            "e_credit": credit(frame, at_end, fixed),
            "f_sweep": {instance: sweep(frame, at_end, instance, fixed) for instance in SWEEP},
        },
    )


if __name__ == "__main__":
    main()
