"""What the benchmark scripts share: where results go, what they say about the machine, bootstrap intervals."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import bootstrap

RESULTS = Path(__file__).parent / "results"


def num_seeds(text: str) -> int:
    """Returns a number of seeds from the command line; an interval needs at least two."""
    number = int(text)
    if number < 2:
        raise argparse.ArgumentTypeError(f"expected at least 2 seeds, for an interval, got {number}")
    return number


def provenance() -> dict[str, Any]:
    """Returns the command, the commit and the machine, which every committed result names."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=RESULTS.parent
    )
    return {
        "command": shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "commit": commit.stdout.strip() or "unknown",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


# Asked at the start: a commit made while a script runs is not the code that it measures.
_PROVENANCE = provenance()


def save(name: str, result: dict[str, Any]) -> None:
    """Prints a result and writes it to ``benchmarks/results/<name>.json``."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({**_PROVENANCE, **result}, indent=2)
    print(text)
    (RESULTS / f"{name}.json").write_text(text + "\n")


def mean_with_interval(values: list[float], seed: int = 0) -> dict[str, float]:
    """Returns the mean and its bootstrap 95% interval (percentile, 10,000 resamples, seeded)."""
    sample = np.asarray(values)
    interval = bootstrap(
        (sample,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    return {"mean": float(sample.mean()), "low": float(interval.low), "high": float(interval.high)}
