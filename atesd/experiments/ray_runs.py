"""Many runs on many machines: each run a task of a Ray cluster, begun again at its last checkpoint when its worker dies."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from atesd.experiments.processes import FailedRun, Progress, attempt
from atesd.experiments.specs import RunSpec
from atesd_env.errors import ConfigError
from atesd_env.files.atomic import make_own_folder, write_atomically
from atesd_env.files.run_folder import TRAJECTORY_FILE

_POLL_SEC = 0.5
_Files = dict[str, bytes]


@dataclass(frozen=True)
class RaySettings:
    """Where the runs of a comparison go, and what each of them needs.

    Attributes:
        address: Of a running cluster, as ``ray.init`` takes it ("auto", "10.0.0.1:6379", "ray://..."); None is the one that
            runs on this machine, or one started for these runs.
        cpus: Cores of a run, which are its threads too.
        gpus: GPUs of a run; a part of one lets several runs share it.
        retries: How often a run goes on after its worker died; errors of the run itself are not tried again.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    retries: int = 3

    def __post_init__(self) -> None:
        if self.cpus <= 0 or self.gpus < 0 or self.retries < 0:
            raise ConfigError(
                f"ray: expected more than 0 cores and at least 0 GPUs and retries, got {self.cpus}, {self.gpus} and {self.retries}; "
                "change --ray-cpus, --ray-gpus or --ray-retries."
            )


@dataclass
class _Task:
    """A run that is with the cluster."""

    spec: RunSpec
    num_reported: int = 0
    num_deaths: int = 0


def execute_on_ray(
    specs: Sequence[RunSpec],
    settings: RaySettings,
    *,
    overwrite: bool = False,
    resume: bool = False,
    checkpoint_every: int = 0,
    report: Callable[[Progress], None] | None = None,
) -> list[FailedRun]:
    """Executes runs as tasks of a Ray cluster, and returns those that failed; arguments as for ``processes.execute_all``.

    Every machine needs this package, and any agent of the user's own. Where a machine sees the runs' folder under the same
    path (a shared file system), the run writes there, and goes on at its last checkpoint after its worker died. Where
    it does not, the run's files come back when it is through, and after a death it begins anew.

    Raises:
        ConfigError: If Ray is not installed, or no machine of the cluster has what a run needs.
        KeyboardInterrupt: After an interruption, once the tasks are cancelled. ``resume`` goes on from there.
    """
    ray = _connected(settings)
    folder = specs[0].folder.parent.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / f".shared-{uuid.uuid4().hex}"
    mark.touch()
    remote = ray.remote(_run).options(num_cpus=settings.cpus, num_gpus=settings.gpus, max_retries=0)

    def begin(spec: RunSpec, *, again: bool) -> Any:
        options = {
            "overwrite": overwrite and not again,
            "resume": resume or again,
            "checkpoint_every": checkpoint_every,
        }
        return remote.remote(replace(spec, folder=spec.folder.resolve()), options, str(mark), os.getcwd())

    failed: list[FailedRun] = []
    running = {begin(spec, again=False): _Task(spec) for spec in specs}
    try:
        while running:
            ready, _ = ray.wait(list(running), timeout=_POLL_SEC)
            for reference in ready:
                task = running.pop(reference)
                result = _result(ray, reference, task, settings.retries)
                if result is None:
                    running[begin(task.spec, again=True)] = task
                    continue
                reason, details, files = result
                _write(task.spec.folder, files)
                if reason:
                    failed.append(FailedRun(task.spec, reason, details))
                _tell(report, task, is_over=True)
            for task in running.values():
                _tell(report, task, is_over=False)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        mark.unlink(missing_ok=True)
        ray.shutdown()
    return failed


def _result(ray: Any, reference: Any, task: _Task, retries: int) -> tuple[str, str, _Files] | None:
    """Returns what a task came to (``_run``), or None where its worker died and it is to go on elsewhere."""
    try:
        result: tuple[str, str, _Files] = ray.get(reference)
    except ray.exceptions.RayError as error:
        task.num_deaths += 1
        if task.num_deaths <= retries:
            return None
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        return f"its worker died {task.num_deaths} times: {reason}", "", {}
    return result


def _connected(settings: RaySettings) -> Any:
    """Returns the module ``ray``, connected to the cluster.

    Raises:
        ConfigError: If it is not installed, the cluster does not answer, or no machine has what a run needs.
    """
    # Before the import: Ray would send statistics of its use to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A run that asks for no GPU sees none (said, since Ray warns where it is not).
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    try:
        import ray
    except ImportError as error:
        raise ConfigError("ray: expected the package ray, found none; pip install 'atesd-env[ray]'.") from error
    if not ray.is_initialized():
        try:
            options = {} if settings.address else {"include_dashboard": False}
            ray.init(settings.address, log_to_driver=False, logging_level="ERROR", **options)
        except ConnectionError as error:
            raise ConfigError(
                f"ray: expected a cluster at {settings.address!r}, found none ({error}); start one with `ray start --head`."
            ) from error
    wanted = {"CPU": settings.cpus, "GPU": settings.gpus}
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(has.get(name, 0) >= number for name, number in wanted.items()) for has in machines):
        ray.shutdown()
        found = "; ".join(f"{has.get('CPU', 0):g} cores, {has.get('GPU', 0):g} GPUs" for has in machines)
        raise ConfigError(
            f"ray: expected a machine with {settings.cpus:g} cores and {settings.gpus:g} GPUs for a run, found {found}; change "
            "--ray-cpus or --ray-gpus."
        )
    return ray


def _run(spec: RunSpec, options: dict[str, Any], mark: str, here: str) -> tuple[str, str, _Files]:
    """Executes one run in a worker; returns (reason of a failure or "", its traceback, files that have to be sent).

    Where the machine sees the folder ``here`` that the command was typed in, relative paths (of data, instance sets, agents) begin there.
    """
    if os.path.isdir(here):
        os.chdir(here)  # the process is the task's own
    if Path(mark).exists():
        return (*attempt(spec, options, None), {})
    local = Path(tempfile.mkdtemp(prefix="atesd-"))
    try:
        # The folder has the run's name: it goes into config.json.
        there = replace(spec, folder=local / spec.folder.name)
        reason, details = attempt(there, {**options, "resume": False, "overwrite": True}, None)
        files = {
            str(path.relative_to(there.folder)): path.read_bytes()
            for path in there.folder.rglob("*")
            if path.is_file() and "checkpoints" not in path.relative_to(there.folder).parts
        }
        return reason, details, files
    finally:
        shutil.rmtree(local, ignore_errors=True)


def _write(folder: Path, files: _Files) -> None:
    for name, content in files.items():
        path = folder / name
        make_own_folder(path.parent)
        write_atomically(path, content)


def _tell(report: Callable[[Progress], None] | None, task: _Task, *, is_over: bool) -> None:
    """Reports a run's windows as its file shows them."""
    if report is None:
        return
    trajectory = task.spec.folder / TRAJECTORY_FILE
    num_windows = trajectory.read_bytes().count(b"\n") if trajectory.exists() else 0
    # A run that goes on at its last checkpoint has fewer windows than before for a while.
    if num_windows > task.num_reported or is_over:
        report(Progress(task.spec, max(0, num_windows - task.num_reported), is_over))
        task.num_reported = max(num_windows, task.num_reported)
