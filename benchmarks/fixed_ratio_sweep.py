"""Is full exposure best? Tiny, 40 updates at a fixed reveal ratio, paired seeds, 500 held-out problems.

Runs with one seed start from the same adapter and see the same problems and random numbers. The interior ratio that is
compared with 1.0 is chosen by the mean over all seeds; the intervals of the differences to 1.0 hold for all ratios at once, and so
for the chosen one.

Example: python -m benchmarks.fixed_ratio_sweep --seeds 8 --updates 40
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.progress import track

from atesd_env.config import preset
from atesd_env.population.population import Population
from atesd_env.population.probe import Probe
from benchmarks.common import differences_to, mean_with_interval, num_seeds, save

RATIOS = (0.0, 0.25, 0.5, 0.75, 1.0)
NUM_HELDOUT = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=num_seeds, default=8, help="number of seeds, counted from 0")
    parser.add_argument("--updates", type=int, default=40, help="student updates of a run")
    arguments = parser.parse_args()
    config = preset("ATESD-Tiny-v0", hold_window=arguments.updates, windows=1, probe_accuracy_every=0, probe_size=1)
    population = Population(config)
    heldout = Probe(
        population.student,
        population.adapters,
        population.instances[0].builder,
        population.instances[0].task.heldout_problems(NUM_HELDOUT),
        config.probe_max_tokens,
        batch_size=250,
    )
    population.reset(0, 0)
    base_accuracy = heldout.accuracy(0, config.max_new_tokens)
    accuracy = np.zeros((arguments.seeds, len(RATIOS)))
    for seed in track(range(arguments.seeds), description="seeds"):
        for position, ratio in enumerate(RATIOS):
            population.reset(0, seed)
            population.window(np.array([[ratio]]))
            accuracy[seed, position] = heldout.accuracy(0, config.max_new_tokens)
    interior = max(range(1, len(RATIOS) - 1), key=lambda position: accuracy[:, position].mean())
    save(
        "fixed_ratio_sweep",
        {
            "seeds": list(range(arguments.seeds)),
            "updates": arguments.updates,
            "heldout_problems": NUM_HELDOUT,
            "accuracy_before": base_accuracy,
            "accuracy_by_seed": {str(ratio): accuracy[:, i].tolist() for i, ratio in enumerate(RATIOS)},
            "accuracy": {str(ratio): mean_with_interval(accuracy[:, i].tolist()) for i, ratio in enumerate(RATIOS)},
            "paired_difference_to_full_exposure": differences_to(accuracy, RATIOS, len(RATIOS) - 1),
            "best_interior_ratio": RATIOS[interior],
        },
    )


if __name__ == "__main__":
    main()
