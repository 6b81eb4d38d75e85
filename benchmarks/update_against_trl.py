"""Updates against TRL's SDFTTrainer, interleaved in one run: one student, or K in a population against K one after the other.

The same base model, LoRA shape, problems, prompts (reveal ratio 1), batch, rollout length and full-vocabulary forward KL, both
in float32. Both sample their own rollouts; mean rollout lengths are reported, since time grows with them. After each TRL step
(sampling, teacher, student, backward, optimizer) one update of all our K students is timed, probe left out. The ratio is
K times TRL's median over our median. With ``--fast`` a second population of ours follows, with the fields ``FAST``. With
``--only``, one side runs alone and its peak memory is reported, beside the resident set before the first update.

Needs `pip install atesd-env[trl]`.

Examples:
    OMP_NUM_THREADS=2 python -m benchmarks.update_against_trl
    OMP_NUM_THREADS=2 python -m benchmarks.update_against_trl --students 16 --workers 2 --updates 7
    OMP_NUM_THREADS=2 python -m benchmarks.update_against_trl --env ATESD-SmolLM2-135M-v0 --updates 7 --fast
    OMP_NUM_THREADS=2 python -m benchmarks.update_against_trl --env ATESD-SmolLM2-135M-v0 --updates 2 --only trl
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import TrainerCallback

from atesd_env.config import EnvConfig, preset
from atesd_env.population.population import Population
from atesd_env.population.workers import ParallelPopulation
from atesd_env.student.loading import load_student
from atesd_env.tasks.registry import make_task
from benchmarks.common import FAST, save
from benchmarks.trl_sdft import sdft_trainer


class Interleaved(TrainerCallback):
    """Times TRL's step from its beginning to its end, then one update of each of our populations."""

    def __init__(self, populations: Sequence[Any]) -> None:
        self.populations = populations
        self.trl_sec: list[float] = []
        self.ours_sec: list[list[float]] = [[] for _ in populations]
        self.our_lengths: list[float] = []
        self._began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.trl_sec.append(time.perf_counter() - self._began)
        self.update_ours()

    def update_ours(self) -> None:
        """One update of all students of each population."""
        for population, ours_sec in zip(self.populations, self.ours_sec, strict=True):
            started = time.perf_counter()
            rows = population.window(np.ones((population.num_students, 1)))
            elapsed = time.perf_counter() - started
            ours_sec.append(elapsed - population.timings["time/probe_sec"])
            self.our_lengths.append(float(np.mean([row["rollout/length"] for row in rows])))


def train_trl(config: EnvConfig, updates: int, callback: Interleaved) -> list[float]:
    """Runs TRL's trainer; returns the mean length of each update's rollouts."""
    lengths: list[float] = []
    student, task = load_student(config), make_task(config)
    problems = [task.training_problem(0, index) for index in range(config.num_rollouts * updates)]
    with tempfile.TemporaryDirectory() as folder:
        trainer = sdft_trainer(config, student.model, student.tokenizer, task, problems, folder)
        trainer.add_callback(callback)
        sample = trainer.sample_rollouts

        def watched(inputs: Any) -> Any:
            batch = sample(inputs)
            lengths.append(float(batch["completion_mask"].sum(dim=1).float().mean()))
            return batch

        trainer.sample_rollouts = watched
        trainer.train()
    return lengths


def make_population(config: EnvConfig, num_students: int, num_workers: int) -> Any:
    """Returns K students, reset, in this process or in several."""
    population: Any = (
        Population(config, num_students) if num_workers == 1 else ParallelPopulation(config, num_students, num_workers)
    )
    for index in range(num_students):
        population.reset(index, index)
    return population


def peak_mebibytes() -> float:
    """Returns the largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def spread(seconds: list[float]) -> dict[str, float]:
    """Returns median, smallest and largest of the timed updates; the first is not counted."""
    timed = np.asarray(seconds[1:])
    return {"median": float(np.median(timed)), "min": float(timed.min()), "max": float(timed.max())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="ATESD-Tiny-v0", help="environment id")
    parser.add_argument("--students", type=int, default=1, help="K")
    parser.add_argument("--workers", type=int, default=1, help="processes of our population")
    parser.add_argument("--updates", type=int, default=15, help="timed updates of each; one before them is not counted")
    parser.add_argument("--fast", action="store_true", help=f"also with {FAST}; with --only ours, only so")
    parser.add_argument("--only", choices=("ours", "trl"), help="one side alone, for its peak memory")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    config = preset(
        arguments.env, hold_window=1, windows=10_000, probe_size=1, probe_accuracy_every=0, progress="signed"
    )
    ways: list[dict[str, Any]] = [{}, FAST] if arguments.fast else [{}]
    ours = [
        make_population(config.replace(**way), arguments.students, arguments.workers)
        for way in (ways[-1:] if arguments.only == "ours" else [] if arguments.only == "trl" else ways)
    ]
    callback = Interleaved(ours)
    before = peak_mebibytes()
    lengths = [0.0, 0.0]
    if arguments.only == "ours":
        for _ in range(arguments.updates + 1):
            callback.update_ours()
    else:
        lengths = train_trl(config, arguments.updates + 1, callback)
    result: dict[str, Any] = {"env": arguments.env, "students": arguments.students, "workers": arguments.workers}
    result["updates"] = arguments.updates
    if arguments.only:
        sec = spread(callback.ours_sec[0] if arguments.only == "ours" else callback.trl_sec)
        result |= {f"{arguments.only}_sec": sec, "peak_mebibytes": peak_mebibytes(), "before_mebibytes": before}
    else:
        trl_sec, ours_sec = spread(callback.trl_sec), spread(callback.ours_sec[0])
        result |= {
            "trl_sec": trl_sec,
            "ours_sec": ours_sec,
            "mean_rollout_length": {
                "trl": float(np.mean(lengths[1:])),
                "ours": float(np.mean(callback.our_lengths[len(ours) :])),
            },
            "ratio_of_medians": arguments.students * trl_sec["median"] / ours_sec["median"],
        }
        if arguments.fast:
            result["fast"] = FAST
            result["fast_sec"] = spread(callback.ours_sec[1])
            result["fast_ratio_of_medians"] = arguments.students * trl_sec["median"] / result["fast_sec"]["median"]
    parts = ["update_against_trl", arguments.env.removeprefix("ATESD-").removesuffix("-v0").lower()]
    parts.append(f"{arguments.students}_students")
    if arguments.students > 1 and arguments.workers == 1:
        parts.append("one_process")
    if arguments.only:
        parts += [arguments.only, *(["fast"] if arguments.fast else [])]
    save("_".join(parts), result)


if __name__ == "__main__":
    main()
