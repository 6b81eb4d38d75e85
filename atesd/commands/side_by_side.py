"""Many runs at once, for the verbs that make some: in processes of this machine or on a Ray cluster, with one bar for all."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atesd.console import say
from atesd.experiments.processes import FailedRun, Progress, execute_all, num_cores
from atesd.experiments.progress import Tell, live_progress
from atesd.experiments.specs import RunSpec
from atesd_env.errors import AtesdError, ConfigError


@dataclass(frozen=True)
class Settings:
    """Where runs are made: the flags of these names.

    Raises:
        ConfigError: If ``processes`` is below 0.
    """

    processes: int = 0
    ray: str | None = None
    ray_cpus: float = 1.0
    ray_gpus: float = 0.0
    ray_retries: int = 3

    def __post_init__(self) -> None:
        if self.processes < 0:
            raise ConfigError(
                f"processes: expected a number, or 0 for one a core, got {self.processes}; correct --processes."
            )

    def num_threads(self, num_runs: int) -> int:
        """Returns how many threads a run computes with, unless OMP_NUM_THREADS says otherwise."""
        if self.ray is not None:
            return max(1, int(self.ray_cpus))
        return int(os.environ.get("OMP_NUM_THREADS", max(1, num_cores() // self.told(num_runs)["processes"])))

    def told(self, num_runs: int) -> dict[str, Any]:
        """Returns what files and tables say of it."""
        if self.ray is None:
            return {"processes": min(self.processes or num_cores(), num_runs)}
        return {"ray": self.ray or "local"}


def execute_side_by_side(
    specs: Sequence[RunSpec], settings: Settings, *, quiet: bool = False, **options: Any
) -> list[FailedRun]:
    """Makes runs, shows how far all of them have come, and returns those that failed.

    Args:
        specs: The runs.
        settings: Where they are made.
        quiet: Show no progress.
        **options: Those of ``experiments.run.execute``: overwrite, resume, checkpoint_every.
    """
    with live_progress(quiet=quiet) as begin:
        report = _report(begin("windows", sum(spec.config.windows for spec in specs)), len(specs))
        if settings.ray is None:
            processes = settings.told(len(specs))["processes"]
            return execute_all(specs, processes=processes, report=report, **options)
        from atesd.experiments.ray_runs import RaySettings, execute_on_ray

        asked = RaySettings(settings.ray or None, settings.ray_cpus, settings.ray_gpus, settings.ray_retries)
        return execute_on_ray(specs, asked, report=report, **options)


def raise_failures(failed: Sequence[FailedRun], num_runs: int) -> None:
    """Raises AtesdError, naming the runs, if any failed."""
    if not failed:
        return
    for one in failed:
        if one.details:
            say(f"{one.spec.agent_name} seed {one.spec.seed}:\n{one.details}", error=True)
    lines = [f"  {one.spec.agent_name} seed {one.spec.seed}: {one.reason}" for one in failed]
    raise AtesdError(
        f"expected {num_runs} runs to come to their end, but {len(failed)} failed; the table has the others. The same "
        "arguments and --resume (instead of --overwrite) try these again:\n" + "\n".join(lines)
    )


def with_ray_value(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with the empty address behind a ``--ray`` that stands alone."""
    completed: list[str] = []
    for argument, following in zip(arguments, [*arguments[1:], "--"], strict=True):
        completed += [argument, ""] if argument == "--ray" and following.startswith("-") else [argument]
    return completed


def _report(tell: Tell, num_runs: int) -> Callable[[Progress], None]:
    """Returns what tells of the windows of all runs together."""
    made: dict[Path, int] = {}
    over: set[Path] = set()

    def report(news: Progress) -> None:
        folder = news.spec.folder
        made[folder] = made.get(folder, 0) + news.num_windows
        if news.is_over:
            over.add(folder)
            made[folder] = news.spec.config.windows  # a run that ended early makes no more windows
        tell(sum(made.values()), f"runs {len(over)}/{num_runs}, {news.spec.agent_name} seed {news.spec.seed}")

    return report
