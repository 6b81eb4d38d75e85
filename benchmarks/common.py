"""What the benchmark scripts share: where results go, what they say about the machine, intervals over seeds."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.profiler import ProfilerActivity, profile

from analysis.contrasts import to_reference
from analysis.intervals import mean_interval
from atesd_env.files.atomic import write_atomically

RESULTS = Path(__file__).parent / "results"
FAST: dict[str, Any] = {"products": "onednn", "lora_merge": True}
"""The fields of an environment that are faster on this machine and change what it computes by rounding only."""


def num_seeds(text: str) -> int:
    """Returns a number of seeds from the command line; an interval needs at least two."""
    number = int(text)
    if number < 2:
        raise argparse.ArgumentTypeError(f"expected at least 2 seeds, for an interval, got {number}")
    return number


def provenance() -> dict[str, Any]:
    """Returns the command, the commit and the machine, which every committed result names."""
    script = Path(sys.argv[0])
    name = script.parent.name if script.stem == "__main__" else script.stem
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=RESULTS.parent
    )
    return {
        "command": shlex.join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]]),
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


def kept(path: Path, asked: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns a part of a measurement from its file, which is made first where there is none: what was broken off goes on there.

    Args:
        path: The file.
        asked: What the part depends on, as JSON holds it; a file of something else is refused.
        make: Makes the part.
    """
    if not path.exists():
        write_atomically(path, json.dumps({**_PROVENANCE, **asked, **make()}).encode())
    content: dict[str, Any] = json.loads(path.read_text())
    if any(content.get(name) != value for name, value in asked.items()):
        raise SystemExit(f"{path}: expected what belongs to {asked}, got something else; take another folder.")
    return content


def peak_bytes(action: Callable[[], object]) -> int:
    """Returns the most bytes that a call's tensors hold on the CPU at one time, what it returns among them."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        held = action()
    memory = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    del held
    sizes = [int(event.nbytes()) for event in sorted(memory, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(sizes))


def mean_with_interval(values: ArrayLike) -> dict[str, float]:
    """Returns the mean over seeds and its 95% t interval."""
    return dict(zip(("mean", "low", "high"), map(float, mean_interval(values)), strict=True))


def differences_to(values: ArrayLike, labels: Sequence[object], reference: int) -> dict[str, dict[str, float]]:
    """Returns each column's paired difference to a reference column; the 95% intervals hold for all of them at once.

    Args:
        values: Outcomes, [seeds, columns].
        labels: What the columns are called.
        reference: The column that the others are compared with.
    """
    contrast = to_reference(np.asarray(values, dtype=np.float64), reference)
    return {
        str(label): {
            "mean": float(contrast.difference[i]),
            "low": float(contrast.low[i]),
            "high": float(contrast.high[i]),
        }
        for i, label in enumerate(labels)
        if i != reference
    }
