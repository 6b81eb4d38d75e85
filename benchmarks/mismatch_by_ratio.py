"""Does the teacher-student mismatch grow with the reveal ratio? First window of Tiny, five ratios, paired seeds.

The paper reports that it does (its fixed sweep). All ratios of a seed start from the same adapter and see the same problems
and random numbers; in a window of one update they also score the very same rollouts.

Example: python -m benchmarks.mismatch_by_ratio --seeds 8
"""

from __future__ import annotations

import argparse

import numpy as np

from atesd_env.config import preset
from atesd_env.population.population import Population
from benchmarks.common import mean_with_interval, num_seeds, save

RATIOS = (0.0, 0.25, 0.5, 0.75, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=num_seeds, default=8, help="number of seeds, counted from 0")
    parser.add_argument(
        "--hold-window", type=int, help="updates of the window; 1 scores identical rollouts; default: the id's"
    )
    arguments = parser.parse_args()
    config = preset("ATESD-Tiny-v0", probe_accuracy_every=0, probe_size=1)
    if arguments.hold_window is not None:
        config = config.replace(hold_window=arguments.hold_window)
    population = Population(config)
    mismatch = np.zeros((arguments.seeds, len(RATIOS)))
    for seed in range(arguments.seeds):
        for position, ratio in enumerate(RATIOS):
            population.reset(0, seed)
            (row,) = population.window(np.array([[ratio]]))
            mismatch[seed, position] = row["student/mismatch"]
    means = mismatch.mean(axis=0)
    save(
        "mismatch_by_ratio" if arguments.hold_window is None else f"mismatch_by_ratio_window_{config.hold_window}",
        {
            "seeds": list(range(arguments.seeds)),
            "updates_of_the_window": config.hold_window,
            "mismatch_by_seed": {str(ratio): mismatch[:, i].tolist() for i, ratio in enumerate(RATIOS)},
            "mismatch": {str(ratio): mean_with_interval(mismatch[:, i].tolist()) for i, ratio in enumerate(RATIOS)},
            "increase_over_previous_ratio": {
                str(ratio): mean_with_interval((mismatch[:, i] - mismatch[:, i - 1]).tolist())
                for i, ratio in enumerate(RATIOS)
                if i
            },
            "strictly_increasing": bool((np.diff(means) > 0).all()),
        },
    )


if __name__ == "__main__":
    main()
