"""Runs experiments in child processes, some of which are killed, and prints what happened; started by test_resume.py.

A program of its own: children are forked after the imports, so that a life costs its windows and not its imports, and in a
process that has no threads yet.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import gymnasium
import torch

import agents
from atesd.experiments.run import execute
from atesd.experiments.specs import plan_runs
from atesd_env.config import preset
from atesd_env.population.population import Population


def life(arguments: argparse.Namespace, out: Path, *, kill_after_sec: float | None) -> int:
    """Executes or resumes all runs in a child; returns its exit status, or minus the signal that ended it."""
    config = preset(arguments.env, **json.loads(arguments.fields))
    specs = plan_runs(arguments.env, config, ["beta", "random"], [0], out)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for spec in specs:
                execute(spec, resume=True, checkpoint_every=1)
            status = 0
        finally:
            os._exit(status)
    if kill_after_sec is not None:
        time.sleep(kill_after_sec)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    """Makes the runs in "alone", and again in "killed", where children die at random moments until one comes to the end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--env", required=True)
    parser.add_argument("--fields", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, required=True, help="most of them")
    parser.add_argument(
        "--lives", type=int, required=True, help="the longest life has this part of the undisturbed time"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # Whatever is imported late (torch's optimizers import half of it) is imported here, once.
    agents.make("beta", gymnasium.make("ATESD-Toy-v0"))
    Population(preset("ATESD-Tiny-v0"))
    started = time.perf_counter()
    status = life(arguments, arguments.out / "alone", kill_after_sec=None)
    longest_life_sec = (time.perf_counter() - started) / arguments.lives
    rng, killed = random.Random(0), arguments.out / "killed"
    windows_at_kill: list[int] = []
    for _ in range(arguments.kills if status == 0 else 0):
        status = life(arguments, killed, kill_after_sec=rng.uniform(0.0, longest_life_sec))
        if status != -signal.SIGKILL:
            break
        windows_at_kill.append(sum(path.read_bytes().count(b"\n") for path in killed.glob("*/trajectory.jsonl")))
    if status == -signal.SIGKILL:
        status = life(arguments, killed, kill_after_sec=None)
    sys.stdout.write(json.dumps(windows_at_kill))
    sys.exit(status)


if __name__ == "__main__":
    main()
