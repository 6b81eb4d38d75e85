"""Which runs judge an agent: every instance of a split at the same seeds, in a folder that says of which set they are.

A submission is such a folder: ``bench.json`` (the set, its version and fingerprint, the split) and below it a folder for each
instance with the runs' own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents.specs.registry import Spec
from atesd.experiments.specs import RunSpec, plan_runs
from atesd_env.bench.instances import ENV_ID, InstanceSet
from atesd_env.bench.seeds import SEEDS, Split, split_of_seed
from atesd_env.config import preset
from atesd_env.errors import ConfigError
from atesd_env.files.atomic import make_parent, write_atomically
from atesd_env.files.description import check_same, read_description
from atesd_env.files.ownership import FolderKind
from atesd_env.files.reading import reading

BENCH_FILE = "bench.json"
"""In a submission's folder: of which set its runs are."""
NUM_SEEDS = 8
"""Seeds of each instance, the first of its split, where nobody says which; --quick takes one."""

SUBMISSION = FolderKind("submission", BENCH_FILE, (re.escape(BENCH_FILE),), ("bench",))
"""A folder with runs of the bench."""

_MOST_THREADS = 1024
_IDENTITY = ("set", "version", "fingerprint", "split")


def default_seeds(split: Split, *, quick: bool = False) -> tuple[int, ...]:
    """Returns the seeds that a split is judged at."""
    return tuple(SEEDS[split][: 1 if quick else NUM_SEEDS])


def plan_bench(
    instances: str, split: Split, agents: Sequence[Spec], seeds: Sequence[int], out: Path, *, context: bool = False
) -> list[RunSpec]:
    """Returns a run for each instance of a split, seed and agent, instance by instance.

    Args:
        instances: Name or file of the set.
        split: Which of its instances.
        agents: As in ``plan_runs``.
        seeds: Seeds of the split.
        out: The submission's folder.
        context: Show agents what the instance is.

    Raises:
        ConfigError: If a seed is not of the split, an agent is none, or the set cannot be used.
    """
    whole = InstanceSet.load(instances)
    for seed in seeds:
        if split_of_seed(seed) != split:
            own = SEEDS[split]
            raise ConfigError(
                f"seeds: expected seeds of the split {split!r}, {own.start} to {own.stop - 1}, got {seed}; correct --seeds."
            )
    specs: list[RunSpec] = []
    for instance in whole.of(split):
        asked = preset(ENV_ID, instances=instances, split=split, instance=instance.id, context=context)
        specs += plan_runs(ENV_ID, asked, agents, seeds, out / instance.id)
    return specs


def write_bench_file(out: Path, instances: str, split: Split, threads: int) -> None:
    """Says in a folder of which set its runs are, or checks that it said so before.

    Args:
        out: The folder.
        instances: Name or file of the set.
        split: Which of its instances.
        threads: Threads of a run: one that is checked must have as many.

    Raises:
        ConfigError: If the folder holds runs of another set or split.
        RunFilesError: If it cannot be read or written.
    """
    told = described(instances, split)
    if SUBMISSION.check(out):
        check_same(out, "submission", read_bench_file(out), {name: told[name] for name in _IDENTITY})
        return
    make_parent(out / BENCH_FILE)
    write_atomically(
        out / BENCH_FILE,
        (json.dumps(SUBMISSION.marked({"bench": {**told, "threads": threads}}), indent=1) + "\n").encode(),
    )


def described(instances: str, split: Split) -> dict[str, Any]:
    """Returns what ``bench.json`` says of a set and a split."""
    whole = InstanceSet.load(instances)
    identity = (whole.name, whole.version, whole.fingerprint, split)
    return {**dict(zip(_IDENTITY, identity, strict=True)), "instances": instances}


def read_bench_file(folder: Path) -> dict[str, Any]:
    """Returns what a submission's folder says of its runs: set, version, fingerprint, split, threads, and where the set was.

    Raises:
        RunFilesError: If it holds no ``bench.json`` that can be read.
    """
    told: dict[str, Any] = read_description(folder / BENCH_FILE, "submission", ["bench"])["bench"]
    with reading(folder / BENCH_FILE, "a submission's description"):
        kinds = {**dict.fromkeys((*_IDENTITY, "instances"), str), "threads": int}
        odd = [name for name, kind in kinds.items() if type(told[name]) is not kind]
        if odd or not 0 < told["threads"] <= _MOST_THREADS:
            raise TypeError(f"{told[(odd or ['threads'])[0]]!r:.40} as {(odd or ['threads'])[0]}")
    return told
