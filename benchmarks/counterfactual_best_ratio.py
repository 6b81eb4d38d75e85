"""Which reveal ratio is best over the next L windows, at the beginning, in the middle and late in a run? Tiny, paired.

Students with different seeds follow one fixed ratio. At three states of each run, five ratios are followed for L windows on
common random numbers (`atesd_env.counterfactual`). A seed's outcome at a ratio is compared with its mean over the
ratios, so that what differs between seeds cancels; intervals are Student's t over seeds (95%). The best ratio is chosen by
the same numbers that it is reported with, so its lead is flattered: how many seeds agree is reported beside it.

Example: python -m benchmarks.counterfactual_best_ratio --seeds 4
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.progress import track
from scipy import stats

from atesd_env.config import preset
from atesd_env.envs.branch import counterfactual
from atesd_env.population.environments import TeacherExposureVectorEnv
from benchmarks.common import num_seeds, save

RATIOS = (0.0, 0.25, 0.5, 0.75, 1.0)
FIGURE = Path(__file__).parents[1] / "docs" / "results" / "counterfactual.png"
OUTCOMES = {"return": "return", "drop": "drop of probe NLL", "probe/accuracy": "probe accuracy"}
"""What is compared after L windows, and its label."""


def t_interval(values: np.ndarray) -> dict[str, float]:
    """Returns mean and 95% interval of a sample [S] (Student's t, S - 1 degrees of freedom)."""
    mean, half = float(values.mean()), float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def measure(seeds: int, lookahead: int, run_ratio: float) -> pd.DataFrame:
    """Returns the last window of every branch, a line for each seed, state (windows done) and ratio."""
    # Two stretches between three states; the accuracy is measured in the last window of every branch.
    stretch = 3 * lookahead
    config = preset("ATESD-Tiny-v0", windows=2 * stretch + lookahead, probe_accuracy_every=lookahead)
    env = TeacherExposureVectorEnv(config, seeds)
    _, infos = env.reset(seed=0)
    actions = np.full((seeds, 1), run_ratio, dtype=np.float32)
    parts = []
    for done in track(range(config.windows - lookahead + 1), description="windows"):
        if done % stretch == 0:
            for seed in range(seeds):
                frame = counterfactual(env, RATIOS, lookahead, student=seed)
                last = frame[frame["offset"] == lookahead]
                parts.append(last.assign(seed=seed, done=done, drop=infos["probe/nll"][seed] - last["probe/nll"]))
        if done < config.windows - lookahead:
            *_, infos = env.step(actions)
    return pd.concat(parts, ignore_index=True)


def summary(frame: pd.DataFrame, outcome: str) -> dict[str, Any]:
    """Returns, for one state, each ratio's advantage over the mean of the ratios, and which is best."""
    table = frame.pivot(index="seed", columns="reveal_ratio", values=outcome)
    advantage = table.sub(table.mean(axis=1), axis=0)
    order = advantage.mean().sort_values(ascending=False).index
    lead = (table[order[0]] - table[order[1]]).to_numpy()
    return {
        "mean": {str(ratio): float(table[ratio].mean()) for ratio in table},
        "advantage_over_mean_of_ratios": {str(ratio): t_interval(advantage[ratio].to_numpy()) for ratio in table},
        "best_ratio": float(order[0]),
        "lead_over_second": {"second_ratio": float(order[1]), **t_interval(lead)},
        "best_by_seed": [float(ratio) for ratio in table.idxmax(axis=1)],
    }


def draw(frame: pd.DataFrame, lookahead: int) -> None:
    """Draws advantages by ratio: a row for each outcome, a column for each state; a dot is a seed."""
    states = sorted(frame["done"].unique())
    figure = Figure(figsize=(9, 7), dpi=110, layout="constrained")
    grid = figure.subplots(len(OUTCOMES), len(states), sharex=True, sharey="row", squeeze=False)
    for row, (outcome, label) in zip(grid, OUTCOMES.items(), strict=True):
        for axes, done in zip(row, states, strict=True):
            table = frame[frame["done"] == done].pivot(index="seed", columns="reveal_ratio", values=outcome)
            advantage = table.sub(table.mean(axis=1), axis=0)
            intervals = [t_interval(advantage[ratio].to_numpy()) for ratio in RATIOS]
            for _, line in advantage.iterrows():
                axes.plot(RATIOS, line, ".", color="#7f7f7f", markersize=5)
            means = np.array([interval["mean"] for interval in intervals])
            half = np.array([interval["high"] for interval in intervals]) - means
            axes.errorbar(RATIOS, means, half, color="#0072B2", marker="o", markersize=4, capsize=3, linewidth=1.3)
            axes.axhline(0.0, color="black", linewidth=0.7)
            axes.grid(alpha=0.25, linewidth=0.6)
            axes.tick_params(labelsize=8)
        row[0].set_ylabel(f"{label},\nabove the mean of the ratios", fontsize=8)
    for axes, done in zip(grid[0], states, strict=True):
        axes.set_title(f"after {done} windows", fontsize=10)
    for axes in grid[-1]:
        axes.set_xlabel("reveal ratio", fontsize=9)
    figure.suptitle(
        f"Each ratio for the next {lookahead} windows, from the same state ({frame['seed'].nunique()} seeds, 95% intervals)",
        fontsize=11,
    )
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(FIGURE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=num_seeds, default=4, help="number of seeds, counted from 0")
    parser.add_argument("--lookahead", type=int, default=3, help="windows that each ratio is followed for")
    parser.add_argument("--run-ratio", type=float, default=0.5, help="the ratio that leads to the states")
    arguments = parser.parse_args()
    started = time.perf_counter()
    frame = measure(arguments.seeds, arguments.lookahead, arguments.run_ratio)
    draw(frame, arguments.lookahead)
    states = sorted(frame["done"].unique().tolist())
    save(
        "counterfactual_best_ratio",
        {
            "seeds": list(range(arguments.seeds)),
            "lookahead_windows": arguments.lookahead,
            "ratio_of_the_run": arguments.run_ratio,
            "wall_sec": round(time.perf_counter() - started, 1),
            "after_windows": {
                str(done): {outcome: summary(frame[frame["done"] == done], outcome) for outcome in OUTCOMES}
                for done in states
            },
        },
    )


if __name__ == "__main__":
    main()
