"""Many runs from one call, one after the other: what ``atesd run`` does, and a notebook's ``atesd.run``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from agents.specs.registry import Spec
from analysis.load import load_runs
from atesd.experiments.progress import live_progress, window_report
from atesd.experiments.run import execute
from atesd.experiments.specs import RunSpec, check_folders, plan_runs
from atesd.experiments.tracking import MakeTracker
from atesd_env.config import preset
from atesd_env.errors import ConfigError


def play_all(
    specs: Sequence[RunSpec],
    *,
    overwrite: bool = False,
    resume: bool = False,
    checkpoint_every: int = 0,
    track: Sequence[MakeTracker] = (),
    quiet: bool = False,
) -> None:
    """Makes runs one after the other and shows how far they have come; arguments and errors as ``run.execute``.

    Raises:
        RunFilesError: If a folder holds another run, before the first one starts.
    """
    check_folders(specs, resume=resume, overwrite=overwrite)
    with live_progress(quiet=quiet) as begin:
        for number, spec in enumerate(specs, start=1):
            tell = begin(f"[{number}/{len(specs)}] {spec.agent_name} seed {spec.seed}", spec.config.windows)
            execute(
                spec,
                overwrite=overwrite,
                resume=resume,
                checkpoint_every=checkpoint_every,
                report=window_report(tell),
                track=track,
            )


def run(
    env: str,
    agents: Sequence[Spec],
    *,
    out: str | os.PathLike[str],
    seeds: int | Sequence[int] = (0,),
    overwrite: bool = False,
    resume: bool = False,
    quiet: bool = False,
    **fields: Any,
) -> pd.DataFrame:
    """Trains a student under each agent and seed, and returns the rows of all runs, as ``analysis.load_runs`` has them.

    Args:
        env: Environment id, such as "ATESD-Tiny-v0".
        agents: Who chooses the reveal ratios: specs ("beta", "fixed:0.5"), classes or objects, as in ``agents.make``; or a
            single spec.
        out: Folder that gets one folder for each run; "~" is the home folder.
        seeds: Seeds of the runs; runs with the same seed are paired.
        overwrite: Replace runs that are already in the folder.
        resume: Go on with the runs in the folder, each at its last whole checkpoint; finished ones are only read.
        quiet: Show no progress (a bar on a terminal or in a notebook, a line a window elsewhere).
        **fields: Fields of the environment's configuration, such as ``windows=5``.

    Raises:
        ConfigError: If an id, an agent, a seed or a field cannot be used.
        RunFilesError: If a folder holds a run already, and neither ``overwrite`` nor ``resume`` is given.
    """
    if resume and overwrite:
        raise ConfigError("resume: expected either resume=True or overwrite=True, got both; leave one out.")
    agents = list(agents) if isinstance(agents, Iterable) and not isinstance(agents, str) else [agents]
    seeds = list(seeds) if isinstance(seeds, Iterable) else [seeds]
    for name, values in (("agents", agents), ("seeds", seeds)):
        if not len(values):
            raise ConfigError(f"{name}: expected at least one, got {values!r}; name one.")
    specs = plan_runs(env, preset(env, **fields), agents, seeds, Path(out).expanduser())
    play_all(specs, overwrite=overwrite, resume=resume, quiet=quiet)
    return load_runs([spec.folder for spec in specs])
