"""Runs of a comparison as jobs of a SLURM cluster: copy, adapt and start it where `sbatch` works.

    python docs/slurm.py --env ATESD-Tiny-v0 --agents beta fixed:1 --seeds 0 1 2 3 --out runs/slurm --partition gpu --gpus 1

Each run is a job of an array. A job that is preempted, or whose time is up, is put back into the queue by submitit and goes on
at its last checkpoint. When all are through: `atesd compare` with the same arguments and --resume makes the table.
``--executor local`` starts processes of this machine instead, ``debug`` runs everything in this process.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import submitit

from atesd.experiments.processes import attempt
from atesd.experiments.specs import RunSpec, plan_runs
from atesd_env.config import preset


class Job(submitit.helpers.Checkpointable):
    """One run; what submitit calls in the job, and puts back into the queue after an interruption."""

    def __call__(self, spec: RunSpec, checkpoint_every: int) -> str:
        """Begins the run or goes on with it; returns why it failed, empty where it did not."""
        reason, details = attempt(spec, {"resume": True, "checkpoint_every": checkpoint_every}, None)
        return f"{reason}\n{details}".strip()


def submit(arguments: argparse.Namespace) -> list[submitit.Job[str]]:
    """Submits a job for each agent and seed."""
    config = preset(arguments.env, **dict(arguments.set))
    specs = plan_runs(arguments.env, config, arguments.agents, arguments.seeds, arguments.out.resolve())
    executor = submitit.AutoExecutor(folder=arguments.out / "slurm", cluster=arguments.executor)
    executor.update_parameters(
        name="atesd", cpus_per_task=arguments.cpus, gpus_per_node=arguments.gpus, timeout_min=arguments.minutes
    )
    if arguments.executor == "slurm":
        executor.update_parameters(slurm_partition=arguments.partition, slurm_array_parallelism=arguments.at_once)
    return executor.map_array(Job(), specs, [arguments.checkpoint_every] * len(specs))


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="ATESD-Tiny-v0")
    parser.add_argument("--agents", nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3])
    parser.add_argument("--out", type=Path, required=True, help="a folder that all machines see")
    parser.add_argument(
        "--set", nargs="*", type=_field, default=[], metavar="FIELD=VALUE", help="windows=25 and the like"
    )
    parser.add_argument("--executor", choices=["slurm", "local", "debug"], default="slurm")
    parser.add_argument("--partition")
    parser.add_argument("--cpus", type=int, default=4)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--minutes", type=int, default=240, help="a job's time; a run may take several jobs")
    parser.add_argument("--at-once", type=int, default=16, help="most jobs at a time")
    parser.add_argument("--checkpoint-every", type=int, default=1, help="windows between checkpoints")
    return parser.parse_args(arguments)


def _field(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


def main(arguments: Sequence[str] | None = None) -> None:
    """Submits the jobs; waits for them where they are not a batch system's."""
    options = parsed(arguments)
    jobs = submit(options)
    print(f"submitted {len(jobs)} jobs: {', '.join(job.job_id for job in jobs)}")
    if options.executor == "slurm":
        print(f"logs: {options.out / 'slurm'}; squeue shows them.")
        return
    failures = [failure for job in jobs if (failure := job.result())]
    if failures:
        raise SystemExit("\n".join(failures))


if __name__ == "__main__":
    main()
