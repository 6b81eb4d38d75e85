"""A window of the packaged student on this machine's device against the same window on its CPU."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from torch import Tensor

from atesd_env.config import preset
from atesd_env.population.population import Population
from benchmarks.gpu_window import device_name

SMALL: dict[str, Any] = {"windows": 2, "hold_window": 1, "num_rollouts": 4, "probe_size": 4, "max_new_tokens": 24}


def distance_of_changes(start: Tensor, one: Tensor, other: Tensor) -> float:
    """Returns how far two ends of training are from each other, as a share of the longer of their ways from the start.

    A student that was not trained is 1 away from one that was, whatever the step's size; two that were not are infinitely far.
    """
    changes = (one - start).double(), (other - start).double()
    longest = max(float(change.norm()) for change in changes)
    return float((changes[0] - changes[1]).norm()) / longest if longest > 0 else math.inf


def adapters_around_a_window(**fields: Any) -> tuple[Tensor, Tensor]:
    """Returns a student's adapter as it starts, and after a window of greedy rollouts, on the CPU."""
    population = Population(preset("ATESD-Tiny-v0", **SMALL, temperature=0.0, **fields))
    population.reset(0, seed=2)
    start = population.adapters.flat.detach().cpu().clone()
    population.window(np.full((1, 1), 0.5))
    return start, population.adapters.flat.detach().cpu()


def tiny_agreement(**fields: Any) -> dict[str, Any]:
    """Returns the distance of the changes, and the seconds of a window of ATESD-Tiny-v0 with some fields changed."""
    start, here = adapters_around_a_window(device=device_name())
    _, on_cpu = adapters_around_a_window(device="cpu")
    population = Population(preset("ATESD-Tiny-v0", device=device_name(), probe_accuracy_every=0, **fields))
    population.reset(0, seed=0)
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        population.window(np.full((1, 1), 0.5))
        seconds.append(time.perf_counter() - began)
    return {"distance_of_changes": distance_of_changes(start, here, on_cpu), "window_sec": seconds[-1]}
